//! `hh check`: one line and an exit status, as monitoring plug-ins have them.

use std::process::ExitCode;

use clap::Args;
use hinted_handoff::Amount;
use serde::{Deserialize, Serialize};

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::{Output, printable},
};

const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// Say in one line whether all is well.
///
/// Exit status: 0 well, 1 over a bound, 2 it does not serve, or replay does not run, 3 it is not
/// known.
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

/// What is looked at of what a host says. All of it must be there: what is not known is not well.
#[derive(Deserialize)]
struct Status {
    health: String,
    text: String,
    pending: Amount,
    dead_letters: Amount,
    // Without this `null` and nothing would be the same.
    #[serde(deserialize_with = "Option::deserialize")]
    oldest_age_ms: Option<u64>,
}

#[derive(Serialize)]
struct Figures {
    pending_hints: u64,
    pending_bytes: u64,
    oldest_age_ms: Option<u64>,
    dead_letters: u64,
}

#[derive(Serialize)]
struct Checked {
    state: &'static str,
    why: String,
    figures: Option<Figures>,
}

impl Check {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let asked = Client::new(&self.host).and_then(|client| client.get("/v1/status"));
        let (code, checked) = match asked {
            Ok(status) => self.judge(status),
            Err(failure) => (UNKNOWN, Checked::unknown(failure.text())),
        };
        checked.print(output)?;
        Ok(ExitCode::from(code))
    }

    fn judge(&self, status: Status) -> (u8, Checked) {
        let (bytes, letters) = (status.pending.bytes, status.dead_letters.hints);
        let age_ms = status.oldest_age_ms.unwrap_or(0);
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
        let (code, state, why) = match status.health.as_str() {
            "serving" if over.is_empty() => (0, "OK", "all is well".to_owned()),
            "serving" => (WARNING, "WARNING", over.join("; ")),
            _ => (CRITICAL, "CRITICAL", status.text),
        };
        let figures = Some(Figures {
            pending_hints: status.pending.hints,
            pending_bytes: bytes,
            oldest_age_ms: status.oldest_age_ms,
            dead_letters: letters,
        });
        (
            code,
            Checked {
                state,
                why,
                figures,
            },
        )
    }
}

/// Says that the arguments are wrong, as a check that cannot tell.
pub fn wrong_arguments(output: &mut Output) -> Result<ExitCode, Failure> {
    let why = "the arguments are wrong: see standard error".to_owned();
    Checked::unknown(why).print(output)?;
    Ok(ExitCode::from(UNKNOWN))
}

impl Checked {
    fn unknown(why: String) -> Checked {
        Checked {
            state: "UNKNOWN",
            why,
            figures: None,
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        match output.is_json() {
            true => output.json(self),
            false => output.line(&self.line()),
        }
    }

    /// Behind the bar stand figures, as plug-ins have them: there is no other bar, nor an end of a
    /// line.
    fn line(&self) -> String {
        let why = printable(&self.why).replace('|', "\\u{7c}");
        let head = format!("{} - {why}", self.state);
        let Some(figures) = &self.figures else {
            return head;
        };
        format!(
            "{head} | pending={} bytes={}B age={}s letters={}",
            figures.pending_hints,
            figures.pending_bytes,
            figures.oldest_age_ms.unwrap_or(0) / 1000,
            figures.dead_letters
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{
        "health": "failed", "text": "a|b\nc", "oldest_age_ms": null,
        "pending": { "hints": 1, "bytes": 2 }, "dead_letters": { "hints": 3, "bytes": 4 }
    }"#;

    #[test]
    fn a_status_that_lacks_a_field_is_not_taken_for_zero() {
        assert!(serde_json::from_str::<Status>(STATUS).is_ok());
        for name in ["health", "text", "oldest_age_ms", "pending", "dead_letters"] {
            let renamed = STATUS.replace(&format!("\"{name}\""), "\"renamed\"");
            assert!(serde_json::from_str::<Status>(&renamed).is_err(), "{name}");
        }
    }

    #[test]
    fn what_a_host_says_does_not_break_the_line_nor_the_figures() {
        let why = "a|b\nc".to_owned();
        let (state, figures) = ("CRITICAL", None);
        let checked = Checked {
            state,
            why,
            figures,
        };
        assert_eq!(checked.line(), "CRITICAL - a\\u{7c}b\\nc");
    }
}
