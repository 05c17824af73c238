//! `hh status`: how a host is, at a glance.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::{
    client::{Client, Host},
    failure::Failure,
    json::{amount, duration, number, text},
    output::{Output, Tone},
    verbs::nodes,
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
        let health = text(&status, "health");
        let (tone, first) = in_words(&health, text(&status, "text"), is_paused(&status));
        output.toned(tone, &first)?;
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
        let nodes = nodes::all(&client)?;
        let unhinted = nodes::named(&nodes, |it| !it.hinting);
        let hinting = match (status.get("hinting") == Some(&Value::Bool(true)), unhinted) {
            (true, None) => "yes".to_owned(),
            (true, Some(nodes)) => format!("yes, but not for {nodes}"),
            (false, _) => "no".to_owned(),
        };
        let held = nodes::named(&nodes, |it| it.direct.held_since_unix_ms.is_some());
        output.pairs(&[
            ("nodes", none_if_empty(states)),
            ("pending", amount(output, &status, "pending")),
            ("oldest", duration(output, &status, "oldest_age_ms")),
            ("caught up in", duration(output, &status, "caught_up_in_ms")),
            ("in flight", number(&status, "in_flight").to_string()),
            ("dead letters", amount(output, &status, "dead_letters")),
            ("lost since open", none_if_empty(lost)),
            ("rehinted since open", rehinted.to_string()),
            ("paused", paused),
            ("hints are made", hinting),
            ("direct held", held.unwrap_or("none".to_owned())),
            ("log", output.bytes(number(store, "log_bytes"))),
            ("free disk", output.bytes(number(store, "free_disk_bytes"))),
            ("full in", duration(output, &status, "until_full_ms")),
            ("store", text(store, "store")),
        ])?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How a host is, and what that means: what it says itself, but that it serves where replay is
/// paused for all nodes.
pub fn in_words(health: &str, said: String, is_paused: bool) -> (Tone, String) {
    match health {
        "serving" if is_paused => (
            Tone::Doubtful,
            "It serves, and replay is paused for all nodes.".to_owned(),
        ),
        "serving" => (Tone::Good, said),
        "replay_stopped" => (Tone::Doubtful, said),
        _ => (Tone::Bad, said),
    }
}

/// Whether nothing is replayed because somebody said so: for all nodes, or for each by itself.
fn is_paused(status: &Value) -> bool {
    let states = status.get("nodes").and_then(Value::as_object);
    let is_each = states.is_some_and(|it| it.len() == 1 && it.contains_key("paused"));
    is_each || status.get("paused_all").is_some_and(Value::is_string)
}
