use serde_json::json;

use super::*;
use crate::{
    store::{LossReason, LostRange},
    types::{QueueId, Sequence, StoreId},
};

const NODE: NodeId = NodeId(7);
const SHARD: ShardId = ShardId(3);
const HINT: HintId = HintId {
    store: StoreId([0x0a; 16]),
    queue: QueueId(2),
    sequence: Sequence(5),
};
const ID: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a/2/5";

fn one() -> Amount {
    Amount {
        hints: 1,
        bytes: 100,
    }
}

fn loss() -> Loss {
    let place = LostRange::one(QueueId(2), Sequence(5));
    let mut loss = Loss::new(NODE, Some(SHARD), Some(place), one(), LossReason::Expired);
    (loss.since_unix_ms, loss.until_unix_ms) = (1_700_000_000_000, 1_700_000_000_001);
    loss
}

/// One of each, with what it is as JSON.
fn all() -> Vec<(Event, serde_json::Value)> {
    let error = || "connection refused".to_owned();
    let node = NODE;
    vec![
        (
            Event::NodeDown {
                node,
                error: error(),
            },
            json!({ "event": "node_down", "node": 7, "error": error() }),
        ),
        (
            Event::NodeFailing {
                node,
                error: error(),
            },
            json!({ "event": "node_failing", "node": 7, "error": error() }),
        ),
        (
            Event::GateClosed { node, why: error() },
            json!({ "event": "gate_closed", "node": 7, "why": error() }),
        ),
        (
            Event::GateOpened { node },
            json!({ "event": "gate_opened", "node": 7 }),
        ),
        (
            Event::Replaying { node },
            json!({ "event": "replaying", "node": 7 }),
        ),
        (
            Event::CaughtUp { node },
            json!({ "event": "caught_up", "node": 7 }),
        ),
        (
            Event::Rejected {
                node,
                hint: HINT,
                shard: SHARD,
                reason: DeadReason::Rejected,
                error: error(),
            },
            json!({
                "event": "rejected", "node": 7, "hint": ID, "shard": 3, "reason": "rejected",
                "error": error(),
            }),
        ),
        (
            Event::UnknownFormat {
                node,
                shard: SHARD,
                hint: HINT,
                found: 2,
                written: 1,
            },
            json!({
                "event": "unknown_format", "node": 7, "shard": 3, "hint": ID, "found": 2,
                "written": 1,
            }),
        ),
        (
            Event::Lost(loss()),
            json!({
                "event": "lost", "node": 7, "shard": 3,
                "place": { "queue": 2, "first": 5, "last": 5 },
                "amount": { "hints": 1, "bytes": 100 }, "reason": "expired",
                "since_unix_ms": 1_700_000_000_000_u64, "until_unix_ms": 1_700_000_000_001_u64,
                "redriven_from": [],
            }),
        ),
        (
            Event::NotStored {
                node,
                shard: SHARD,
                copies: one(),
            },
            json!({
                "event": "not_stored", "node": 7, "shard": 3,
                "copies": { "hints": 1, "bytes": 100 },
            }),
        ),
        (
            Event::StoreFailed(StorageError::new("fsync the log", "no space left")),
            json!({ "event": "store_failed", "action": "fsync the log", "error": "no space left" }),
        ),
        (Event::Reopened, json!({ "event": "reopened" })),
        (
            Event::ReplayStopped(ReplayStopped::RuntimeGone),
            json!({ "event": "replay_stopped", "cause": "runtime_gone" }),
        ),
        (
            Event::ReplayResumed(ReplayStopped::RuntimeGone),
            json!({ "event": "replay_resumed", "cause": "runtime_gone" }),
        ),
        (Event::ShutDown, json!({ "event": "shut_down" })),
    ]
}

/// A place in the list above; a variant that comes has none.
fn place(event: &Event) -> usize {
    match event {
        Event::NodeDown { .. } => 0,
        Event::NodeFailing { .. } => 1,
        Event::GateClosed { .. } => 2,
        Event::GateOpened { .. } => 3,
        Event::Replaying { .. } => 4,
        Event::CaughtUp { .. } => 5,
        Event::Rejected { .. } => 6,
        Event::UnknownFormat { .. } => 7,
        Event::Lost(_) => 8,
        Event::NotStored { .. } => 9,
        Event::StoreFailed(_) => 10,
        Event::Reopened => 11,
        Event::ReplayStopped(_) => 12,
        Event::ReplayResumed(_) => 13,
        Event::ShutDown => 14,
    }
}

#[test]
fn each_event_is_an_object_that_names_itself() {
    for (at, (event, expected)) in all().into_iter().enumerate() {
        assert_eq!(place(&event), at);
        assert_eq!(serde_json::to_value(&event).unwrap(), expected, "{event:?}");
    }
}
