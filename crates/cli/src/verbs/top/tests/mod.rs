//! Answers as a host gives them, and what is made of them.

mod drawing;
mod keys;
mod panics;
mod rates;

use std::time::{Duration, Instant};

use hinted_handoff::NodeId;
use serde_json::{Value, json};

use super::{answer::Answer, state::State};

/// A node as JSON, with some of it changed.
fn node(node: u64, changes: Value) -> Value {
    let none = json!({ "hints": 0, "bytes": 0 });
    let mut it = json!({
        "node": node,
        "state": "caught_up",
        "paused": null,
        "parked_since_unix_ms": null,
        "leaving": false,
        "hinting": true,
        "gate": "open",
        "direct": { "outstanding": none, "taken": 0, "failed": 0, "rejected": 0, "not_tried": 0 },
        "pending": none,
        "dead_letters": none,
        "enqueued": none,
        "delivered": none,
        "oldest_age_ms": null,
        "lost": none,
        "expired": none,
        "dropped": none,
        "not_stored": none,
        "dead_lettered": none,
        "withdrawn": none,
        "letters_evicted": none,
        "refused": 0,
        "failures": 0,
        "last_error": null,
        "last_error_unix_ms": null,
        "attempts": 0,
        "in_flight": 0,
        "delivery_rate": 0.0,
        "caught_up_in_ms": null,
        "stalled_by": null,
        "unknown_format": null,
    });
    let (Some(fields), Value::Object(changes)) = (it.as_object_mut(), changes) else {
        panic!("an object");
    };
    fields.extend(changes);
    it
}

/// One with so many hints that wait.
fn waiting(number: u64, hints: u64) -> Value {
    let changes = json!({ "state": "down", "pending": { "hints": hints, "bytes": hints.saturating_mul(10) } });
    node(number, changes)
}

/// An answer with these nodes, and counters of the store that say how far it came.
fn answer(groups: u64, nodes: Vec<Value>) -> Answer {
    let nodes: Vec<_> = nodes
        .into_iter()
        .map(|it| serde_json::from_value(it).unwrap())
        .collect();
    let pending = nodes
        .iter()
        .map(|it: &crate::verbs::nodes::Named| it.stats.pending.hints);
    let pending = pending.fold(0, u64::saturating_add);
    let status = json!({
        "health": "serving",
        "text": "It serves, and replay runs.",
        "read_only": false,
        "pending": { "hints": pending, "bytes": pending },
        "dead_letters": { "hints": 2, "bytes": 5 },
        "in_flight": 7,
        "oldest_age_ms": 192_000,
        "store": {
            "groups": groups,
            "fsyncs": groups,
            "enqueued": { "hints": 0, "bytes": 0 },
            "lost": {
                "discarded": { "hints": 3, "bytes": 9 },
                "rehinted": { "hints": 40, "bytes": 120 },
            },
            "log_bytes": 1_572_864,
            "free_disk_bytes": 5_368_709_120_u64,
            "reserve_bytes": 134_217_728,
        },
    });
    Answer {
        status: serde_json::from_value(status).unwrap(),
        nodes,
    }
}

/// A state that is asked each second, and when it began.
fn asked() -> (State, Instant) {
    let now = Instant::now();
    (State::new(Duration::from_secs(1), now), now)
}

/// One that got these answers, a second apart.
fn after(answers: Vec<Answer>) -> (State, Instant) {
    let (mut state, mut now) = asked();
    for answer in answers {
        now += Duration::from_secs(1);
        state.answered(answer, now);
    }
    (state, now)
}

fn order_of(state: &State) -> Vec<u64> {
    state.nodes().iter().map(|it| it.stats.node.0).collect()
}

fn selected(state: &State) -> Option<NodeId> {
    state.selected().map(|it| it.stats.node)
}
