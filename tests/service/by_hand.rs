//! What an operator does to writes and hints of a node: no hints for a while, no direct writes for
//! a while, and hints that are discarded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    ConsistencyLevel, EnqueueError, Gate, HandoffError, HintedHandoff, HintsMeant, LossReason,
    NodeId, PointsWriter, ShardId, internals::WallClock,
};
use hinted_handoff_testkit::ScriptedWriter;

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
        UP => hinted_handoff_testkit::Reply::Take,
        _ => hinted_handoff_testkit::Reply::Retry,
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
    handoff
        .pause_all(hinted_handoff::Pause::UntilRestart)
        .await
        .unwrap();
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
