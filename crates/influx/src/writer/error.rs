//! What can be wrong with the settings of a writer.

use std::{error::Error, io, path::PathBuf};

/// Settings that no [`InfluxWriter`](super::InfluxWriter) can be made of. None of these shows a
/// password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// Two nodes have one number.
    #[error("nodes: id = {0} is there twice: give each server a number of its own")]
    NodeTwice(u64),
    /// An address is none.
    #[error(
        "node {node}: url is no address of a server: {why}; give one such as http://host:8086, \
         and credentials as username and password"
    )]
    Url {
        /// Which node.
        node: u64,
        /// What is wrong.
        why: String,
    },
    /// A user without a password, a password without a user, or two passwords.
    #[error(
        "node {node}: credentials are username (without a colon), and password or password_file: \
         give both or neither"
    )]
    Credentials {
        /// Which node.
        node: u64,
    },
    /// A file cannot be read.
    #[error("node {node}: cannot read {path}", path = path.display())]
    File {
        /// Which node.
        node: u64,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are no certificates that the server's one could be checked against.
    #[error("node {node}: no certificate to check the server's one against: give ca_file")]
    NoCertificates {
        /// Which node.
        node: u64,
        /// What was wrong with the file, if one was given.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// TLS does not work at all.
    #[error("node {node}: cannot set up TLS")]
    Tls {
        /// Which node.
        node: u64,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A number is too small.
    #[error("{0} is too small: give at least {1}")]
    TooSmall(String, &'static str),
    /// A rule would match every answer.
    #[error("writer: answers: rule {0} has neither status nor contains: give one of them")]
    RuleForAll(usize),
}
