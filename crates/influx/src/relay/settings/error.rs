//! What is wrong with a file of settings.

use std::{fmt, io};

use super::place::line_at;

/// What is wrong with the settings, and in which line.
///
/// Its text repeats no line of the file, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub struct SettingsError {
    /// The line, from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub problem: String,
    /// What the system said.
    #[source]
    pub source: Option<io::Error>,
}

impl SettingsError {
    pub(super) fn unreadable(error: io::Error) -> Self {
        SettingsError {
            line: None,
            problem: format!("the file cannot be read: {error}"),
            source: Some(error),
        }
    }

    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        SettingsError {
            line: error.span().map(|span| line_at(text, span.start)),
            problem: error.message().to_owned(),
            source: None,
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}
