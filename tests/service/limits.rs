//! Limits of number and size: what is refused, what waits, what is dropped, and that no way in goes
//! past them.
//!
//! The nodes are taken by hand or down, and tokio's clock stands still, so that hints leave only
//! when a test says so.

mod blocking;
mod dropping;
mod in_transactions;

use std::{path::Path, sync::Arc, time::Duration};

use crate::common::{
    self,
    frozen::{a_moment, freeze, pass, until},
    hint,
};
use bytes::Bytes;
use hinted_handoff::{
    Accepted, Config, ConsistencyLevel, Durability, EnqueueError, FailedOutcome, Health,
    HintedHandoff, Limit, NodeId, OwnerError, PointsWriteError, PointsWriter, Shard, ShardId,
    TransactionError, WhenFull, database_config,
    internals::{CommitFault, Peek, PeekLimits, Reader},
    open_database,
};
use hinted_handoff_testkit::ScriptedWriter;

type Handoff = HintedHandoff<Bytes>;

const SHARD: ShardId = ShardId(1);
/// Taken by hand.
const MANUAL: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn config(dir: &Path) -> Config {
    Config {
        manual_nodes: [MANUAL, OTHER].into(),
        ..common::config(dir)
    }
}

async fn open(config: Config) -> Handoff {
    Handoff::open(config, ScriptedWriter::down()).await.unwrap()
}

fn text(number: usize) -> Bytes {
    format!("{number:04}").into()
}

async fn write(handoff: &Handoff, node: NodeId, number: usize) -> Result<Accepted, EnqueueError> {
    handoff.write_shard(node, SHARD, &text(number)).await
}

async fn fill(handoff: &Handoff, node: NodeId, numbers: std::ops::Range<usize>) {
    for number in numbers {
        write(handoff, node, number).await.unwrap();
    }
}

async fn waiting(handoff: &Handoff, node: NodeId) -> Vec<Bytes> {
    let mut consumer = handoff.consumer(node).unwrap();
    let hints = consumer.peek(10_000).await.unwrap();
    hints.into_iter().map(|hint| hint.points).collect()
}

async fn take(handoff: &Handoff, node: NodeId, hints: usize) {
    let mut consumer = handoff.consumer(node).unwrap();
    let hints = consumer.peek(hints).await.unwrap();
    consumer.ack(&hints).await.unwrap();
}

fn texts(numbers: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
    numbers.into_iter().map(text).collect()
}

/// Claims a node's first hints, as replay does with what it sends.
fn claim(handoff: &Handoff, node: NodeId, hints: usize) {
    let limits = PeekLimits {
        hints,
        payload_bytes: u64::MAX,
    };
    let store = handoff.store_below();
    let Peek::Hints(mut hints) = store.peek(&mut Reader::default(), node, limits).unwrap() else {
        panic!("there is nothing to claim");
    };
    let before = hints.len();
    store.claim(node, &mut hints);
    assert_eq!(hints.len(), before);
}

fn limit_of(error: &EnqueueError) -> Limit {
    match error {
        EnqueueError::QueueFull { limit, .. } | EnqueueError::OverLimit { limit, .. } => *limit,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_nothing_is_limited() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let handoff = open(config(dir.path())).await;
    fill(&handoff, MANUAL, 0..300).await;
    pass(Duration::from_secs(20 * 365 * 86_400)).await;
    let stats = handoff.stats();
    assert_eq!(stats.nodes[0].pending.hints, 300);
    assert_eq!(
        (stats.nodes[0].refused, stats.store.refused_when_full),
        (0, 0)
    );
    assert_eq!(stats.store.pending, stats.nodes[0].pending);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_node_refuses_and_says_how_full_it_is_while_others_go_on() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(3),
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..3).await;
    let full = write(&handoff, MANUAL, 3).await.unwrap_err();
    assert_eq!(full.outcome(), FailedOutcome::Refused);
    let EnqueueError::QueueFull {
        node,
        limit,
        max,
        pending,
        wanted,
        oldest_age,
        waited,
        ..
    } = &full
    else {
        panic!("{full}");
    };
    assert_eq!((*node, *limit), (MANUAL, Limit::NodeHints));
    assert_eq!((*max, *pending, *wanted, *waited), (3, 3, 1, None));
    assert!(oldest_age.is_some_and(|age| age < Duration::from_secs(60)));
    let said = full.to_string();
    assert!(
        said.starts_with("refused: max_hints_per_node = 3 has no room for 1 more, 3 are pending"),
        "{said}"
    );
    fill(&handoff, OTHER, 0..3).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts(0..3));
    let stats = handoff.stats();
    assert_eq!((stats.nodes[0].refused, stats.nodes[1].refused), (1, 0));
    assert_eq!(stats.store.refused_when_full, 1);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_limit_is_kept_and_named() {
    let _frozen = freeze();
    type Set = fn(&mut Config);
    let limits: [(Limit, Set, usize); 4] = [
        (Limit::NodeHints, |it| it.max_hints_per_node = Some(4), 4),
        (Limit::NodeBytes, |it| it.max_bytes_per_node = Some(19), 4),
        (Limit::StoreHints, |it| it.max_hints = Some(4), 2),
        (Limit::StoreBytes, |it| it.max_bytes = Some(19), 2),
    ];
    for (limit, set, each) in limits {
        let dir = tempfile::tempdir().unwrap();
        let mut limited = config(dir.path());
        set(&mut limited);
        let handoff = open(limited).await;
        fill(&handoff, MANUAL, 0..each).await;
        fill(&handoff, OTHER, 0..each).await;
        let full = write(&handoff, MANUAL, 9).await.unwrap_err();
        assert_eq!(limit_of(&full), limit);
        assert_eq!(waiting(&handoff, MANUAL).await, texts(0..each));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_larger_than_a_limit_is_refused_at_once_and_nothing_is_dropped_for_it() {
    let _frozen = freeze();
    for when_full in [WhenFull::Reject, WhenFull::DropOldest, WhenFull::Block] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_bytes: Some(100),
            max_hints_per_node: Some(1),
            when_full,
            ..config(dir.path())
        };
        let handoff = open(limited).await;
        fill(&handoff, MANUAL, 0..1).await;
        let large = Bytes::from(vec![7; 101]);
        let error = handoff.write_shard(MANUAL, SHARD, &large).await;
        assert!(matches!(
            error,
            Err(EnqueueError::OverLimit {
                limit: Limit::StoreBytes,
                max: 100,
                wanted: 101,
                ..
            })
        ));
        assert_eq!(waiting(&handoff, MANUAL).await, texts(0..1));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn limits_count_what_is_pending_and_not_what_was_taken_or_removed() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(4),
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    for round in 0..5 {
        fill(&handoff, MANUAL, 4 * round..4 * round + 4).await;
        assert!(write(&handoff, MANUAL, 99).await.is_err());
        take(&handoff, MANUAL, 3).await;
        assert!(waiting(&handoff, MANUAL).await.len() == 1);
        fill(&handoff, OTHER, 0..3).await;
        assert!(write(&handoff, OTHER, 99).await.is_err());
        handoff.remove_node(OTHER).await.unwrap();
        take(&handoff, MANUAL, 1).await;
    }
    assert_eq!(handoff.stats().store.pending.hints, 0);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_full_after_a_restart_too() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(5),
        ..config(dir.path())
    };
    let handoff = open(limited.clone()).await;
    fill(&handoff, MANUAL, 0..5).await;
    take(&handoff, MANUAL, 1).await;
    fill(&handoff, MANUAL, 5..6).await;
    handoff.shutdown().await.unwrap();
    let handoff = open(limited).await;
    let full = write(&handoff, OTHER, 6).await.unwrap_err();
    assert_eq!(limit_of(&full), Limit::StoreHints);
    take(&handoff, MANUAL, 1).await;
    fill(&handoff, OTHER, 6..7).await;
    assert!(write(&handoff, OTHER, 7).await.is_err());
    handoff.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_concurrent_writers_fill_a_limit_to_the_last_hint_and_never_exceed_it() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_hints: Some(200),
            max_hints_per_node: Some(150),
            durability,
            ..config(dir.path())
        };
        let handoff = open(limited).await;
        let writers: Vec<_> = (0..32)
            .map(|writer| {
                let handoff = handoff.clone();
                let node = [MANUAL, OTHER][writer % 2];
                tokio::spawn(async move {
                    let mut stored = 0;
                    for number in 0..20 {
                        match write(&handoff, node, number).await {
                            Ok(_) => stored += 1,
                            Err(full) => drop(limit_of(&full)),
                        }
                        let stats = handoff.stats();
                        assert!(stats.store.pending.hints <= 200);
                        assert!(stats.nodes.iter().all(|it| it.pending.hints <= 150));
                    }
                    stored
                })
            })
            .collect();
        let mut stored = 0;
        for writer in writers {
            stored += writer.await.unwrap();
        }
        handoff.sync().await.unwrap();
        assert_eq!((stored, handoff.stats().store.pending.hints), (200, 200));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_not_stored_gives_its_room_back() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(1),
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    for _ in 0..3 {
        handoff.inject(CommitFault::Fail);
        let unknown = write(&handoff, MANUAL, 0).await.unwrap_err();
        assert_eq!(unknown.outcome(), FailedOutcome::Unknown);
        handoff.disk_works_again();
        until("it is reopened", || {
            matches!(handoff.health(), Health::Serving)
        })
        .await;
        // It may be there all the same; then it counts, and is taken.
        if handoff.stats().store.pending.hints == 1 {
            assert!(write(&handoff, MANUAL, 1).await.is_err());
            take(&handoff, MANUAL, 1).await;
        }
        fill(&handoff, MANUAL, 1..2).await;
        take(&handoff, MANUAL, 1).await;
    }
    // A write that was given up before its hint was in the pipeline.
    let points = text(7);
    let given_up = handoff.write_shard(MANUAL, SHARD, &points);
    drop(given_up);
    fill(&handoff, MANUAL, 8..9).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn too_little_disk_refuses_drops_nothing_and_is_waited_for() {
    let _frozen = freeze();
    for when_full in [WhenFull::Reject, WhenFull::DropOldest, WhenFull::Block] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_hints: Some(2),
            when_full,
            ..config(dir.path())
        };
        let handoff = open(limited.clone()).await;
        fill(&handoff, MANUAL, 0..1).await;
        handoff.shutdown().await.unwrap();
        let short = Config {
            min_free_disk: u64::MAX / 2,
            ..limited
        };
        let handoff = open(short).await;
        let writing = tokio::spawn({
            let handoff = handoff.clone();
            async move { write(&handoff, MANUAL, 1).await }
        });
        if when_full == WhenFull::Block {
            a_moment().await;
            assert!(!writing.is_finished());
            for _ in 0..41 {
                pass(Duration::from_millis(250)).await;
            }
        }
        until("it was refused", || writing.is_finished()).await;
        let refused = writing.await.unwrap().unwrap_err();
        assert!(
            matches!(refused, EnqueueError::DiskReserve { .. }),
            "{refused}"
        );
        assert_eq!(waiting(&handoff, MANUAL).await, texts(0..1));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_points_writer_is_told_that_there_was_no_room_for_the_hint() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(1),
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    let writer = PointsWriter::new(handoff.clone(), Arc::new(ScriptedWriter::down()));
    let shard = Shard {
        id: SHARD,
        owners: vec![MANUAL],
    };
    let queued = writer.write(&shard, ConsistencyLevel::Any, text(0)).await;
    queued.unwrap();
    let missed = writer.write(&shard, ConsistencyLevel::Any, text(1)).await;
    let Err(PointsWriteError::NotStored(tally)) = missed else {
        panic!("{missed:?}");
    };
    let OwnerError::NotHinted { hint, .. } = tally.cause else {
        panic!("{:?}", tally.cause);
    };
    assert_eq!(limit_of(&hint), Limit::NodeHints);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_store_itself_takes_what_no_room_was_reserved_for() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = open(Config {
        max_hints: Some(1),
        ..config(dir.path())
    })
    .await;
    let store = handoff.store_below();
    let results = common::try_append(&store, MANUAL.0, vec![hint(1, "a"), hint(1, "b")]);
    assert!(results.iter().all(Result::is_ok));
    assert!(write(&handoff, MANUAL, 0).await.is_err());
    handoff.shutdown().await.unwrap();
}
