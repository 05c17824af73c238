//! Hints of a node that the host gives to other nodes, as after a change of topology.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, BarrierState, EnqueueError, HandoffError, HintedHandoff, LossReason, NodeId, NodeState,
    Pause, ShardId, internals::WallClock,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use crate::common::{
    frozen::{freeze, pass, until},
    service::{node_stats, quick, soon_node, start},
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
    let heir = soon_node(&handoff, HEIR, |it| it.delivered.hints == 500).await;
    assert_eq!(heir.state, NodeState::CaughtUp);
    let losses = handoff.losses(0).await.unwrap().by_reason;
    assert_eq!(losses.keys().collect::<Vec<_>>(), [&LossReason::Rehinted]);
}
