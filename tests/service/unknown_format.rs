//! A host that was rolled back meets hints of a format that it does not read. They wait, with all
//! behind them in their shard, and nothing else does; the right host goes on with them.
//!
//! On paused time, as in `replay.rs`.

mod learning;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::{self, service::until_node};
use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, Durability, EncodeError, Event, HintedHandoff, NodeId, NodeState, NodeStats,
    Pause, Payload, PayloadError, Pong, ShardId, ShardWrite, ShardWriter, WhenFull, WriteError,
};
use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;

const NODE: NodeId = NodeId(3);

/// Numbers, as a host writes them that reads the formats up to its own.
#[derive(Debug, Clone, Copy)]
struct Versioned<const WRITES: u16>(u64);

impl<const WRITES: u16> Payload for Versioned<WRITES> {
    const FORMAT: u16 = WRITES;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(self.0.to_be_bytes());
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        let unknown = PayloadError::UnknownFormat {
            found: format,
            written: WRITES,
        };
        match format <= WRITES {
            true => Ok(Versioned(u64::from_be_bytes(bytes[..].try_into().unwrap()))),
            false => Err(unknown),
        }
    }
}

type Old = Versioned<1>;
type New = Versioned<2>;

/// A node that takes what it is given, but for the shards that fail.
#[derive(Default)]
struct Node {
    failing: Mutex<Vec<ShardId>>,
    pings: AtomicUsize,
    taken: Mutex<BTreeMap<u64, Vec<u64>>>,
}

impl Node {
    fn taken(&self) -> BTreeMap<u64, Vec<u64>> {
        self.taken.lock().clone()
    }
}

struct To(Arc<Node>);

impl<const WRITES: u16> ShardWriter<Versioned<WRITES>> for To {
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        self.0.pings.fetch_add(1, Relaxed);
        Ok(Pong::Answered)
    }

    async fn write_shard(&self, write: ShardWrite<Versioned<WRITES>>) -> Result<(), WriteError> {
        if self.0.failing.lock().contains(&write.shard) {
            return Err(WriteError::retry("this shard fails"));
        }
        let numbers = write.batches.iter().map(|batch| batch.points.0);
        let mut taken = self.0.taken.lock();
        taken.entry(write.shard.0).or_default().extend(numbers);
        Ok(())
    }
}

fn config(dir: &Path) -> Config {
    Config {
        durability: Durability::Buffered,
        // Not even the first look is one too many.
        max_attempts: 1,
        ..common::config(dir)
    }
}

async fn open<P: Payload>(config: &Config, node: &Arc<Node>) -> HintedHandoff<P>
where
    To: ShardWriter<P>,
{
    let opened = HintedHandoff::open(config.clone(), To(Arc::clone(node)));
    opened.await.unwrap()
}

/// Opens a store that was left paused, for somebody who listens from before the first look on.
async fn open_heard<P: Payload>(
    config: &Config,
    node: &Arc<Node>,
) -> (HintedHandoff<P>, Receiver<Event>)
where
    To: ShardWriter<P>,
{
    let handoff = open(config, node).await;
    let events = handoff.events();
    handoff.resume_all().await.unwrap();
    (handoff, events)
}

async fn put<P: Payload>(handoff: &HintedHandoff<P>, shard: u64, points: P) {
    let shard = ShardId(shard);
    handoff.write_shard(NODE, shard, &points).await.unwrap();
}

/// Queues numbers for shards, as a host of that version, and leaves the store paused.
async fn queue_up<const WRITES: u16>(config: &Config, hints: impl IntoIterator<Item = (u64, u64)>) {
    let handoff = open::<Versioned<WRITES>>(config, &Arc::default()).await;
    handoff.pause_all(Pause::Lasting).await.unwrap();
    for (shard, number) in hints {
        put(&handoff, shard, Versioned(number)).await;
    }
    handoff.shutdown().await.unwrap();
}

async fn until_waiting<P: Payload>(handoff: &HintedHandoff<P>, hints: u64) -> NodeStats {
    until_node(handoff, NODE, |node| {
        node.state == NodeState::UnknownFormat && node.pending.hints == hints
    })
    .await
}

/// Nothing left but to the node, and the node is not blamed.
fn nothing_is_held_against(node: &NodeStats) {
    let none = Amount::default();
    assert_eq!(
        (node.dead_lettered, node.dead_letters, node.lost),
        (none, none, none)
    );
    assert_eq!((node.failures, node.attempts), (0, 0));
    assert_eq!(node.last_error, None);
}

/// The shards that were told of by now, and whether the node was said to be down.
fn told(events: &mut Receiver<Event>) -> (Vec<u64>, bool) {
    let (mut shards, mut is_failing) = (Vec::new(), false);
    while let Ok(event) = events.try_recv() {
        match event {
            Event::UnknownFormat {
                node: NODE,
                shard,
                hint,
                found: 2 | 3,
                written: 1,
                ..
            } => {
                assert!(hint.sequence.0 > 0);
                shards.push(shard.0);
            }
            Event::NodeFailing { .. } => is_failing = true,
            Event::Replaying { .. } | Event::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    shards.sort_unstable();
    (shards, is_failing)
}

/// What is shown of unknown formats: the number of shards, the first, found, written.
fn shown(node: &NodeStats) -> Option<(u64, u64, u16, u16)> {
    let unknown = node.unknown_format?;
    Some((
        unknown.shards,
        unknown.shard.0,
        unknown.found,
        unknown.written,
    ))
}

#[tokio::test(start_paused = true)]
async fn after_a_rollback_nothing_leaves_and_the_right_build_delivers_all_in_order() {
    const HINTS: u64 = 15_000;
    const SHARDS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let hints = (0..HINTS).map(|number| (number % SHARDS, number));
    queue_up::<2>(&config, hints).await;

    // Over a restart, too.
    for _ in 0..2 {
        let node = Arc::new(Node::default());
        let (older, mut events) = open_heard::<Old>(&config, &node).await;
        until_waiting(&older, HINTS).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        let waits = until_waiting(&older, HINTS).await;
        nothing_is_held_against(&waits);
        assert_eq!(shown(&waits), Some((SHARDS, 0, 2, 1)));
        assert_eq!(older.losses(0).await.unwrap().entries, []);
        assert_eq!(node.taken(), BTreeMap::new());
        assert_eq!(told(&mut events), (vec![0, 1, 2, 3], false));
        older.pause_all(Pause::Lasting).await.unwrap();
        older.shutdown().await.unwrap();
        drop(older);
    }

    let node = Arc::new(Node::default());
    let (newer, _) = open_heard::<New>(&config, &node).await;
    let caught_up = until_node(&newer, NODE, |node| {
        node.state == NodeState::CaughtUp && node.pending.hints == 0
    });
    nothing_is_held_against(&caught_up.await);
    let of_shard = |shard| (0..HINTS).filter(move |it| it % SHARDS == shard).collect();
    let all: BTreeMap<_, Vec<_>> = (0..SHARDS).map(|shard| (shard, of_shard(shard))).collect();
    assert_eq!(node.taken(), all);
    newer.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hints_in_front_of_the_unknown_one_and_other_shards_go_on_and_those_behind_it_wait() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    queue_up::<1>(&config, [(1, 0), (2, 1), (1, 2)]).await;
    queue_up::<2>(&config, [(1, 3)]).await;
    queue_up::<1>(&config, [(1, 4), (2, 5)]).await;

    let node = Arc::new(Node::default());
    let (older, mut events) = open_heard::<Old>(&config, &node).await;
    let waits = until_waiting(&older, 2).await;
    assert_eq!(
        node.taken(),
        BTreeMap::from([(1, vec![0, 2]), (2, vec![1, 5])])
    );
    nothing_is_held_against(&waits);
    assert_eq!(shown(&waits), Some((1, 1, 2, 1)));
    assert_eq!(waits.stalled_by, Some(ShardId(1)));

    for number in 6..106 {
        put(&older, number % 3, Versioned(number)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Only what is durable is pending.
    older.sync().await.unwrap();
    let of_shard = |shard| (6..106).filter(move |it| it % 3 == shard);
    let waits = until_waiting(&older, 2 + of_shard(1).count() as u64).await;
    nothing_is_held_against(&waits);
    assert_eq!(node.taken()[&0], of_shard(0).collect::<Vec<_>>());
    assert_eq!(node.taken()[&1], [0, 2]);
    assert_eq!(
        node.taken()[&2],
        [1, 5].into_iter().chain(of_shard(2)).collect::<Vec<_>>()
    );
    assert_eq!(told(&mut events), (vec![1], false));
    older.pause_all(Pause::Lasting).await.unwrap();
    older.shutdown().await.unwrap();
    drop(older);

    let (newer, _) = open_heard::<New>(&config, &node).await;
    until_node(&newer, NODE, |node| node.pending.hints == 0).await;
    let behind = [0, 2, 3, 4].into_iter().chain(of_shard(1));
    assert_eq!(node.taken()[&1], behind.collect::<Vec<_>>());
    newer.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_other_shards_fail_is_failing_and_its_unknown_hints_alone_wait_after_that() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_attempts: 0,
        ..config(dir.path())
    };
    queue_up::<2>(&config, [(1, 0)]).await;
    queue_up::<1>(&config, [(2, 1)]).await;
    let node = Arc::new(Node::default());
    node.failing.lock().push(ShardId(2));
    let (older, mut events) = open_heard::<Old>(&config, &node).await;
    let failing = until_node(&older, NODE, |node| {
        node.state == NodeState::Failing && node.failures > 5
    })
    .await;
    assert_eq!(shown(&failing), Some((1, 1, 2, 1)));
    assert_eq!(
        failing.attempts, failing.failures,
        "each of the other shard"
    );

    node.failing.lock().clear();
    let waits = until_waiting(&older, 1).await;
    assert_eq!((waits.attempts, waits.last_error), (0, None));
    assert_eq!(node.taken(), BTreeMap::from([(2, vec![1])]));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let still = until_waiting(&older, 1).await;
    assert_eq!(still.failures, waits.failures);
    assert_eq!(told(&mut events), (vec![1], true));
    older.shutdown().await.unwrap();
}

/// Were each to come back by itself, the node would be pinged and its queue read all the time.
#[tokio::test(start_paused = true)]
async fn many_shards_of_an_unknown_format_are_looked_at_together_and_each_is_told_once() {
    const SHARDS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    queue_up::<2>(&config, (0..SHARDS).map(|shard| (shard, shard))).await;
    let node = Arc::new(Node::default());
    let (older, mut events) = open_heard::<Old>(&config, &node).await;
    until_waiting(&older, SHARDS).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let waits = until_waiting(&older, SHARDS).await;
    nothing_is_held_against(&waits);
    assert_eq!(shown(&waits), Some((SHARDS, 0, 2, 1)));
    assert_eq!(told(&mut events), ((0..SHARDS).collect(), false));
    let pings = node.pings.load(Relaxed);
    assert!((60..200).contains(&pings), "{pings}");
    older.shutdown().await.unwrap();
}

/// All of them are in the window before the first is taken, so one send could carry them.
#[tokio::test(start_paused = true)]
async fn a_send_ends_in_front_of_the_hint_of_an_unknown_format() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_attempts: 0,
        ..config(dir.path())
    };
    queue_up::<1>(&config, [(1, 0), (1, 1)]).await;
    queue_up::<2>(&config, [(1, 2)]).await;
    queue_up::<1>(&config, [(1, 3)]).await;
    let node = Arc::new(Node::default());
    node.failing.lock().push(ShardId(1));
    let (older, _) = open_heard::<Old>(&config, &node).await;
    until_node(&older, NODE, |node| node.failures > 3).await;
    node.failing.lock().clear();
    let waits = until_waiting(&older, 2).await;
    assert_eq!(waits.delivered.hints, 2);
    assert_eq!(node.taken(), BTreeMap::from([(1, vec![0, 1])]));
    older.shutdown().await.unwrap();
}

/// While its shard is looked at, and while nothing is.
#[tokio::test(start_paused = true)]
async fn a_limit_still_takes_hints_of_an_unknown_format_and_then_none_is_shown() {
    for is_paused in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            max_attempts: 0,
            max_hints_per_node: Some(2),
            when_full: WhenFull::DropOldest,
            ..config(dir.path())
        };
        queue_up::<2>(&config, [(1, 0)]).await;
        let node = Arc::new(Node::default());
        node.failing.lock().push(ShardId(2));
        let (older, _) = open_heard::<Old>(&config, &node).await;
        until_waiting(&older, 1).await;
        if is_paused {
            older.pause_all(Pause::UntilRestart).await.unwrap();
        }
        for number in 1..3 {
            put(&older, 2, Versioned(number)).await;
        }
        older.sync().await.unwrap();
        older.resume_all().await.unwrap();
        let left = until_node(&older, NODE, |node| {
            node.unknown_format.is_none() && node.state == NodeState::Failing
        });
        let left = left.await;
        assert_eq!((left.pending.hints, left.dropped.hints), (2, 1));
        older.shutdown().await.unwrap();
    }
}
