//! Settings that are a choice.

use std::{fmt::Display, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error};
use tracing_subscriber::filter::Targets;

/// What is logged, to standard error: the table `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`; also by part, as `"info,hyper=warn"`. Default
    /// `"info"`.
    #[serde(deserialize_with = "by_name")]
    pub level: Targets,
    /// How. Default: `"text"`.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            level: Targets::new().with_default(tracing::Level::INFO),
            format: LogFormat::Text,
        }
    }
}

/// How lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// An object of JSON a line.
    Json,
}

/// One that is written as its text.
pub fn by_name<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}
