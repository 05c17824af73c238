//! What is allowed, and hardly meant.

use std::{os::unix::fs::PermissionsExt, path::Path};

use super::Settings;

impl Settings {
    /// What an operator should know before the relay is started: passwords that others may read, or
    /// that travel in clear. `file` is that of the settings.
    pub fn warnings(&self, file: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        let has_passwords = self.users.iter().any(|user| user.password.is_some())
            || self.nodes.iter().any(|node| node.password.is_some());
        if has_passwords && is_open(file) {
            warnings.push(open(file));
        }
        let of_users = self.users.iter().map(|it| &it.password_file);
        let of_nodes = self.nodes.iter().map(|it| &it.password_file);
        for path in of_users.chain(of_nodes).flatten() {
            if is_open(path) {
                warnings.push(open(path));
            }
        }
        if let Some(tls) = &self.http.tls
            && is_open(&tls.key)
        {
            warnings.push(open(&tls.key));
        }
        if !self.http.listen.ip().is_loopback() && self.http.tls.is_none() {
            warnings.push(match self.users.is_empty() {
                true => format!(
                    "everybody who reaches {} may write: there are no [[users]]",
                    self.http.listen
                ),
                false => format!(
                    "passwords travel to {} in clear: there is no [http.tls]",
                    self.http.listen
                ),
            });
        }
        warnings
    }
}

fn open(path: &Path) -> String {
    format!(
        "{} may be read by other users of this machine: chmod 600 it",
        path.display()
    )
}

/// Whether others than the owner and its group may read a file.
fn is_open(path: &Path) -> bool {
    // One that is not there is an error elsewhere.
    std::fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o006 != 0)
}
