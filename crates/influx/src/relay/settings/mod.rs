//! The file of settings.

mod choices;
mod error;
mod place;
mod rules;
mod warnings;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use hinted_handoff::{AnswerWhen, Config, ConsistencyLevel, NodeId, WriteOrdering};
use serde::Deserialize;

pub use choices::{LogFormat, LogSettings};
pub use error::SettingsError;

use self::place::Places;
pub(super) use self::place::line_at;
use crate::{
    Precision, size,
    writer::{NodeSettings, Password, WriterSettings},
};

const MIB: u64 = 1 << 20;

/// A server that takes a moment, or that is asked which points it refuses, is waited for: a client
/// can be told of its answer then, and nothing is queued.
const HINT_AFTER: Duration = Duration::from_secs(1);

/// All settings of `hh-relay`: one file of TOML.
///
/// Durations are written as `"10s"`, sizes as `"25MiB"` or as plain numbers of bytes. Unknown keys
/// are an error. [`from_toml`](Settings::from_toml) and [`read`](Settings::read) are the ways in:
/// they know what a relay's queue is by default, and check what depends on several settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// When a write counts as done that does not say so itself (`consistency=` of `/write`).
    /// Default: `"any"`, one server has it, or it is durably queued for one.
    #[serde(default = "any", deserialize_with = "choices::by_name")]
    pub consistency: ConsistencyLevel,
    /// How long a stop waits for requests that are under way, before it cuts them off. Default 30
    /// s, maximum 1 day.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub stop_timeout: Duration,
    /// Where clients write to.
    #[serde(default)]
    pub http: HttpSettings,
    /// Who may write. Default: none, then everybody may.
    #[serde(default)]
    pub users: Vec<UserSettings>,
    /// Where lines come in by UDP. Default: nowhere.
    #[serde(default)]
    pub udp: Vec<UdpSettings>,
    /// The servers. At least one.
    #[serde(default)]
    pub nodes: Vec<NodeSettings>,
    /// How points are sent to them.
    #[serde(default)]
    pub writer: WriterSettings,
    /// The queue of what they missed. `dir` is required. By default `ordering` is `"strict"`,
    /// `answer` is `"accounted"`, and `hint_after` is 1 s.
    pub queue: Config,
    /// What operators use. Default: nothing is served.
    #[serde(default)]
    pub admin: AdminSettings,
    /// What is logged, to standard error.
    #[serde(default)]
    pub log: LogSettings,
}

/// Where clients write to: the table `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpSettings {
    /// The address, with the port. Default `127.0.0.1:9096`.
    pub listen: SocketAddr,
    /// Certificate and key, for HTTPS. Default: none, then it is plain HTTP.
    pub tls: Option<TlsSettings>,
    /// The largest body, as it came and as it is when it was unpacked. Default 25 MiB, minimum 1
    /// KiB, maximum 1 GiB.
    #[serde(deserialize_with = "size::read")]
    pub max_body_bytes: u64,
    /// All bodies under way together, unpacked; what comes beyond that is answered with 503.
    /// Default 64 MiB, minimum `max_body_bytes`, maximum 1 GiB.
    #[serde(deserialize_with = "size::read")]
    pub max_bytes_under_way: u64,
    /// Connections at a time; more wait until one ends. Default 2,048, minimum 1, maximum 65,536.
    pub max_connections: usize,
    /// How long the head of a request may take to arrive, and a connection be idle. Default 30 s,
    /// minimum 10 ms, maximum 1 day.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// How long a body may take to arrive, and an answer to leave. Default 30 s, minimum 10 ms,
    /// maximum 1 day.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// The database of a write to `/write` that names none. Default: none, then that is an error.
    pub database: Option<String>,
    /// The retention policy of a write that names none. Default: none, then it is the default one
    /// of the database.
    pub retention_policy: Option<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 9096)),
            tls: None,
            max_body_bytes: 25 * MIB,
            max_bytes_under_way: 64 * MIB,
            max_connections: 2048,
            head_timeout: thirty_seconds(),
            body_timeout: thirty_seconds(),
            database: None,
            retention_policy: None,
        }
    }
}

/// The table `[http.tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsSettings {
    /// The certificate and those between it and the root, PEM. Required.
    pub cert: PathBuf,
    /// Its key, PEM; may be the same file. Required.
    pub key: PathBuf,
}

/// Who may write: one table `[[users]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct UserSettings {
    /// The name. Required.
    pub name: String,
    /// The password.
    #[serde(default)]
    pub password: Option<Password>,
    /// A file with the password, instead of `password`. A line end after it is no part of it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// Where lines come in by UDP: one table `[[udp]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct UdpSettings {
    /// The address, with the port. Required.
    pub listen: SocketAddr,
    /// The database. Required.
    pub database: String,
    /// The retention policy. Default: the default one of the database.
    #[serde(default)]
    pub retention_policy: Option<String>,
    /// The unit of times: `ns`, `u`, `ms`, `s`, `m`, `h`. Default: `ns`.
    #[serde(default, deserialize_with = "choices::by_name")]
    pub precision: Precision,
    /// Packets are written together up to so many bytes. As many may wait while others are written;
    /// what comes beyond that is dropped and counted. Default 1 MiB, minimum 64 KiB, maximum 64
    /// MiB.
    #[serde(default = "one_mib", deserialize_with = "size::read")]
    pub batch_bytes: u64,
    /// Packets wait so long for others at most. Default 1 s, minimum 1 ms, maximum 1 day.
    #[serde(default = "one_second", with = "humantime_serde")]
    pub batch_time: Duration,
    /// The buffer of the socket. Default 0: what the system gives.
    #[serde(default, deserialize_with = "size::read")]
    pub read_buffer: u64,
}

/// What operators use: the table `[admin]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdminSettings {
    /// A unix socket, for `hh --socket`. Default: none.
    pub socket: Option<PathBuf>,
    /// A port of the loopback interface, for the page. Default: none.
    pub listen: Option<SocketAddr>,
    /// Whether both only show. Default: true.
    pub read_only: bool,
}

impl Default for AdminSettings {
    fn default() -> Self {
        AdminSettings {
            socket: None,
            listen: None,
            read_only: true,
        }
    }
}

impl Settings {
    /// The settings of a file. Those that name other files are not followed.
    ///
    /// # Errors
    /// [`SettingsError`]: the file cannot be read, or as [`from_toml`](Settings::from_toml).
    pub fn read(path: &std::path::Path) -> Result<Settings, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(SettingsError::unreadable)?;
        Settings::from_toml(&text)
    }

    /// The settings of a text.
    ///
    /// # Errors
    /// [`SettingsError`]: the first thing that is wrong, with its line.
    pub fn from_toml(text: &str) -> Result<Settings, SettingsError> {
        let mut settings: Settings =
            toml::from_str(text).map_err(|error| SettingsError::of_toml(text, &error))?;
        let places = Places::of(text);
        if !places.has(&["queue", "ordering"]) {
            settings.queue.ordering = WriteOrdering::Strict;
        }
        if !places.has(&["queue", "answer"]) {
            settings.queue.answer = AnswerWhen::Accounted;
        }
        if !places.has(&["queue", "hint_after"]) {
            settings.queue.hint_after = HINT_AFTER.min(settings.queue.write_timeout);
        }
        match settings.broken_rule() {
            None => Ok(settings),
            Some(broken) => Err(broken.at(&places)),
        }
    }

    /// A commented example, which names every setting with its default.
    pub const EXAMPLE: &str = include_str!("../../../relay.example.toml");

    /// The numbers of the servers.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| NodeId(node.id)).collect()
    }
}

fn any() -> ConsistencyLevel {
    ConsistencyLevel::Any
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn one_mib() -> u64 {
    MIB
}

#[cfg(test)]
mod tests;
