//! Who writes to a server.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::{error::WriterError, settings::NodeSettings};

/// A user and a password, as a header that does not show in `Debug`.
#[derive(Debug)]
pub struct Credentials {
    username: String,
    file: Option<PathBuf>,
    /// What is sent; with a file, as it was when it was last read.
    header: Mutex<HeaderValue>,
}

impl Credentials {
    /// Those of the settings, if there are any.
    pub fn of(node: &NodeSettings) -> Result<Option<Credentials>, WriterError> {
        let id = node.id;
        let password = match (&node.username, &node.password, &node.password_file) {
            (None, None, None) => return Ok(None),
            (Some(_), Some(password), None) => password.as_str().to_owned(),
            (Some(_), None, Some(file)) => read(file).map_err(|source| WriterError::File {
                node: id,
                path: file.clone(),
                source,
            })?,
            _ => return Err(WriterError::Credentials { node: id }),
        };
        let username = node.username.clone().unwrap_or_default();
        // It ends the user in the header.
        if username.contains(':') {
            return Err(WriterError::Credentials { node: id });
        }
        Ok(Some(Credentials {
            header: Mutex::new(header(&username, &password)),
            username,
            file: node.password_file.clone(),
        }))
    }

    /// What to send.
    pub fn header(&self) -> HeaderValue {
        self.header.lock().clone()
    }

    /// The server refused those: what to send instead, if the file has another password now.
    pub async fn instead_of(&self, refused: &HeaderValue) -> Option<HeaderValue> {
        let file = self.file.clone()?;
        let password = spawn_blocking(move || read(&file)).await.ok()?.ok()?;
        let now = header(&self.username, &password);
        *self.header.lock() = now.clone();
        (now != refused).then_some(now)
    }
}

/// The password in a file, without the end of its line.
pub fn read(file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        false => Ok(password.to_owned()),
    }
}

fn header(username: &str, password: &str) -> HeaderValue {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
    // Base64 has no letter that a header cannot have.
    let header = HeaderValue::try_from(format!("Basic {encoded}"));
    let mut header = header.unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}
