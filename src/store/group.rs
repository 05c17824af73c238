//! One commit group: blocks, cursors, trims; one flush and fsync; watermarks and answers.
//!
//! Nothing in a group needs several keys to change as one, so all are plain inserts in an order whose every prefix is
//! sound, and sled recovers a prefix: the queue id counter before the record that lists the new queue, the record before
//! the queue's first block, a block's chunk 0 after its other chunks, a cursor before what it lets be trimmed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::Relaxed,
};

use super::{
    block::NewHint,
    committer::{Committer, Tail},
    encoder::EncodedBlock,
    engine::GROUP_BYTES,
    faults::{Safeguard, is_off, point},
    inbox::{Append, AppendDone},
    keys::QueueRef,
    meta,
    node_record::NodeRecord,
};
use crate::{
    error::StorageError,
    types::{Amount, HintId, NodeId, QueueId, Sequence},
};

/// Cursors beyond this wait for the next group.
const CURSORS_PER_GROUP: usize = 500;
/// Left free by trims, for the records that go with them.
const TRIM_MARGIN_BYTES: usize = 32 * 1024;

/// The blocks of a group, encoded and not yet written.
#[derive(Default)]
struct Plan {
    blocks: Vec<(NodeId, EncodedBlock)>,
    /// Nodes whose block is the first of a new queue.
    new_queues: Vec<NodeId>,
    waiting: Vec<(HintId, AppendDone)>,
}

/// What becomes visible once the group is durable.
struct Written {
    node: NodeId,
    queue: QueueRef,
    watermark: Sequence,
    bytes_through: u64,
    added: Amount,
}

/// A cursor written in this group.
struct Moved {
    node: NodeId,
    queue: QueueRef,
    next: Sequence,
    retired: bool,
}

impl Committer {
    /// Commits `appends` with whatever cursors and trims wait.
    pub fn group(&mut self, appends: Vec<Append>) -> Result<(), StorageError> {
        let appends = self.refuse_below_reserve(appends);
        let span = tracing::debug_span!(
            "commit_group",
            hints = appends.len(),
            bytes = tracing::field::Empty
        );
        let _entered = span.enter();
        let plan = self.plan(appends);
        if !plan.blocks.is_empty() {
            point("append: planned")?;
        }
        let written = self.write_blocks(plan)?;
        let moved = self.write_cursors()?;
        self.trim()?;
        span.record("bytes", self.handed_bytes);
        if self.handed_bytes > 0 && !is_off(Safeguard::GroupCommits) {
            self.commit()?;
        }
        self.publish(written, moved);
        point("commit: published")
    }

    /// Refuses hints that the disk has no room for, but for those whose callers were told that they are in.
    fn refuse_below_reserve(&self, appends: Vec<Append>) -> Vec<Append> {
        if appends.iter().all(|append| append.answered) {
            return appends;
        }
        let Err(refusal) = self.shared.space.check() else {
            return appends;
        };
        let (kept, refused): (Vec<_>, Vec<_>) =
            appends.into_iter().partition(|append| append.answered);
        let counter = &self.shared.counters.refused_for_space;
        counter.fetch_add(refused.len() as u64, Relaxed);
        for append in refused {
            (append.done)(Err(refusal.clone()));
        }
        kept
    }

    /// Gives out sequences and encodes one block a node.
    fn plan(&mut self, appends: Vec<Append>) -> Plan {
        let mut by_node: BTreeMap<NodeId, (Vec<NewHint>, Vec<AppendDone>)> = BTreeMap::new();
        for append in appends {
            let (hints, done) = by_node.entry(append.node).or_default();
            hints.push(append.hint);
            done.push(append.done);
        }
        let mut plan = Plan::default();
        for (node, (hints, done)) in by_node {
            let tail = match self.tails.get(&node) {
                Some(tail) => *tail,
                None => {
                    plan.new_queues.push(node);
                    self.new_tail(node)
                }
            };
            let block = self
                .encoder
                .encode(tail.queue, tail.next, tail.bytes, &hints);
            let ids = (tail.next.0..).map(|sequence| HintId {
                store: self.shared.store,
                queue: tail.queue.queue,
                sequence: Sequence(sequence),
            });
            plan.waiting.extend(ids.zip(done));
            let tail = Tail {
                queue: tail.queue,
                next: Sequence(block.header.last().0 + 1),
                bytes: block.header.bytes_through(),
            };
            self.tails.insert(node, tail);
            plan.blocks.push((node, block));
        }
        plan
    }

    /// SLED.md rule 16: queue ids come from a counter of our own.
    fn new_tail(&mut self, node: NodeId) -> Tail {
        let queue = QueueRef {
            node,
            queue: QueueId(self.next_queue),
        };
        self.next_queue += 1;
        let record = self.records.entry(node).or_default();
        record.removed = false;
        record.live.push(queue);
        Tail {
            queue,
            next: Sequence(1),
            bytes: 0,
        }
    }

    fn write_blocks(&mut self, plan: Plan) -> Result<Vec<Written>, StorageError> {
        // From here on the watchdog can answer whoever waits.
        self.shared.set_in_flight(plan.waiting);
        let engine = self.engine()?;
        if !plan.new_queues.is_empty() {
            self.handed_bytes += meta::set_next_queue(&engine, self.next_queue)
                .map_err(|error| StorageError::new("write to the engine", error))?;
        }
        for node in plan.new_queues {
            point("append: queue counter written")?;
            self.write_record(node)?;
            point("append: node record written")?;
        }
        let mut written = Vec::with_capacity(plan.blocks.len());
        for (node, block) in plan.blocks {
            let (queue, header) = (block.queue, block.header);
            let bytes_through = header.bytes_through();
            tracing::debug!(
                node = node.0,
                queue = queue.queue.0,
                first = header.first.0,
                last = header.last().0,
                bytes = block.bytes(),
                "block"
            );
            // One larger than a group commits alone: `insert` fsyncs its chunks in sub-groups, and they are durable
            // before chunk 0 makes the block valid.
            let alone = block.bytes() > GROUP_BYTES;
            let mut writes = block.into_writes().peekable();
            while let Some((key, value)) = writes.next() {
                if alone && writes.peek().is_none() {
                    self.commit()?;
                }
                self.insert(&engine.hints, &key, value)?;
                point("append: chunk written")?;
            }
            point("append: block written")?;
            written.push(Written {
                node,
                queue,
                watermark: header.last(),
                bytes_through,
                added: Amount {
                    hints: u64::from(header.hints),
                    bytes: bytes_through - header.bytes_before,
                },
            });
        }
        Ok(written)
    }

    pub fn write_record(&mut self, node: NodeId) -> Result<(), StorageError> {
        let Some(value) = self.records.get(&node).map(|record| record.encode(node)) else {
            return Ok(());
        };
        let engine = self.engine()?;
        self.insert(&engine.nodes, &NodeRecord::key(node), value)
    }

    /// Writes the cursors that moved, and retires queues that are drained and take no new hints.
    fn write_cursors(&mut self) -> Result<Vec<Moved>, StorageError> {
        let engine = self.engine()?;
        let mut moved = Vec::new();
        while moved.len() < CURSORS_PER_GROUP {
            let Some((node, at)) = self.dirty.pop_first() else {
                break;
            };
            // Bound first, so that the lock is not held while sled works.
            let queue = self.shared.registry.lock().queue(node, at);
            let Some(queue) = queue else {
                continue;
            };
            self.insert(&engine.hints, &at.cursor_key(), queue.cursor.encode(at))?;
            point("ack: cursor written")?;
            let retired = queue.sealed && queue.is_drained();
            if retired && let Some(record) = self.records.get_mut(&node) {
                record.live.retain(|live| *live != at);
                record.retired.push(at);
                self.write_record(node)?;
                point("ack: queue retired")?;
            }
            moved.push(Moved {
                node,
                queue: at,
                next: queue.cursor.next,
                retired,
            });
        }
        Ok(moved)
    }

    /// Removes what the rest of the group allows.
    fn trim(&mut self) -> Result<(), StorageError> {
        if !self.trimmer.has_work() {
            return Ok(());
        }
        let budget = GROUP_BYTES.saturating_sub(self.handed_bytes + TRIM_MARGIN_BYTES);
        let engine = self.engine()?;
        let trimmed = self
            .trimmer
            .step(&engine, budget)
            .map_err(|error| StorageError::new("trim", error))?;
        self.handed_bytes += trimmed.bytes;
        if trimmed.bytes > 0 {
            point("trim: removed")?;
        }
        for (node, queue) in trimmed.gone {
            if let Some(record) = self.records.get_mut(&node) {
                record.retired.retain(|retired| *retired != queue);
                self.write_record(node)?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, written: Vec<Written>, moved: Vec<Moved>) {
        // The watchdog may have given up on this group, and told everybody so.
        if !self.shared.is_serving() {
            return;
        }
        for moved in &moved {
            match moved.retired {
                true => self.trimmer.whole(moved.node, moved.queue),
                false => self.trimmer.below(moved.queue, moved.next),
            }
        }
        let mut nodes = BTreeSet::new();
        let counters = &self.shared.counters;
        {
            let mut registry = self.shared.registry.lock();
            for it in written {
                registry.publish(it.node, it.queue, it.watermark, it.bytes_through, it.added);
                counters.enqueued_hints.fetch_add(it.added.hints, Relaxed);
                counters.enqueued_bytes.fetch_add(it.added.bytes, Relaxed);
                nodes.insert(it.node);
            }
            for moved in moved.iter().filter(|moved| moved.retired) {
                registry.drop_queue(moved.node, moved.queue);
            }
        }
        let in_flight = self.shared.take_in_flight();
        self.shared.inbox.expect_back(in_flight.len());
        for (id, done) in in_flight {
            done(Ok(id));
        }
        if !nodes.is_empty() {
            (self.shared.on_durable)(&nodes);
        }
    }
}
