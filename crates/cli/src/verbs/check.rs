//! `hh check`: one line and an exit status, as monitoring plug-ins have them.

use std::{collections::BTreeMap, io, process::ExitCode};

use clap::{Args, ValueEnum};
use hinted_handoff::{Amount, Config, LossReason, NodeState, NodeStats, Pause};
use serde::{Deserialize, Serialize};

use crate::{
    client::{Client, Host},
    failure::Failure,
    json::name_of,
    output::{Output, printable},
    verbs::nodes::{self, Named},
};

const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;
/// What leaves by somebody's decision.
const DECIDED: [LossReason; 2] = [LossReason::Discarded, LossReason::Rehinted];

/// Say in one line whether all is well.
///
/// Not well is also what somebody left behind: a pause, stopped hinting, held direct writes; and
/// what went wrong since the host opened the store: hints that were refused, lost or not stored.
///
/// Exit status: 0 well, 1 something is not, or is over a bound, 2 the host does not answer or does
/// not serve, or replay does not run, 3 it is not known.
#[derive(Debug, Args)]
pub struct Check {
    /// The oldest hint may be so old.
    #[arg(long, value_name = "DURATION")]
    max_age: Option<humantime::Duration>,
    /// So many payload bytes may wait: a number, or one with a unit, as settings have it (1GiB).
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<u64>,
    /// There may be so many dead letters.
    #[arg(long, value_name = "LETTERS")]
    max_letters: Option<u64>,
    /// So many hints may be lost or not stored since open; those that were discarded by hand or
    /// given to other nodes do not count.
    #[arg(long, value_name = "HINTS", default_value_t = 0)]
    max_lost: u64,
    /// So many hints may be refused since open, by a limit or by the reserve of the disk.
    #[arg(long, value_name = "HINTS", default_value_t = 0)]
    max_refused: u64,
    /// What is well, too; several with commas.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    allow: Vec<Allowed>,
    #[command(flatten)]
    host: Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Allowed {
    /// Replay of nodes, or of all, is paused.
    Paused,
    /// No hints are made, for nodes or for all.
    NoHinting,
    /// Direct writes to nodes are held.
    HeldDirect,
    /// Hints wait for another build, which reads their format.
    UnknownFormat,
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
    #[serde(deserialize_with = "Option::deserialize")]
    paused_all: Option<Pause>,
    hinting: bool,
    store: Store,
}

#[derive(Deserialize)]
struct Store {
    lost: BTreeMap<LossReason, Amount>,
    refused_for_space: u64,
    refused_when_full: u64,
}

#[derive(Serialize)]
struct Figures {
    pending_hints: u64,
    pending_bytes: u64,
    oldest_age_ms: Option<u64>,
    dead_letters: u64,
    lost_hints: u64,
    refused_hints: u64,
}

#[derive(Serialize)]
struct Checked {
    state: &'static str,
    why: String,
    figures: Option<Figures>,
}

impl Check {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let (code, checked) = self
            .look()
            .unwrap_or_else(|failure| match is_down(&failure) {
                true => (CRITICAL, Checked::without("CRITICAL", failure.text())),
                false => (UNKNOWN, Checked::without("UNKNOWN", failure.text())),
            });
        checked.print(output)?;
        Ok(ExitCode::from(code))
    }

    fn look(&self) -> Result<(u8, Checked), Failure> {
        let client = Client::new(&self.host)?;
        let status: Status = client.get("/v1/status")?;
        let figures = Some(status.figures());
        let checked = |state, why| Checked {
            state,
            why,
            figures,
        };
        if status.health != "serving" {
            return Ok((CRITICAL, checked("CRITICAL", status.text)));
        }
        let mut doubts = self.over(&status);
        doubts.extend(self.by_hand(&status, &nodes::all(&client)?));
        Ok(match doubts.is_empty() {
            true => (0, checked("OK", "all is well".to_owned())),
            false => (WARNING, checked("WARNING", doubts.join("; "))),
        })
    }

    /// The bounds that are not kept.
    fn over(&self, status: &Status) -> Vec<String> {
        let figures = status.figures();
        let (bytes, letters) = (figures.pending_bytes, figures.dead_letters);
        let age_ms = u128::from(figures.oldest_age_ms.unwrap_or(0));
        let mut over = Vec::new();
        if let Some(max) = self.max_age.filter(|max| age_ms > max.as_millis()) {
            over.push(format!("the oldest hint is older than {max}"));
        }
        if let Some(max) = self.max_bytes.filter(|max| bytes > *max) {
            over.push(format!("{bytes} bytes wait, over {max}"));
        }
        if let Some(max) = self.max_letters.filter(|max| letters > *max) {
            over.push(format!("{letters} dead letters, over {max}"));
        }
        if figures.lost_hints > self.max_lost {
            let lost = status.lost();
            let lost: Vec<String> = lost
                .map(|(reason, hints)| format!("{hints} {}", name_of(&reason)))
                .collect();
            let lost = lost.join(", ");
            over.push(format!("lost since open: {lost}, over {}", self.max_lost));
        }
        if figures.refused_hints > self.max_refused {
            over.push(format!(
                "{} hints refused by a limit and {} for lack of disk space since open, over {}",
                status.store.refused_when_full, status.store.refused_for_space, self.max_refused
            ));
        }
        over
    }

    /// What somebody did, and has not taken back.
    fn by_hand(&self, status: &Status, nodes: &[Named]) -> Vec<String> {
        let of = |is_so: fn(&NodeStats) -> bool| nodes::named(nodes, is_so);
        let paused = match status.paused_all {
            Some(_) => Some("all nodes".to_owned()),
            None => of(|it| it.paused.is_some()),
        };
        let unhinted = match status.hinting {
            false => Some("all nodes".to_owned()),
            true => of(|it| !it.hinting),
        };
        let held = of(|it| it.direct.held_since_unix_ms.is_some());
        let is_foreign =
            |it: &NodeStats| it.unknown_format.is_some() || it.state == NodeState::UnknownFormat;
        let doubts = [
            (Allowed::Paused, "replay is paused for", paused),
            (Allowed::NoHinting, "no hints are made for", unhinted),
            (Allowed::HeldDirect, "direct writes are held to", held),
            (
                Allowed::UnknownFormat,
                "hints of an unknown format wait for",
                of(is_foreign),
            ),
        ];
        let doubts = doubts.into_iter();
        doubts
            .filter(|(what, ..)| !self.allow.contains(what))
            .filter_map(|(_, text, nodes)| Some(format!("{text} {}", nodes?)))
            .collect()
    }
}

impl Status {
    /// What was lost since open, but for what somebody decided.
    fn lost(&self) -> impl Iterator<Item = (LossReason, u64)> {
        let lost = self.store.lost.iter();
        lost.filter(|(reason, lost)| !DECIDED.contains(reason) && lost.hints > 0)
            .map(|(reason, lost)| (*reason, lost.hints))
    }

    fn figures(&self) -> Figures {
        let store = &self.store;
        let refused = store.refused_when_full;
        Figures {
            pending_hints: self.pending.hints,
            pending_bytes: self.pending.bytes,
            oldest_age_ms: self.oldest_age_ms,
            dead_letters: self.dead_letters.hints,
            lost_hints: self.lost().fold(0, |sum, it| it.1.saturating_add(sum)),
            refused_hints: refused.saturating_add(store.refused_for_space),
        }
    }
}

/// A size as a file of settings has it.
fn size(text: &str) -> Result<u64, String> {
    let wanted = "give a number of bytes, or a size like 64MiB (powers of 1024) or 64MB";
    Config::parse_size(text).ok_or_else(|| wanted.to_owned())
}

/// Whether it says that the host is gone, hangs or was shut down. Who may not connect knows
/// nothing of it.
fn is_down(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
        Failure::Hangs { .. } => true,
        failure => failure.is_problem("shut-down"),
    }
}

/// Says that the arguments are wrong, as a check that cannot tell.
pub fn wrong_arguments(output: &mut Output) -> Result<ExitCode, Failure> {
    let why = "the arguments are wrong: see standard error".to_owned();
    Checked::without("UNKNOWN", why).print(output)?;
    Ok(ExitCode::from(UNKNOWN))
}

impl Checked {
    /// Without figures, which are not known.
    fn without(state: &'static str, why: String) -> Checked {
        Checked {
            state,
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
            "{head} | pending={} bytes={}B age={}s letters={} lost={} refused={}",
            figures.pending_hints,
            figures.pending_bytes,
            figures.oldest_age_ms.unwrap_or(0) / 1000,
            figures.dead_letters,
            figures.lost_hints,
            figures.refused_hints
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{
        "health": "failed", "text": "a|b\nc", "oldest_age_ms": null,
        "pending": { "hints": 1, "bytes": 2 }, "dead_letters": { "hints": 3, "bytes": 4 },
        "paused_all": null, "hinting": true,
        "store": { "lost": {}, "refused_for_space": 0, "refused_when_full": 0 }
    }"#;

    #[test]
    fn a_status_that_lacks_a_field_is_not_taken_for_zero() {
        assert!(serde_json::from_str::<Status>(STATUS).is_ok());
        for name in [
            "health",
            "text",
            "oldest_age_ms",
            "pending",
            "dead_letters",
            "paused_all",
            "hinting",
            "store",
            "lost",
            "refused_for_space",
            "refused_when_full",
        ] {
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
