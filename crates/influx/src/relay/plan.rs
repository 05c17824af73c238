//! What a relay would do with its settings, in words.

use std::fmt::Write;

use super::{
    settings::Settings,
    tls::{TlsError, server_config},
    users::{NoPassword, Users},
};
use crate::{InfluxWriter, writer::WriterError};

/// A file that the settings name, or what is in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The password of a user.
    #[error(transparent)]
    Password(#[from] NoPassword),
    /// The certificate, or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A server.
    #[error(transparent)]
    Writer(#[from] WriterError),
}

/// What a relay would do. Files that the settings name are read; nothing is opened, listened at or
/// asked.
///
/// # Errors
/// [`PlanError`] for a file that cannot be used.
pub fn plan(settings: &Settings) -> Result<String, PlanError> {
    Users::new(&settings.users)?;
    settings.http.tls.as_ref().map(server_config).transpose()?;
    InfluxWriter::new(&settings.nodes, settings.writer.clone())?;
    let mut text = String::new();
    // A text takes all that is written to it.
    let _ = describe(settings, &mut text);
    Ok(text)
}

fn describe(settings: &Settings, text: &mut String) -> std::fmt::Result {
    let http = &settings.http;
    let scheme = match http.tls {
        Some(_) => "https",
        None => "http",
    };
    writeln!(text, "takes writes at {scheme}://{}", http.listen)?;
    match settings.users.len() {
        0 => writeln!(text, "  from everybody")?,
        users => writeln!(text, "  from {users} users")?,
    }
    for udp in &settings.udp {
        writeln!(
            text,
            "takes lines at udp://{} for {:?}",
            udp.listen, udp.database
        )?;
    }
    let (level, nodes) = (settings.consistency, settings.nodes.len());
    writeln!(text, "writes to {nodes} servers, at consistency {level}")?;
    for node in &settings.nodes {
        let name = node.name.as_deref().unwrap_or("no name");
        let user = node.username.as_deref().unwrap_or("nobody");
        writeln!(text, "  {} ({name}) {}, as {user}", node.id, node.url)?;
    }
    let queue = &settings.queue;
    let (ordering, answer) = (
        format!("{:?}", queue.ordering).to_lowercase(),
        format!("{:?}", queue.answer).to_lowercase(),
    );
    writeln!(
        text,
        "keeps what they miss in {}, ordering {ordering}, answer {answer}",
        queue.dir.display()
    )?;
    let mode = match settings.admin.read_only {
        true => "read only",
        false => "with all rights",
    };
    if let Some(socket) = &settings.admin.socket {
        writeln!(text, "is operated at unix:{}, {mode}", socket.display())?;
    }
    if let Some(listen) = settings.admin.listen {
        writeln!(text, "is operated at http://{listen}, {mode}")?;
    }
    Ok(())
}
