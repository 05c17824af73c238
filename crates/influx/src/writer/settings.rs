//! What an [`InfluxWriter`](super::InfluxWriter) is told of the servers and of their answers.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::size;

/// A server of InfluxDB 1.x: one table `[[nodes]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// Its number: hints are kept by it, so it stays when the address changes.
    pub id: u64,
    /// Where it is: `http://host:8086` or `https://..`, also with a path in front of `/write`.
    pub url: String,
    /// What people call it. Default: none.
    #[serde(default)]
    pub name: Option<String>,
    /// The user that writes. Default: none, then no credentials are sent.
    #[serde(default)]
    pub username: Option<String>,
    /// The password of the user. Default: none.
    #[serde(default)]
    pub password: Option<Password>,
    /// A file with the password, instead of `password`. A line end after it is no part of it. It
    /// is read anew when the server refuses the password. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// How long one request may take, answer included. Default 10 s, minimum 1 ms.
    #[serde(default = "timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// A file with the certificates (PEM) that the server's one is checked against, instead of
    /// those of the system. Default: none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl NodeSettings {
    /// A server without credentials, with the defaults of all else.
    pub fn new(id: u64, url: impl Into<String>) -> NodeSettings {
        NodeSettings {
            id,
            url: url.into(),
            name: None,
            username: None,
            password: None,
            password_file: None,
            timeout: timeout(),
            ca_file: None,
        }
    }
}

/// A password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(password: String) -> Self {
        Password(password)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How points are sent, and what answers mean, whatever the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterSettings {
    /// Hints that go to one database are sent together up to so many bytes; a larger hint is sent
    /// alone. A server that says 413 is sent less, but asked for each body: set it to what the
    /// server takes (`max-body-size` of influxd). A size such as `"1MiB"`. Default 1 MiB, minimum
    /// 1.
    #[serde(deserialize_with = "size::read")]
    pub max_body_bytes: u64,
    /// Whether bodies of 1 KiB and more are compressed. Default true.
    pub gzip: bool,
    /// How long points wait for a database, or a retention policy, that the server does not have;
    /// then their hint becomes a dead letter. Default 1 h.
    #[serde(with = "humantime_serde")]
    pub missing_database_max_age: Duration,
    /// What certain answers mean, instead of what they mean by themselves. The first one that
    /// matches counts. Default: none.
    pub answers: Vec<AnswerRule>,
}

impl Default for WriterSettings {
    fn default() -> Self {
        WriterSettings {
            max_body_bytes: 1 << 20,
            gzip: true,
            missing_database_max_age: Duration::from_secs(60 * 60),
            answers: Vec::new(),
        }
    }
}

/// What an answer means that takes no points: one table `[[writer.answers]]`. Its status or its
/// text has to be given; what is given has to match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// The status.
    #[serde(default)]
    pub status: Option<u16>,
    /// A part of the text.
    #[serde(default)]
    pub contains: Option<String>,
    /// What becomes of the points.
    pub then: Then,
}

/// What becomes of points that a server did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// They are sent again.
    Retry,
    /// They become a dead letter.
    Reject,
    /// Nobody needs them any more: they are discarded.
    Obsolete,
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}
