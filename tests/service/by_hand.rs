//! What an operator does to writes and hints of a node: no hints for a while, no direct writes for
//! a while, and hints that are discarded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    ConsistencyLevel, EnqueueError, Gate, HandoffError, HintedHandoff, HintsMeant, LossReason,
    NodeId, Pause, PointsWriter, ShardId, WhenFull, WriteOrdering, internals::WallClock,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio_util::sync::CancellationToken;

use crate::common::{
    frozen::{freeze, pass},
    service::{node_stats, quick, shard, soon_node, start},
};

const UP: NodeId = NodeId(1);
const DOWN: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const SHARD: ShardId = ShardId(1);

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_hinting_gets_no_hint_and_what_it_misses_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|write| match write.node {
        UP => Reply::Take,
        _ => Reply::Retry,
    }));
    let handoff = start(quick(dir.path()), &writer).await;
    handoff.stop_hinting(DOWN);
    let refused = handoff.write_shard(DOWN, SHARD, &text("a")).await;
    assert!(
        matches!(
            refused,
            Err(EnqueueError::HintingStopped { node: DOWN, .. })
        ),
        "{refused:?}"
    );
    handoff.write_shard(OTHER, SHARD, &text("b")).await.unwrap();

    let points = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let level = ConsistencyLevel::One;
    let written = points.write(&shard(7, &[1, 2]), level, text("c")).await;
    written.unwrap();
    let known = soon_node(&handoff, DOWN, |it| it.not_stored.hints == 1).await;
    assert_eq!((known.hinting, known.pending.hints), (false, 0));
    handoff.sync().await.unwrap();
    let losses = handoff.losses(0).await.unwrap();
    assert_eq!(losses.by_reason[&LossReason::NotStored].hints, 1);

    assert!(handoff.stats().hinting, "one node has none, by itself");
    handoff.stop_hinting_all();
    handoff.start_hinting(DOWN);
    assert!(!handoff.stats().hinting);
    let refused = handoff.write_shard(OTHER, SHARD, &text("d")).await;
    assert!(
        matches!(refused, Err(EnqueueError::HintingStopped { .. })),
        "{refused:?}"
    );
    handoff.start_hinting_all();
    handoff.write_shard(DOWN, SHARD, &text("e")).await.unwrap();
    assert!(node_stats(&handoff, DOWN).hinting && handoff.stats().hinting);
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_writes_that_are_held_become_hints_and_replay_delivers_them() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    handoff.hold_direct(UP);
    let points = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let level = ConsistencyLevel::Any;
    points
        .write(&shard(7, &[1]), level, text("a"))
        .await
        .unwrap();
    let known = soon_node(&handoff, UP, |it| it.delivered.hints == 1).await;
    assert_eq!((known.direct.taken, known.direct.not_tried), (0, 1));
    match &known.gate {
        Gate::Closed {
            why, since_unix_ms, ..
        } => {
            assert_eq!(why, "the host holds direct writes");
            assert_eq!(known.direct.held_since_unix_ms, Some(*since_unix_ms));
        }
        other => panic!("{other:?}"),
    }
    handoff.release_direct(UP);
    assert_eq!(node_stats(&handoff, UP).direct.held_since_unix_ms, None);
    points
        .write(&shard(7, &[1]), level, text("b"))
        .await
        .unwrap();
    let known = soon_node(&handoff, UP, |it| it.direct.taken == 1).await;
    assert_eq!(known.gate, Gate::Open);
    assert_eq!(writer.taken(), [text("a"), text("b")]);
}

#[tokio::test(start_paused = true)]
async fn hints_that_are_meant_are_discarded_with_a_record_and_the_others_stay() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let (config, clock) = (quick(dir.path()), WallClock::new(1_700_000_000_000));
    let opened = HintedHandoff::open_by_clock(config, clock, ScriptedWriter::down());
    let handoff = opened.await.unwrap();
    let write = |shard, name: &'static str| {
        let handoff = handoff.clone();
        async move { handoff.write_shard(DOWN, ShardId(shard), &text(name)).await }
    };
    for number in 0..3000_u64 {
        write(number % 3, "old").await.unwrap();
    }
    pass(Duration::from_secs(100)).await;
    for number in 0..30_u64 {
        write(number % 3, "new").await.unwrap();
    }
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let of_shard = HintsMeant::default().of_shard(ShardId(1));
    let old = of_shard.older_than(Duration::from_secs(50));
    assert_eq!(handoff.discard_hints(DOWN, old).await.unwrap().hints, 1000);
    assert_eq!(
        handoff.discard_hints(DOWN, of_shard).await.unwrap().hints,
        10
    );
    let old = HintsMeant::default().older_than(Duration::from_secs(50));
    assert_eq!(handoff.discard_hints(DOWN, old).await.unwrap().hints, 2000);
    assert_eq!(node_stats(&handoff, DOWN).pending.hints, 20);
    assert_eq!(handoff.discard_hints(DOWN, old).await.unwrap().hints, 0);
    let losses = handoff.losses(0).await.unwrap();
    assert_eq!(losses.by_reason[&LossReason::Discarded].hints, 3010);
    assert_eq!(
        handoff.stats().store.lost[&LossReason::Discarded].hints,
        3010
    );
    let unknown = handoff.discard_hints(OTHER, old).await;
    assert!(matches!(
        unknown,
        Err(HandoffError::UnknownNode { node: OTHER, .. })
    ));
}

/// Counted are writes that began before: what was durable is among them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_hints_are_discarded_stays() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = start(quick(dir.path()), &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    handoff.write_shard(DOWN, SHARD, &text("a")).await.unwrap();
    let began = Arc::new(AtomicU64::new(1));
    let (writing, counting, stop) = (handoff.clone(), began.clone(), CancellationToken::new());
    let until = stop.clone();
    let writers = (0..64).map(move |_| {
        let (handoff, began, stop) = (writing.clone(), counting.clone(), until.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                began.fetch_add(1, Relaxed);
                let points = text("a");
                handoff.write_shard(DOWN, SHARD, &points).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    soon_node(&handoff, DOWN, |it| it.pending.hints > 3000).await;
    let before = began.load(Relaxed);
    let discarding = handoff.discard_hints(DOWN, HintsMeant::default());
    let discarded = tokio::time::timeout(Duration::from_secs(60), discarding).await;
    let discarded = discarded.expect("it ends").unwrap().hints;
    stop.cancel();
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(
        (3000..=before).contains(&discarded),
        "{discarded} of {before}"
    );
    assert_eq!(
        node_stats(&handoff, DOWN).pending.hints,
        began.load(Relaxed) - discarded
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_that_are_being_sent_are_not_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.max_in_flight = 1;
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Hang));
    let handoff = start(&config, &writer).await;
    let write = || async { handoff.write_shard(DOWN, SHARD, &text("a")).await.unwrap() };
    write().await;
    soon_node(&handoff, DOWN, |it| it.in_flight == 1).await;
    for _ in 0..5 {
        write().await;
    }
    let discarded = handoff.discard_hints(DOWN, HintsMeant::default()).await;
    assert_eq!(discarded.unwrap().hints, 5);
    assert_eq!(node_stats(&handoff, DOWN).pending.hints, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_for_room_is_refused_once_hints_are_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.max_hints_per_node = Some(1);
    config.when_full = WhenFull::Block;
    config.block_timeout = Duration::from_secs(60);
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    handoff.write_shard(DOWN, SHARD, &text("a")).await.unwrap();
    let waiting = handoff.clone();
    let mut waits = tokio::spawn(async move { waiting.write_shard(DOWN, SHARD, &text("b")).await });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waits).await;
    assert!(early.is_err(), "there is no room: {early:?}");
    handoff.stop_hinting(DOWN);
    let discarded = handoff.discard_hints(DOWN, HintsMeant::default()).await;
    assert_eq!(discarded.unwrap().hints, 1);
    let refused = waits.await.unwrap();
    assert!(
        matches!(refused, Err(EnqueueError::HintingStopped { .. })),
        "{refused:?}"
    );
    assert_eq!(node_stats(&handoff, DOWN).pending.hints, 0);
}

/// The first of three is being sent while the others are discarded, and stays.
#[tokio::test(flavor = "multi_thread")]
async fn where_order_is_strict_direct_writes_keep_behind_a_hint_whose_successors_are_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.ordering = WriteOrdering::Strict;
    config.max_in_flight = 1;
    config.send_timeout = Duration::from_millis(500);
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Hang));
    let handoff = start(&config, &writer).await;
    let shard = shard(SHARD.0, &[DOWN.0]);
    let write = |name| {
        let handoff = handoff.clone();
        async move { handoff.write_shard(DOWN, SHARD, &text(name)).await.unwrap() }
    };
    write("first").await;
    soon_node(&handoff, DOWN, |it| it.in_flight == 1).await;
    write("second").await;
    write("third").await;
    let discarded = handoff.discard_hints(DOWN, HintsMeant::default()).await;
    assert_eq!(discarded.unwrap().hints, 2);
    handoff.pause(DOWN, Pause::UntilRestart).await.unwrap();
    soon_node(&handoff, DOWN, |it| it.in_flight == 0).await;
    writer.follow(|_| Reply::Take);
    let points = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let written = points.write(&shard, ConsistencyLevel::Any, text("new"));
    written.await.unwrap();
    let known = soon_node(&handoff, DOWN, |it| it.pending.hints == 2).await;
    assert_eq!(known.direct.taken, 0);
    handoff.resume(DOWN).await.unwrap();
    soon_node(&handoff, DOWN, |it| it.delivered.hints == 2).await;
    assert_eq!(writer.taken(), [text("first"), text("new")]);
}
