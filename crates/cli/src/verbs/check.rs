//! `hh check`: one line and an exit status, as monitoring plug-ins have them.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::{
    client::{Client, Host},
    failure::Failure,
    json::{number, text},
    output::Output,
};

const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// Say in one line whether all is well. Exit status: 0 well, 1 over a bound, 2 it does not serve,
/// 3 it is not known.
#[derive(Debug, Args)]
pub struct Check {
    /// The oldest hint may be so old.
    #[arg(long, value_name = "DURATION")]
    max_age: Option<humantime::Duration>,
    /// So many payload bytes may wait.
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// There may be so many dead letters.
    #[arg(long, value_name = "LETTERS")]
    max_letters: Option<u64>,
    #[command(flatten)]
    host: Host,
}

impl Check {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let asked = Client::new(&self.host).and_then(|client| client.get("/v1/status"));
        let status: Value = match asked {
            Ok(status) => status,
            Err(failure) => {
                output.line(&format!("UNKNOWN - {}", failure.text()))?;
                return Ok(ExitCode::from(UNKNOWN));
            }
        };
        let (bytes, letters) = (
            inner(&status, "pending", "bytes"),
            inner(&status, "dead_letters", "hints"),
        );
        let (hints, age_ms) = (
            inner(&status, "pending", "hints"),
            number(&status, "oldest_age_ms"),
        );
        let mut over = Vec::new();
        if let Some(max) = self
            .max_age
            .filter(|max| u128::from(age_ms) > max.as_millis())
        {
            over.push(format!("the oldest hint is older than {max}"));
        }
        if let Some(max) = self.max_bytes.filter(|max| bytes > *max) {
            over.push(format!("{bytes} bytes wait, over {max}"));
        }
        if let Some(max) = self.max_letters.filter(|max| letters > *max) {
            over.push(format!("{letters} dead letters, over {max}"));
        }
        let (code, word, why) = match text(&status, "health").as_str() {
            "serving" if over.is_empty() => (0, "OK", "all is well".to_owned()),
            "serving" => (WARNING, "WARNING", over.join("; ")),
            _ => (CRITICAL, "CRITICAL", text(&status, "text")),
        };
        // Behind the bar stand figures, as plug-ins have them.
        output.line(&format!(
            "{word} - {why} | pending={hints} bytes={bytes}B age={}s letters={letters}",
            age_ms / 1000
        ))?;
        Ok(ExitCode::from(code))
    }
}

fn inner(value: &Value, outer: &str, name: &str) -> u64 {
    value.get(outer).map_or(0, |it| number(it, name))
}
