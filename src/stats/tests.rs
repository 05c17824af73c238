use serde_json::{Value, json};

use super::*;
use crate::{
    error::{ReplayTask, StorageError},
    types::QueueId,
};

fn amount(hints: u64) -> Amount {
    Amount {
        hints,
        bytes: hints * 100,
    }
}

fn node_stats() -> NodeStats {
    NodeStats {
        node: NodeId(7),
        state: NodeState::Replaying,
        paused: Some(Pause::UntilRestart),
        parked_since_unix_ms: Some(1_700_000_000_000),
        leaving: true,
        hinting: true,
        gate: Gate::Closed {
            since_unix_ms: 1_700_000_000_001,
            why: "the ping failed".to_owned(),
        },
        direct: DirectStats {
            outstanding: amount(1),
            taken: 2,
            failed: 3,
            rejected: 4,
            not_tried: 5,
            held_since_unix_ms: Some(1_700_000_000_003),
        },
        pending: amount(6),
        dead_letters: amount(7),
        enqueued: amount(8),
        delivered: amount(9),
        oldest_age: Some(Duration::from_millis(61_500)),
        lost: amount(10),
        expired: amount(11),
        dropped: amount(12),
        not_stored: amount(13),
        dead_lettered: amount(14),
        withdrawn: amount(15),
        letters_evicted: amount(16),
        refused: 17,
        failures: 18,
        last_error: Some("connection refused".to_owned()),
        last_error_unix_ms: Some(1_700_000_000_002),
        attempts: 19,
        in_flight: 20,
        delivery_rate: 21.5,
        caught_up_in: Some(Duration::from_micros(2_500)),
        stalled_by: Some(ShardId(22)),
        unknown_format: Some(UnknownFormat {
            shards: 23,
            shard: ShardId(24),
            found: 2,
            written: 1,
        }),
    }
}

fn durations(count: u64) -> Durations {
    let bucket = |at_most_us, count| DurationBucket { at_most_us, count };
    Durations {
        buckets: vec![bucket(Some(64), count), bucket(None, 0)],
        count,
        sum_us: 50 * count,
    }
}

fn stats() -> Stats {
    Stats {
        nodes: vec![node_stats()],
        paused_all: Some(Pause::Lasting),
        hinting: false,
        store: StoreStats {
            store: StoreId([0x0a; 16]),
            groups: 1,
            fsyncs: 2,
            enqueued: amount(3),
            transactions: 4,
            conflicts: 5,
            engine_bytes: 6,
            reopened: 7,
            compactions: 8,
            log_bytes: 9,
            free_disk_bytes: Some(20),
            reserve_bytes: 21,
            append_times: durations(22),
            group_times: durations(23),
            lost: [(LossReason::Damaged, amount(24))].into(),
            refused_for_space: 10,
            refused_when_full: 11,
            pending: amount(12),
            damage: vec![Damage {
                node: NodeId(7),
                queue: QueueId(3),
                what: "a block does not read".to_owned(),
                lost: Some((Sequence(5), Sequence(9))),
            }],
            damage_not_listed: 13,
            moved_aside: Some(PathBuf::from("/data/hints.damaged")),
        },
        writes: WriteStats {
            direct: 14,
            hinted: 15,
            backlogged: 16,
            withdrawn: 17,
            rejected: 18,
            unstored: 19,
        },
        send_times: durations(25),
    }
}

#[test]
fn statistics_are_json_whose_numbers_carry_their_units_and_read_back() {
    let amount = |hints: u64| json!({ "hints": hints, "bytes": hints * 100 });
    let durations = |count: u64| {
        let buckets = [(Some(64), count), (None, 0)]
            .map(|(at_most_us, count)| json!({ "at_most_us": at_most_us, "count": count }));
        json!({ "buckets": buckets, "count": count, "sum_us": 50 * count })
    };
    let node = json!({
        "node": 7,
        "state": "replaying",
        "paused": "until_restart",
        "parked_since_unix_ms": 1_700_000_000_000_u64,
        "leaving": true,
        "hinting": true,
        "gate": { "closed": { "since_unix_ms": 1_700_000_000_001_u64, "why": "the ping failed" } },
        "direct": {
            "outstanding": amount(1), "taken": 2, "failed": 3, "rejected": 4, "not_tried": 5,
            "held_since_unix_ms": 1_700_000_000_003_u64,
        },
        "pending": amount(6),
        "dead_letters": amount(7),
        "enqueued": amount(8),
        "delivered": amount(9),
        "oldest_age_ms": 61_500,
        "lost": amount(10),
        "expired": amount(11),
        "dropped": amount(12),
        "not_stored": amount(13),
        "dead_lettered": amount(14),
        "withdrawn": amount(15),
        "letters_evicted": amount(16),
        "refused": 17,
        "failures": 18,
        "last_error": "connection refused",
        "last_error_unix_ms": 1_700_000_000_002_u64,
        "attempts": 19,
        "in_flight": 20,
        "delivery_rate": 21.5,
        "caught_up_in_ms": 2,
        "stalled_by": 22,
        "unknown_format": { "shards": 23, "shard": 24, "found": 2, "written": 1 },
    });
    let store = json!({
        "store": "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
        "groups": 1,
        "fsyncs": 2,
        "enqueued": amount(3),
        "transactions": 4,
        "conflicts": 5,
        "engine_bytes": 6,
        "reopened": 7,
        "compactions": 8,
        "log_bytes": 9,
        "free_disk_bytes": 20,
        "reserve_bytes": 21,
        "append_times": durations(22),
        "group_times": durations(23),
        "lost": { "damaged": amount(24) },
        "refused_for_space": 10,
        "refused_when_full": 11,
        "pending": amount(12),
        "damage": [{ "node": 7, "queue": 3, "what": "a block does not read", "lost": [5, 9] }],
        "damage_not_listed": 13,
        "moved_aside": "/data/hints.damaged",
    });
    let writes = json!({
        "direct": 14, "hinted": 15, "backlogged": 16, "withdrawn": 17, "rejected": 18, "unstored": 19,
    });
    let expected = json!({
        "nodes": [node], "paused_all": "lasting", "hinting": false, "store": store,
        "writes": writes, "send_times": durations(25),
    });
    assert_eq!(serde_json::to_value(stats()).unwrap(), expected);
    let mut back: Stats = serde_json::from_value(expected).unwrap();
    // Below a millisecond nothing is told.
    assert_eq!(back.nodes[0].caught_up_in, Some(Duration::from_millis(2)));
    back.nodes[0].caught_up_in = stats().nodes[0].caught_up_in;
    assert_eq!(back, stats());
}

#[test]
fn what_is_not_known_of_a_node_is_null() {
    let mut node = node_stats();
    (node.oldest_age, node.caught_up_in, node.gate) = (None, None, Gate::Open);
    let json = serde_json::to_value(&node).unwrap();
    for field in ["oldest_age_ms", "caught_up_in_ms"] {
        assert_eq!(json[field], Value::Null);
    }
    assert_eq!(json["gate"], "open");
    assert_eq!(serde_json::from_value::<NodeStats>(json).unwrap(), node);
}

#[test]
fn health_is_an_object_that_names_itself_and_says_why() {
    let full = std::io::Error::other("no space left");
    let failed = StorageError::new("fsync the log", full);
    let at_once = StorageError::new("open", failed.clone());
    let stalled = Duration::from_secs(12);
    let task = ReplayTask::Node(NodeId(7));
    let (error, again_after) = ("it panicked".to_owned(), Duration::from_millis(1500));
    let storage = |health: &str| json!({ "health": health, "action": "fsync the log", "error": "no space left" });
    for (health, expected) in [
        (Health::Serving, json!({ "health": "serving" })),
        (Health::ShutDown, json!({ "health": "shut_down" })),
        (Health::Failed(failed.clone()), storage("failed")),
        (
            Health::ReopenRequired(failed.clone()),
            storage("reopen_required"),
        ),
        (
            Health::DirectoryGone(failed.clone()),
            storage("directory_gone"),
        ),
        (
            Health::RestartRequired(failed.clone()),
            storage("restart_required"),
        ),
        (
            Health::Failed(at_once),
            json!({
                "health": "failed",
                "action": "open",
                "error": "storage failed to fsync the log: no space left",
            }),
        ),
        (
            Health::ReplayStopped(ReplayStopped::RuntimeGone),
            json!({ "health": "replay_stopped", "cause": "runtime_gone" }),
        ),
        (
            Health::ReplayStopped(ReplayStopped::RuntimeStalled { stalled }),
            json!({ "health": "replay_stopped", "cause": "runtime_stalled", "stalled_ms": 12_000 }),
        ),
        (
            Health::ReplayStopped(ReplayStopped::TaskFailed {
                task,
                error,
                again_after,
            }),
            json!({
                "health": "replay_stopped",
                "cause": "task_failed",
                "task": { "node": 7 },
                "error": "it panicked",
                "again_after_ms": 1500,
            }),
        ),
    ] {
        assert_eq!(
            serde_json::to_value(&health).unwrap(),
            expected,
            "{health:?}"
        );
    }
}
