//! A handoff with a fan-out over nodes that answer as they are told, on tokio's paused clock.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{self, clock::step};
use bytes::Bytes;
use hinted_handoff::{
    Config,
    ConsistencyLevel::{self, Quorum},
    Event, HintedHandoff, NodeId, NodeStats, PointsWriteError, PointsWriter, ShardId, WriteOutcome,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter, Seen};
use tokio::sync::broadcast::{self, error::TryRecvError};

pub use crate::common::{
    clock::{paused, stepping},
    service::shard,
};

pub type Answer = Result<WriteOutcome, PointsWriteError>;

pub const UP: Reply = Reply::Take;
pub const DOWN: Reply = Reply::Retry;
pub const HANG: Reply = Reply::Hang;
pub const REJECT: Reply = Reply::Reject;

pub struct World {
    pub handoff: HintedHandoff<Bytes>,
    pub points_writer: PointsWriter<Bytes, Arc<ScriptedWriter>>,
    pub writer: Arc<ScriptedWriter>,
    /// What each node answers to a direct write, to a replayed one, and to a ping.
    replies: Arc<Mutex<BTreeMap<u64, [Reply; 3]>>>,
    /// The nodes that writes go to.
    owners: Mutex<Vec<u64>>,
    events: Mutex<broadcast::Receiver<Event>>,
    dir: Arc<tempfile::TempDir>,
}

pub fn config(dir: &Path) -> Config {
    Config {
        retry_interval: Duration::from_millis(500),
        retry_max_interval: Duration::from_secs(1),
        ..common::config(dir)
    }
}

pub fn points(number: u64) -> Bytes {
    Bytes::from(format!("points {number}"))
}

impl World {
    /// Nodes 1, 2, ... that answer everything like this, but for pings, which fail where nothing
    /// else is taken.
    pub async fn new(replies: &[Reply], change: impl FnOnce(&mut Config)) -> World {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        World::in_dir(dir, replies, change).await
    }

    pub async fn in_dir(
        dir: Arc<tempfile::TempDir>,
        replies: &[Reply],
        change: impl FnOnce(&mut Config),
    ) -> World {
        let mut config = config(dir.path());
        change(&mut config);
        let of = |reply: &Reply| match reply {
            Reply::Hang | Reply::Retry | Reply::Panic => [*reply, *reply, DOWN],
            _ => [*reply, *reply, UP],
        };
        let replies: BTreeMap<u64, [Reply; 3]> = (1..).zip(replies.iter().map(of)).collect();
        let owners = replies.keys().copied().collect();
        let replies = Arc::new(Mutex::new(replies));
        let (of_writes, of_pings) = (Arc::clone(&replies), Arc::clone(&replies));
        let writer = ScriptedWriter::new(move |write| {
            let [direct, replayed, _] = of_writes.lock().unwrap()[&write.node.0];
            match write.is_replay() {
                true => replayed,
                false => direct,
            }
        });
        let writer = writer.with_pings(move |node| of_pings.lock().unwrap()[&node.0][2]);
        let writer = Arc::new(writer);
        let handoff = HintedHandoff::open(config, Arc::clone(&writer)).await;
        let handoff = handoff.unwrap();
        World {
            points_writer: PointsWriter::new(handoff.clone(), Arc::clone(&writer)),
            owners: Mutex::new(owners),
            events: Mutex::new(handoff.events()),
            handoff,
            writer,
            replies,
            dir,
        }
    }

    /// What a node answers from now on to direct writes, to replayed ones and to pings.
    pub fn answers(&self, node: u64, replies: [Reply; 3]) {
        self.replies.lock().unwrap().insert(node, replies);
    }

    /// A write to shard 7 of all nodes, in small steps of the clock, so that the disk keeps up with
    /// it.
    pub async fn write(&self, level: ConsistencyLevel, number: u64) -> Answer {
        self.write_to(7, level, number).await
    }

    pub async fn write_to(&self, id: u64, level: ConsistencyLevel, number: u64) -> Answer {
        let owners = self.owners.lock().unwrap().clone();
        let shard = shard(id, &owners);
        stepping(self.points_writer.write(&shard, level, points(number))).await
    }

    pub async fn quorum(&self, number: u64) -> Answer {
        self.write(Quorum, number).await
    }

    /// Stores a hint of another shard, which no write of a test has: with a limit of one hint there
    /// is no room for any more.
    pub async fn fill_with(&self, node: u64) {
        let points = points(0);
        let other = self.handoff.write_shard(NodeId(node), ShardId(9), &points);
        stepping(other).await.unwrap();
    }

    pub fn node(&self, node: u64) -> NodeStats {
        let nodes = self.handoff.stats().nodes.into_iter();
        let mut of_node = nodes.filter(|it| it.node == NodeId(node));
        of_node.next().unwrap()
    }

    pub fn pending(&self, node: u64) -> u64 {
        self.node(node).pending.hints
    }

    /// What a node was sent, directly and as hints.
    pub fn sent(&self, node: u64) -> (Vec<Seen>, Vec<Seen>) {
        let seen = self.writer.seen().into_iter();
        let of_node = seen.filter(|it| it.node == NodeId(node));
        of_node.partition(|it| it.hints.is_empty())
    }

    /// Events since this was asked last.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap();
        let mut told = Vec::new();
        loop {
            match events.try_recv() {
                Ok(event) => told.push(event),
                // The oldest are gone.
                Err(TryRecvError::Lagged(_)) => {}
                Err(_) => return told,
            }
        }
    }

    pub async fn until(&self, what: &str, wished: impl Fn() -> bool) {
        for _ in 0..60_000 {
            if wished() {
                return;
            }
            step().await;
        }
        panic!("never {what}: {:?}", self.handoff.stats());
    }

    /// Lets the clock go on.
    pub async fn pass(&self, length: Duration) {
        let until = tokio::time::Instant::now() + length;
        while tokio::time::Instant::now() < until {
            step().await;
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Opens the store again, after a clean stop.
    pub async fn reopen(self, replies: &[Reply], change: impl FnOnce(&mut Config)) -> World {
        stepping(self.handoff.shutdown()).await.unwrap();
        World::in_dir(Arc::clone(&self.dir), replies, change).await
    }

    pub async fn close(self) {
        stepping(self.handoff.shutdown()).await.unwrap();
    }
}
