//! What the host writes, and what limits make of it.

use std::sync::Arc;

use bytes::Bytes;
use hinted_handoff::{
    Accepted, ConsistencyLevel, EnqueueError, HintId, NodeId, PointsWriter, QueueId, Sequence,
    Shard, ShardId, WhenFull,
};
use tokio::time::Instant;

use crate::{
    audit::{NODES, Step},
    ledger::{Entry, Whereabouts},
    service::ServiceStory,
};

impl ServiceStory {
    pub fn new_hint(&mut self, node: u64, shard: u64) -> (u64, Entry, Bytes) {
        let number = self.next;
        self.next += 1;
        let mut payload = number.to_be_bytes().to_vec();
        let most = match self.random.u32(..12) {
            0 => 3_000,
            _ => 250,
        };
        payload.resize(8 + self.random.usize(..most), number as u8);
        let entry = Entry {
            node,
            shard,
            // Known once it is answered.
            id: HintId {
                store: self.life.store().id(),
                queue: QueueId(0),
                sequence: Sequence(0),
            },
            bytes: payload.len() as u64,
            origin: None,
            write: None,
            at: Whereabouts::Pending,
            fresh: false,
        };
        (number, entry, payload.into())
    }

    pub fn shard(&mut self) -> u64 {
        self.random.u64(1..5)
    }

    /// Several hints for a node at once, or one after the other.
    pub async fn write(&mut self, node: u64) -> Step {
        let began = Instant::now();
        let (mut hints, mut writes) = (Vec::new(), Vec::new());
        for _ in 0..self.random.usize(1..10) {
            let shard = self.shard();
            let (number, entry, payload) = self.new_hint(node, shard);
            let handoff = self.handoff();
            let write = async move {
                let written = handoff.write_shard(NodeId(node), ShardId(shard), &payload);
                written.await
            };
            hints.push((number, entry));
            writes.push(write);
        }
        let at_once = self.random.bool();
        let results = self.life.through(&self.nodes, async move {
            let mut results = Vec::new();
            if !at_once {
                for write in writes {
                    results.push(write.await);
                }
                return results;
            }
            let writes: Vec<_> = writes.into_iter().map(tokio::spawn).collect();
            for write in writes {
                results.push(write.await.unwrap());
            }
            results
        });
        let results = results.await;
        let is_one_in = results.iter().any(Result::is_ok);
        self.check_limits(node, is_one_in);
        if is_one_in && Instant::now() > began {
            self.count("let in after waiting", 1);
        }
        let mut buffered = 0;
        for ((number, mut entry), result) in hints.into_iter().zip(results) {
            match result {
                Ok(Accepted::Durable(id)) => {
                    entry.id = id;
                    self.enter(number, entry);
                }
                Ok(_) => {
                    buffered += 1;
                    self.unknown.insert(number, entry);
                }
                Err(error) => {
                    let what = match self.check_refusal(&error, entry.bytes) {
                        true => "refused after waiting",
                        false => "refused",
                    };
                    self.count(what, 1);
                }
            }
        }
        self.stored = Some(buffered);
        Step::default()
    }

    /// Writes that are tried directly: each that its node does not take is a hint.
    pub async fn write_points(&mut self) -> Step {
        let before = self.life.handoff.stats().writes;
        let settled = self.nodes.seen(|seen| seen.settled_directly);
        let writer = PointsWriter::new(self.handoff(), Arc::clone(&self.life.receiver));
        let mut writes = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            let (node, shard) = (NODES[self.random.usize(..NODES.len())], self.shard());
            let (number, entry, points) = self.new_hint(node, shard);
            self.unknown.insert(number, entry);
            let levels = [ConsistencyLevel::Any, ConsistencyLevel::All];
            let level = levels[self.random.usize(..2)];
            let (writer, id, owners) = (writer.clone(), ShardId(shard), vec![NodeId(node)]);
            writes.push(async move { writer.write(&Shard { id, owners }, level, points).await });
        }
        let count = writes.len();
        let writes: Vec<_> = writes.into_iter().map(tokio::spawn).collect();
        let done = self.life.through(&self.nodes, async move {
            for write in writes {
                // What came of it is in the stats.
                let _ = write.await.unwrap();
            }
        });
        done.await;
        let after = self.life.handoff.stats().writes;
        let hinted = (after.hinted - before.hinted) as usize;
        let unstored = (after.unstored - before.unstored) as usize;
        let settled = self.nodes.seen(|seen| seen.settled_directly) - settled;
        assert_eq!(settled + hinted + unstored, count, "{after:?}");
        self.unstored += unstored;
        self.count("written directly", (after.direct - before.direct) as usize);
        self.count("hinted", hinted);
        self.stored = Some(hinted);
        Step::default()
    }

    /// Refused are only hints that there was no room for. Returns whether that was waited for.
    fn check_refusal(&self, error: &EnqueueError, bytes: u64) -> bool {
        let waits = self.life.config.when_full == WhenFull::Block;
        match error {
            EnqueueError::QueueFull {
                max,
                pending,
                wanted,
                waited,
                ..
            } => {
                let is_right = pending + wanted > *max && waited.is_some() == waits;
                assert!(is_right, "{error}");
                waits
            }
            EnqueueError::OverLimit { wanted, max, .. } => {
                assert!(*wanted == bytes && bytes > *max, "{error}");
                false
            }
            other => panic!("{other}"),
        }
    }

    /// A hint that was let in left the limits as they are to be.
    fn check_limits(&self, node: u64, is_one_in: bool) {
        let (config, stats) = (&self.life.config, self.life.handoff.stats());
        let of_node = stats.nodes.iter().find(|it| it.node.0 == node);
        let of_node = of_node.map_or_else(Default::default, |it| it.pending);
        let all = stats.store.pending;
        let limits = [
            (config.max_hints_per_node, of_node.hints),
            (config.max_bytes_per_node, of_node.bytes),
            (config.max_hints, all.hints),
            (config.max_bytes, all.bytes),
        ];
        for (limit, there) in limits {
            let is_kept = limit.is_none_or(|limit| there <= limit);
            assert!(!is_one_in || is_kept, "{there} are pending, with {limit:?}");
        }
    }
}
