//! The trace of a write reaches its node, whichever way the write goes there.
//!
//! Method: a node that is down misses writes with and without a trace, from `write_shard` and from
//! a `PointsWriter`; the coordinator is started again, and the node comes back. What its writer is
//! given directly, by replay and by hand is compared with what was written.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::service::{quick, shard, soon_node};
use bytes::Bytes;
use hinted_handoff::{
    Config, ConsistencyLevel, Expiring, HintedHandoff, NodeId, Payload, PointsWriter, Pong,
    ShardId, ShardWrite, ShardWriter, TraceParent, Traced, WriteError,
};

type Points = Expiring<Traced<String>>;

const UP: NodeId = NodeId(1);
const AWAY: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(7);
const SOON: Duration = Duration::from_secs(20);

fn parent(of: u8) -> Option<TraceParent> {
    TraceParent::new([of; 16], [of; 8], 1)
}

fn points(text: &str, parent: Option<TraceParent>) -> Points {
    Expiring {
        points: Traced {
            points: text.to_owned(),
            parent,
        },
        after: Some(Duration::from_secs(3600)),
    }
}

type Taken = (NodeId, bool, String, Option<TraceParent>);

/// Keeps what each node takes: whether by replay, the points and their trace.
#[derive(Clone, Default)]
struct Nodes {
    is_away: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Nodes {
    fn check(&self, node: NodeId) -> Result<(), WriteError> {
        match node == AWAY && self.is_away.load(Relaxed) {
            true => Err(WriteError::retry("away")),
            false => Ok(()),
        }
    }

    fn taken_by(&self, node: NodeId) -> Vec<(bool, String, Option<TraceParent>)> {
        let taken = self.taken.lock().unwrap();
        let of_node = taken.iter().filter(|(of, ..)| *of == node).cloned();
        of_node
            .map(|(_, how, text, parent)| (how, text, parent))
            .collect()
    }
}

impl ShardWriter<Points> for Nodes {
    async fn write_shard(&self, write: ShardWrite<Points>) -> Result<(), WriteError> {
        self.check(write.node)?;
        let is_replay = write.is_replay();
        let mut taken = self.taken.lock().unwrap();
        taken.extend(write.batches.into_iter().map(|batch| {
            let Traced { points, parent } = batch.points.points;
            (write.node, is_replay, points, parent)
        }));
        Ok(())
    }

    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        self.check(node).map(|()| Pong::Answered)
    }
}

async fn open(config: Config, nodes: &Nodes) -> HintedHandoff<Points> {
    HintedHandoff::open(config, nodes.clone()).await.unwrap()
}

/// Leaves behind what the node that is away missed.
async fn missed(dir: &Path, nodes: &Nodes) {
    nodes.is_away.store(true, Relaxed);
    let handoff = open(quick(dir), nodes).await;
    let writer = PointsWriter::new(handoff.clone(), nodes.clone());
    for (text, parent) in [("traced", parent(3)), ("not traced", None)] {
        let points = points(text, parent);
        handoff.write_shard(AWAY, SHARD, &points).await.unwrap();
    }
    let both = shard(SHARD.0, &[UP.0, AWAY.0]);
    let copy = points("to both", parent(4));
    writer
        .write(&both, ConsistencyLevel::One, copy)
        .await
        .unwrap();
    // The copy that missed its node is a hint once this has ended.
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_direct_write_has_its_trace_and_a_replay_has_it_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::default();
    missed(dir.path(), &nodes).await;
    let direct = (false, "to both".to_owned(), parent(4));
    assert_eq!(nodes.taken_by(UP), [direct]);
    assert_eq!(nodes.taken_by(AWAY), []);

    nodes.is_away.store(false, Relaxed);
    let handoff = open(quick(dir.path()), &nodes).await;
    handoff.drain(AWAY, SOON).await.unwrap();
    let replayed = [
        ("traced", parent(3)),
        ("not traced", None),
        ("to both", parent(4)),
    ];
    let replayed = replayed.map(|(text, parent)| (true, text.to_owned(), parent));
    assert_eq!(nodes.taken_by(AWAY), replayed);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn whoever_takes_hints_by_hand_has_their_traces() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::default();
    missed(dir.path(), &nodes).await;
    let mut config = quick(dir.path());
    config.manual_nodes.insert(AWAY);
    let handoff = open(config, &nodes).await;
    let mut consumer = handoff.consumer(AWAY).unwrap();
    let hints = consumer.peek(10).await.unwrap();
    let parents: Vec<_> = hints.iter().map(|hint| hint.points.points.parent).collect();
    assert_eq!(parents, [parent(3), None, parent(4)]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_hint_that_was_written_without_is_a_dead_letter_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = quick(dir.path());
    let plain = hinted_handoff_testkit::ScriptedWriter::down();
    let handoff = HintedHandoff::open(config.clone(), plain).await.unwrap();
    let bare = Bytes::from_static(b"cpu v=1");
    handoff.write_shard(AWAY, SHARD, &bare).await.unwrap();
    handoff.shutdown().await.unwrap();

    assert_eq!(<Points as Payload>::FORMAT, <Bytes as Payload>::FORMAT);
    let nodes = Nodes::default();
    let handoff = open(config, &nodes).await;
    soon_node(&handoff, AWAY, |it| it.dead_letters.hints == 1).await;
    let letters = handoff.dead_letters(AWAY, None, 10).await.unwrap();
    let text = letters[0].error.clone();
    assert!(text.contains("byte 0 is 99"), "{text}");
    assert!(nodes.taken_by(AWAY).is_empty());
    handoff.shutdown().await.unwrap();
}
