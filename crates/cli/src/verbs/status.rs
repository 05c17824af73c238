//! `hh status`: how a host is, at a glance.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::{
    client::{Client, Host},
    failure::Failure,
    json::{amount, duration, number, text},
    output::{Output, Tone},
};

/// Say how a host is: whether it serves, what waits, since when, and what was lost.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    host: Host,
}

impl Status {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let status: Value = client.get("/v1/status")?;
        if output.is_json() {
            output.json(&status)?;
            return Ok(ExitCode::SUCCESS);
        }
        let store = status.get("store").unwrap_or(&Value::Null);
        let tone = match text(&status, "health").as_str() {
            "serving" => Tone::Good,
            "replay_stopped" => Tone::Doubtful,
            _ => Tone::Bad,
        };
        output.toned(tone, &text(&status, "text"))?;
        let states = status.get("nodes").and_then(Value::as_object);
        let states = states.into_iter().flatten();
        let states: Vec<String> = states
            .map(|(state, nodes)| format!("{nodes} {state}"))
            .collect();
        let lost = store.get("lost").and_then(Value::as_object);
        // Other nodes have those now.
        let (rehinted, lost): (Vec<_>, Vec<_>) = lost
            .into_iter()
            .flatten()
            .partition(|(reason, _)| *reason == "rehinted");
        let rehinted = rehinted
            .iter()
            .map(|(_, amount)| number(amount, "hints"))
            .sum::<u64>();
        let lost: Vec<String> = lost
            .into_iter()
            .map(|(reason, lost)| format!("{} {reason}", number(lost, "hints")))
            .collect();
        let none_if_empty = |all: Vec<String>| match all.is_empty() {
            true => "none".to_owned(),
            false => all.join(", "),
        };
        let paused = match status.get("paused_all").and_then(Value::as_str) {
            Some(pause) => pause.to_owned(),
            None => "no".to_owned(),
        };
        // A host of an earlier version does not say so.
        let hinting = match status.get("hinting").and_then(Value::as_bool) {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        output.pairs(&[
            ("nodes", none_if_empty(states)),
            ("pending", amount(output, &status, "pending")),
            ("oldest", duration(&status, "oldest_age_ms")),
            ("caught up in", duration(&status, "caught_up_in_ms")),
            ("in flight", number(&status, "in_flight").to_string()),
            ("dead letters", amount(output, &status, "dead_letters")),
            ("lost since open", none_if_empty(lost)),
            ("rehinted since open", rehinted.to_string()),
            ("paused", paused),
            ("hints are made", hinting.to_owned()),
            ("log", output.bytes(number(store, "log_bytes"))),
            ("free disk", output.bytes(number(store, "free_disk_bytes"))),
            ("full in", duration(&status, "until_full_ms")),
            ("store", text(store, "store")),
        ])?;
        Ok(ExitCode::SUCCESS)
    }
}
