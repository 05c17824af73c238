//! Hints of a node that the host gives to other nodes, as after a change of topology.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, BarrierState, ConsistencyLevel, Durability, EnqueueError, HandoffError, HintedHandoff,
    HintsMeant, LossReason, NodeId, NodeState, Pause, PointsWriter, ShardId, WriteOrdering,
    internals::WallClock,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use crate::common::{
    changed_for_good, chunk_keys,
    frozen::{freeze, pass, until},
    service::{node_stats, quick, shard, soon_node, start},
};

const GONE: NodeId = NodeId(2);
const HEIR: NodeId = NodeId(3);
const OTHER: NodeId = NodeId(4);

fn numbered(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

/// By the last digit of the shard.
fn heirs(shard: ShardId) -> Vec<NodeId> {
    match shard.0 % 10 {
        0 => vec![HEIR],
        1 => vec![OTHER],
        2 => vec![OTHER, HEIR, OTHER],
        // It keeps it, whoever else has it.
        3 => vec![HEIR, GONE],
        _ => vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn each_hint_goes_to_its_shards_owners_in_order_and_as_old_as_it_was() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    type Came = (NodeId, ShardId, Bytes, u64);
    let came = Arc::new(Mutex::new(Vec::<Came>::new()));
    let noted = Arc::clone(&came);
    let writer = Arc::new(ScriptedWriter::new(move |write| {
        if write.node == GONE {
            return Reply::Retry;
        }
        let of_batch = |batch: &hinted_handoff::Batch<Bytes>| {
            let since = batch
                .enqueued
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap();
            let unix_ms = since.as_millis() as u64;
            (write.node, write.shard, batch.points.clone(), unix_ms)
        };
        noted
            .lock()
            .unwrap()
            .extend(write.batches.iter().map(of_batch));
        Reply::Take
    }));
    const BEGAN: u64 = 1_700_000_000_000;
    let (config, clock) = (quick(dir.path()), WallClock::new(BEGAN));
    let opened = HintedHandoff::open_by_clock(config, clock, Arc::clone(&writer));
    let handoff = opened.await.unwrap();
    for number in 0..2500_u64 {
        let points = numbered(number);
        let written = handoff.write_shard(GONE, ShardId(number % 5), &points);
        written.await.unwrap();
    }
    let barrier = handoff.barrier(&[GONE]).await.unwrap();
    pass(Duration::from_secs(100)).await;
    handoff.pause(GONE, Pause::Lasting).await.unwrap();
    until("nothing is being sent", || {
        node_stats(&handoff, GONE).in_flight == 0
    })
    .await;
    let left = handoff.rehint(GONE, heirs).await.unwrap();
    assert_eq!(left.hints, 1500);
    let stays = node_stats(&handoff, GONE);
    assert_eq!(stays.pending.hints, 1000);
    until("the others have theirs", || {
        let nodes = handoff.stats().nodes;
        let heirs = nodes.iter().filter(|it| it.node != GONE);
        heirs.map(|it| it.delivered.hints).sum::<u64>() == 2000
    })
    .await;

    let mut expected: BTreeMap<(NodeId, ShardId), Vec<Bytes>> = BTreeMap::new();
    for number in 0..2500_u64 {
        let shard = ShardId(number % 5);
        let owners = match shard.0 {
            0 => &[HEIR][..],
            1 => &[OTHER],
            2 => &[HEIR, OTHER],
            _ => &[],
        };
        for owner in owners {
            let of_owner = expected.entry((*owner, shard)).or_default();
            of_owner.push(numbered(number));
        }
    }
    let mut found: BTreeMap<(NodeId, ShardId), Vec<Bytes>> = BTreeMap::new();
    for (node, shard, points, unix_ms) in came.lock().unwrap().drain(..) {
        found.entry((node, shard)).or_default().push(points);
        assert!(unix_ms < BEGAN + 100_000, "{unix_ms}");
    }
    assert!(found == expected);
    assert_eq!(
        handoff.rehint(GONE, heirs).await.unwrap(),
        Amount::default()
    );

    // Nobody takes what went elsewhere for delivered.
    let losses = handoff.losses(0).await.unwrap();
    assert_eq!(losses.by_reason[&LossReason::Rehinted].hints, 1500);
    let state = handoff.wait(&barrier, Duration::ZERO).await.unwrap();
    let BarrierState::Lost { losses, .. } = state else {
        panic!("{state:?}");
    };
    assert_eq!(losses.entries[0].1.reason, LossReason::Rehinted);
    let unknown = handoff.rehint(NodeId(99), heirs).await;
    assert!(matches!(unknown, Err(HandoffError::UnknownNode { .. })));
}

/// With a store that is full a node's hints can go to another all the same; with another that is
/// full they stay, and go once it is not.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_for_them_and_what_has_no_room_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.max_hints = Some(30);
    config.max_hints_per_node = Some(20);
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for (node, hints) in [(GONE, 15), (HEIR, 10), (OTHER, 5)] {
        for number in 0..hints {
            let points = numbered(number);
            let written = handoff.write_shard(node, ShardId(number), &points);
            written.await.unwrap();
        }
    }
    let refused = handoff.rehint(GONE, |_| vec![HEIR]).await;
    let is_full = matches!(
        &refused,
        Err(HandoffError::Refused(EnqueueError::QueueFull { .. }))
    );
    assert!(is_full, "{refused:?}");
    let pending = |node| node_stats(&handoff, node).pending.hints;
    assert_eq!((pending(GONE), pending(HEIR)), (15, 10));
    let left = handoff.rehint(GONE, |_| vec![OTHER]).await.unwrap();
    assert_eq!((left.hints, pending(GONE), pending(OTHER)), (15, 0, 20));

    handoff.stop_hinting(GONE);
    let refused = handoff.rehint(OTHER, |_| vec![GONE]).await;
    let is_stopped = matches!(
        &refused,
        Err(HandoffError::Refused(EnqueueError::HintingStopped { .. }))
    );
    assert!(is_stopped, "{refused:?}");
    handoff.start_hinting(GONE);
    let left = handoff.rehint(OTHER, |_| vec![GONE]).await.unwrap();
    assert_eq!((left.hints, pending(GONE), pending(OTHER)), (20, 20, 0));
}

/// A node that is down has been tried for a while, and is given up.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_node_that_was_down_goes_once_it_is_paused_and_then_it_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|write| match write.node {
        GONE => Reply::Retry,
        _ => Reply::Take,
    }));
    let handoff = start(quick(dir.path()), &writer).await;
    for number in 0..500 {
        let points = numbered(number);
        let written = handoff.write_shard(GONE, ShardId(number % 7), &points);
        written.await.unwrap();
    }
    soon_node(&handoff, GONE, |it| it.last_error.is_some()).await;
    handoff.pause(GONE, Pause::Lasting).await.unwrap();
    soon_node(&handoff, GONE, |it| it.in_flight == 0).await;
    let left = handoff.rehint(GONE, |_| vec![HEIR]).await.unwrap();
    assert_eq!(left.hints, 500);
    handoff.remove_node(GONE).await.unwrap();
    let has_all = |it: &hinted_handoff::NodeStats| {
        it.delivered.hints == 500 && it.state == NodeState::CaughtUp
    };
    soon_node(&handoff, HEIR, has_all).await;
    let losses = handoff.losses(0).await.unwrap().by_reason;
    assert_eq!(losses.keys().collect::<Vec<_>>(), [&LossReason::Rehinted]);
}

/// A write that is sent directly keeps behind hints of its shard, whoever they were for first.
#[tokio::test(flavor = "multi_thread")]
async fn where_order_is_strict_no_direct_write_goes_past_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.ordering = WriteOrdering::Strict;
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(&config, &writer).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let shard = shard(7, &[HEIR.0]);
    let (old, new) = (Bytes::from("old"), Bytes::from("new"));
    handoff.write_shard(GONE, shard.id, &old).await.unwrap();
    let left = handoff.rehint(GONE, |_| vec![HEIR]).await.unwrap();
    assert_eq!(left.hints, 1);
    let points = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let written = points.write(&shard, ConsistencyLevel::Any, new.clone());
    written.await.unwrap();
    soon_node(&handoff, HEIR, |it| it.pending.hints == 2).await;
    handoff.resume_all().await.unwrap();
    soon_node(&handoff, HEIR, |it| it.delivered.hints == 2).await;
    assert_eq!(writer.taken(), [old, new]);
    // Once they are gone it goes directly again.
    let next = points.write(&shard, ConsistencyLevel::One, "next".into());
    next.await.unwrap();
    assert_eq!(node_stats(&handoff, HEIR).direct.taken, 1);
}

/// Hints of two shards in turn: each that leaves is a place that its queue must note.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_queue_has_no_room_to_note_stays_and_nothing_is_doubled_by_a_restart() {
    const HINTS: u64 = 6000;
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.durability = Durability::Buffered;
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for number in 0..HINTS {
        let points = numbered(number);
        let shard = ShardId(number % 2);
        handoff.write_shard(GONE, shard, &points).await.unwrap();
    }
    handoff.sync().await.unwrap();
    let odd = |shard: ShardId| match shard.0 {
        1 => vec![HEIR],
        _ => vec![],
    };
    let scattered = handoff.rehint(GONE, odd).await;
    let is_scattered = matches!(
        scattered,
        Err(HandoffError::TooScattered { node: GONE, .. })
    );
    assert!(is_scattered, "{scattered:?}");
    let pending = |handoff: &HintedHandoff<Bytes>| {
        [GONE, HEIR].map(|node| node_stats(handoff, node).pending.hints)
    };
    let [stay, gone] = pending(&handoff);
    assert_eq!(stay + gone, HINTS);
    assert!((2000..2100).contains(&gone), "{gone}");
    let discarded = handoff
        .discard_hints(GONE, HintsMeant::default().of_shard(ShardId(1)))
        .await;
    let is_scattered = matches!(discarded, Err(HandoffError::TooScattered { .. }));
    assert!(is_scattered, "{discarded:?}");
    assert_eq!(
        pending(&handoff),
        [stay, gone],
        "what stays is nobody's and whole"
    );
    handoff.shutdown().await.unwrap();

    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    assert_eq!(pending(&handoff), [stay, gone]);
    // All of them can leave.
    let left = handoff.rehint(GONE, |_| vec![HEIR]).await.unwrap();
    assert_eq!((left.hints, pending(&handoff)[1]), (stay, HINTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_behind_hints_that_stay_is_told_and_what_is_behind_it_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let config = quick(&store);
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::Lasting).await.unwrap();
    for number in 0..3 {
        let points = Bytes::from(vec![number; 40_000]);
        handoff
            .write_shard(GONE, ShardId(number.min(1).into()), &points)
            .await
            .unwrap();
    }
    handoff.shutdown().await.unwrap();
    changed_for_good(&store, |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let keys = chunk_keys(&hints, GONE.0);
        let second = keys
            .iter()
            .find(|key| key[17..25] == 2_u64.to_be_bytes())
            .unwrap();
        hints.insert(second, &b"damaged"[..]).unwrap();
    });
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    let of_one = |shard: ShardId| match shard.0 {
        1 => vec![HEIR],
        _ => vec![],
    };
    let damaged = handoff.rehint(GONE, of_one).await;
    let is_told =
        matches!(&damaged, Err(HandoffError::DamagedHint { hint, .. }) if hint.sequence.0 == 2);
    assert!(is_told, "{damaged:?}");
    // Once it comes first it is given up, and what is behind it goes.
    let left = handoff.rehint(GONE, |_| vec![HEIR]).await.unwrap();
    assert_eq!(left.hints, 2);
    let losses = handoff.losses(0).await.unwrap().by_reason;
    assert_eq!(losses[&LossReason::Damaged].hints, 1);
}
