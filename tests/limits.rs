//! Limits of number and size: what is refused, what waits, what is dropped, and that no way in goes past them.
//!
//! The nodes are taken by hand or down, and tokio's clock stands still, so that hints leave only when a test says so.

mod common;
mod frozen;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use common::hint;
use frozen::{a_moment, freeze, pass, until};
use hinted_handoff::{
    Accepted, Config, ConsistencyLevel, Durability, EnqueueError, FailedOutcome, Health,
    HintedHandoff, Limit, NodeId, OwnerError, PointsWriteError, PointsWriter, Shard, ShardId,
    TransactionError, WhenFull, database_config, open_database,
    testkit::{CommitFault, Peek, PeekLimits, Reader, ScriptedWriter},
};

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
    handoff.write_shard(SHARD, node, &text(number)).await
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
        let error = handoff.write_shard(SHARD, MANUAL, &large).await;
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

#[tokio::test(start_paused = true)]
async fn a_blocked_write_waits_before_the_pipeline_and_is_woken_when_hints_leave() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(2),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..2).await;
    let blocked: Vec<_> = (2..6)
        .map(|number| {
            let handoff = handoff.clone();
            tokio::spawn(async move { write(&handoff, MANUAL, number).await })
        })
        .collect();
    a_moment().await;
    // Others pass, so does a sync: it would wait for whatever is in the pipeline.
    fill(&handoff, OTHER, 0..2).await;
    handoff.sync().await.unwrap();
    assert_eq!(waiting(&handoff, MANUAL).await, texts(0..2));
    for left in (0..4).rev() {
        take(&handoff, MANUAL, 1).await;
        until("one came in", || {
            blocked.iter().filter(|it| !it.is_finished()).count() == left
        })
        .await;
        assert_eq!(handoff.stats().nodes[0].pending.hints, 2);
    }
    for write in blocked {
        write.await.unwrap().unwrap();
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocked_write_gives_up_after_its_timeout() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(1),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..1).await;
    let blocked = tokio::spawn({
        let handoff = handoff.clone();
        async move { write(&handoff, MANUAL, 1).await }
    });
    a_moment().await;
    pass(Duration::from_millis(9_990)).await;
    assert!(!blocked.is_finished());
    pass(Duration::from_millis(20)).await;
    let error = blocked.await.unwrap().unwrap_err();
    let EnqueueError::QueueFull { waited, limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(limit, Limit::StoreHints);
    assert!(waited.is_some_and(|waited| waited >= Duration::from_secs(10)));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocked_write_ends_with_a_shutdown_and_with_the_store() {
    let _frozen = freeze();
    for fails in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_hints_per_node: Some(1),
            when_full: WhenFull::Block,
            ..config(dir.path())
        };
        let handoff = open(limited).await;
        fill(&handoff, MANUAL, 0..1).await;
        let blocked = tokio::spawn({
            let handoff = handoff.clone();
            async move { write(&handoff, MANUAL, 1).await }
        });
        a_moment().await;
        if fails {
            handoff.inject(CommitFault::Fail);
            assert!(write(&handoff, OTHER, 1).await.is_err());
        } else {
            handoff.shutdown().await.unwrap();
        }
        until("it gave up", || blocked.is_finished()).await;
        let error = blocked.await.unwrap().unwrap_err();
        match fails {
            true => assert!(matches!(error, EnqueueError::StoreFailed(_)), "{error}"),
            false => assert!(matches!(error, EnqueueError::ShutDown), "{error}"),
        }
        handoff.heal_disk();
        let _ = handoff.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_runtime_blocks_its_thread() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        let limited = Config {
            max_hints_per_node: Some(1),
            when_full,
            ..config(&dir.path().join(format!("{when_full:?}")))
        };
        let handoff = open(limited).await;
        fill(&handoff, MANUAL, 0..1).await;
        let thread = std::thread::spawn({
            let handoff = handoff.clone();
            move || handoff.write_shard_blocking(SHARD, MANUAL, &text(1))
        });
        if when_full == WhenFull::Block {
            a_moment().await;
            assert!(!thread.is_finished());
            take(&handoff, MANUAL, 1).await;
        }
        until("it came in", || thread.is_finished()).await;
        thread.join().unwrap().unwrap();
        assert_eq!(waiting(&handoff, MANUAL).await, texts([1]));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_oldest_keeps_the_newest_in_order_and_drops_no_more_than_needed() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(5),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, OTHER, 0..1).await;
    fill(&handoff, MANUAL, 0..12).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts(7..12));
    assert_eq!(waiting(&handoff, OTHER).await, texts(0..1));
    let stats = handoff.stats();
    let node = &stats.nodes[0];
    assert_eq!(
        (node.dropped.hints, node.lost.hints, node.expired.hints),
        (7, 7, 0)
    );
    assert_eq!(node.dropped.bytes, 28);
    assert_eq!((node.refused, stats.store.pending.hints), (0, 6));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_make_room_for_bytes() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_bytes_per_node: Some(20),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..5).await;
    let large = Bytes::from(vec![7; 10]);
    handoff.write_shard(SHARD, MANUAL, &large).await.unwrap();
    // 3 and 4 take 8 bytes: 2 are left over, since 4 at a time leave.
    assert_eq!(waiting(&handoff, MANUAL).await, [text(3), text(4), large]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_store_drops_from_the_node_with_the_oldest_hint() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(4),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let clock = hinted_handoff::testkit::WallClock::new(1_700_000_000_000);
    let handoff = Handoff::open_by_clock(limited, clock, ScriptedWriter::down())
        .await
        .unwrap();
    for (number, node) in [OTHER, MANUAL, OTHER, MANUAL].into_iter().enumerate() {
        fill(&handoff, node, number..number + 1).await;
        pass(Duration::from_secs(1)).await;
    }
    fill(&handoff, MANUAL, 4..6).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts([3, 4, 5]));
    assert_eq!(waiting(&handoff, OTHER).await, texts([2]));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_in_flight_is_never_taken_to_make_room() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(3),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    fill(&handoff, MANUAL, 0..3).await;
    claim(&handoff, MANUAL, 2);
    fill(&handoff, MANUAL, 3..5).await;
    assert_eq!(waiting(&handoff, MANUAL).await, texts([0, 1, 4]));
    claim_all_but(&handoff, MANUAL);
    let full = write(&handoff, MANUAL, 5).await.unwrap_err();
    assert_eq!(limit_of(&full), Limit::NodeHints);
    assert_eq!(waiting(&handoff, MANUAL).await, texts([0, 1, 4]));
    handoff.shutdown().await.unwrap();
}

/// Claims whatever is not claimed.
fn claim_all_but(handoff: &Handoff, node: NodeId) {
    let store = handoff.store_below();
    let peeked = store.peek(&mut Reader::default(), node, common::EVERYTHING);
    let Peek::Hints(mut hints) = peeked.unwrap() else {
        panic!("there is nothing to claim");
    };
    store.claim(node, &mut hints);
    assert_eq!(hints.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_drop_at_once_drop_no_more_than_all_of_them_need() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let handoff = open(config(dir.path())).await;
    fill(&handoff, MANUAL, 0..300).await;
    handoff.shutdown().await.unwrap();
    // A limit far below what is there.
    let limited = Config {
        max_hints: Some(100),
        when_full: WhenFull::DropOldest,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    let writes: Vec<_> = (300..340)
        .map(|number| {
            let handoff = handoff.clone();
            tokio::spawn(async move { write(&handoff, MANUAL, number).await })
        })
        .collect();
    for write in writes {
        until("it came in", || write.is_finished()).await;
        write.await.unwrap().unwrap();
    }
    let node = &handoff.stats().nodes[0];
    assert_eq!((node.pending.hints, node.dropped.hints), (100, 240));
    let left = waiting(&handoff, MANUAL).await;
    assert_eq!(left[..60], texts(240..300));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_writers_all_come_in_when_somebody_takes_hints() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints: Some(3),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let handoff = open(limited).await;
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let handoff = handoff.clone();
            tokio::spawn(async move { fill(&handoff, MANUAL, 0..20).await })
        })
        .collect();
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    let mut taken = 0;
    let taking = async {
        while taken < 320 {
            consumer.ready().await.unwrap();
            let hints = consumer.peek(10).await.unwrap();
            assert!(hints.len() <= 3);
            consumer.ack(&hints).await.unwrap();
            taken += hints.len();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taking)
        .await
        .expect("a writer was not woken");
    for writer in writers {
        writer.await.unwrap();
    }
    handoff.shutdown().await.unwrap();
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
        handoff.heal_disk();
        until("it is mended", || {
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
    let given_up = handoff.write_shard(SHARD, MANUAL, &points);
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

/// A host with a tree of its own.
async fn host(config: Config) -> (Handoff, hinted_handoff::sled::Tree) {
    let db = open_database(&database_config(&config.dir)).unwrap();
    let rows = db.open_tree("rows").unwrap();
    let handoff = Handoff::open_in(&db, config, ScriptedWriter::down()).await;
    (handoff.unwrap(), rows)
}

#[tokio::test(start_paused = true)]
async fn a_transaction_gets_room_for_all_its_hints_or_leaves_nothing() {
    let _frozen = freeze();
    for durability in [Durability::Sync, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let limited = Config {
            max_hints_per_node: Some(3),
            durability,
            ..config(dir.path())
        };
        let (handoff, rows) = host(limited).await;
        let hinting = |to_manual: usize, to_other: usize| {
            handoff.transaction(&[&rows], move |rows, hints| {
                rows[0].insert("row", "there")?;
                for (node, count) in [(MANUAL, to_manual), (OTHER, to_other)] {
                    for number in 0..count {
                        hints.enqueue(node, SHARD, &text(number))?;
                    }
                }
                Ok(())
            })
        };
        let never = hinting(4, 0).await.unwrap_err();
        assert!(
            matches!(
                never,
                TransactionError::Enqueue(EnqueueError::OverLimit { wanted: 4, .. })
            ),
            "{never}"
        );
        hinting(2, 0).await.unwrap();
        rows.remove("row").unwrap();
        let full = hinting(2, 2).await.unwrap_err();
        let TransactionError::Enqueue(full) = full else {
            panic!("{full}");
        };
        assert_eq!(limit_of(&full), Limit::NodeHints);
        assert_eq!(rows.get("row").unwrap(), None);
        // Nothing of it is counted for the other node either.
        hinting(1, 3).await.unwrap();
        handoff.sync().await.unwrap();
        let stats = handoff.stats();
        assert_eq!(stats.store.pending.hints, 6);
        assert_eq!(stats.store.refused_when_full, 8);
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_lost_a_race_finds_its_room_again() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(2),
        ..config(dir.path())
    };
    let (handoff, rows) = host(limited).await;
    let mut runs = 0;
    let direct = rows.clone();
    let committed = handoff.transaction(&[&rows], |rows, hints| {
        runs += 1;
        let _ = rows[0].get("row")?;
        if runs <= 3 {
            direct.insert("row", format!("{runs}").as_bytes())?;
        }
        hints.enqueue(MANUAL, SHARD, &text(0))?;
        hints.enqueue(MANUAL, SHARD, &text(1))?;
        Ok(())
    });
    committed.await.unwrap();
    assert_eq!((runs, handoff.stats().store.pending.hints), (4, 2));
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_waits_for_room_holds_up_nobody_who_makes_it() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        max_hints_per_node: Some(1),
        when_full: WhenFull::Block,
        ..config(dir.path())
    };
    let (handoff, rows) = host(limited).await;
    fill(&handoff, MANUAL, 0..1).await;
    // More than there are turns.
    let blocked: Vec<_> = (0..1100)
        .map(|_| {
            let (handoff, rows) = (handoff.clone(), rows.clone());
            tokio::spawn(async move {
                let hinting = handoff.transaction(&[&rows], |_, hints| {
                    hints.enqueue(MANUAL, SHARD, &text(1))?;
                    Ok(())
                });
                hinting.await.map(drop)
            })
        })
        .collect();
    a_moment().await;
    // Taking a hint is a transaction, and needs a turn.
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    for _ in 0..3 {
        until("there is one", || {
            handoff.stats().nodes[0].pending.hints == 1
        })
        .await;
        let hints = consumer.peek(1).await.unwrap();
        let acked = consumer.ack(&hints);
        tokio::pin!(acked);
        let mut done = false;
        for _ in 0..5000 {
            tokio::select! {
                biased;
                result = &mut acked => { result.unwrap(); done = true; break; }
                () = tokio::task::yield_now() => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert!(done, "the turns are taken by those who wait");
    }
    until("three came in", || {
        blocked.iter().filter(|it| it.is_finished()).count() == 3
    })
    .await;
    pass(Duration::from_secs(11)).await;
    let mut refused = 0;
    for transaction in blocked {
        until("it gave up", || transaction.is_finished()).await;
        refused += usize::from(transaction.await.unwrap().is_err());
    }
    assert_eq!(refused, 1097);
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
