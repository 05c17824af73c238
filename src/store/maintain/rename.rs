//! Renaming a node, or merging it into another: the other gets its queues, in one step.
//!
//! Of the queues of both the one that was begun first comes first, so that the hints of a node that
//! goes by another name for a while and comes back are sent in the order in which they came. Ids
//! are given out in that order.
//!
//! Nothing is copied. A queue keeps its keys, which name the node that its hints were first meant
//! for, its ids and its order; what changes is who lists it. Both records change in one
//! transaction, so a crash leaves all as it was or all as it is to be.
//!
//! Only the last queue of a node takes new hints, and after this the last one may be another node's
//! by its keys. So all of them are closed, and the next hint starts a new queue, under an id that
//! was never used.

use std::collections::BTreeSet;

use crate::{
    error::{HandoffError, StorageError},
    store::{
        commit::committer::Committer,
        engine::{rows::RowMap, table::IVec},
        failpoints::point,
        format::{keys::QueueRef, node_record::NodeRecord, node_status::Status},
        state::queue::NodeQueues,
    },
    types::{Amount, NodeId},
};

/// Queues that a record lists at most after a rename, lest it outgrow what one value may be
/// (docs/sled.md rule 3).
const QUEUES_MAX: usize = 3000;

impl Committer {
    pub fn rename_node(
        &mut self,
        from: NodeId,
        to: NodeId,
    ) -> Result<Result<Amount, HandoffError>, StorageError> {
        if from == to {
            return Ok(Err(HandoffError::SameNode { node: from }));
        }
        if !self.knows(from) {
            return Ok(Err(HandoffError::UnknownNode { node: from }));
        }
        // Cursors that moved are listed by their node.
        self.settle()?;
        let drained = self.drained(&[from, to]);
        let old = |node| self.records.get(&node).cloned().unwrap_or_default();
        let (tombstone, merged) = merge(old(from), self.knows(to), old(to), &drained);
        let queues = merged.live.len() + merged.retired.len() + merged.dead.len();
        if queues > QUEUES_MAX {
            return Ok(Err(HandoffError::TooManyQueues {
                node: to,
                queues,
                max: QUEUES_MAX,
            }));
        }
        self.write_both((from, &tombstone), (to, &merged))?;
        self.writer()?.commit()?;
        point("rename: durable")?;

        let is_new = !self.knows(to);
        for queue in &merged.retired {
            self.trimmer.whole(to, *queue);
        }
        self.records.insert(from, tombstone);
        self.records.insert(to, merged);
        for node in [from, to] {
            self.tails.remove(&node);
        }
        let mut holds = self.shared.holds.lock();
        if is_new {
            holds.rename(from, to);
        }
        holds.forget(from);
        drop(holds);
        Ok(Ok(self.move_queues(from, to, &drained)))
    }

    /// Queues of these nodes in which nothing is pending. They take no new hints any more, so they
    /// are done with.
    fn drained(&self, nodes: &[NodeId]) -> BTreeSet<QueueRef> {
        let registry = self.shared.registry.lock();
        let queues = nodes.iter().filter_map(|node| registry.nodes.get(node));
        let queues = queues
            .flat_map(|it| &it.queues)
            .filter(|it| it.is_drained());
        queues.map(|queue| queue.at).collect()
    }

    fn write_both(
        &mut self,
        from: (NodeId, &NodeRecord),
        to: (NodeId, &NodeRecord),
    ) -> Result<(), StorageError> {
        let records = [from, to].map(|(node, record)| {
            let key = IVec::from(&NodeRecord::key(node));
            (key, Some(record.encode(node).into()))
        });
        let mut rows = RowMap::from(records);
        rows.insert(IVec::from(&Status::key(from.0)), None);
        let engine = self.engine()?;
        self.writer()?.transact(&[(&engine.nodes, &rows)], 0)?;
        point("rename: records written")
    }

    /// In memory what is on disk by now. Returns what was pending in the queues that moved.
    fn move_queues(&mut self, from: NodeId, to: NodeId, drained: &BTreeSet<QueueRef>) -> Amount {
        let mut registry = self.shared.registry.lock();
        let moved = registry.nodes.remove(&from).unwrap_or_default();
        if let Some(copies) = registry.not_stored.remove(&from) {
            let count = registry.not_stored.entry(to).or_default();
            *count = count.plus(copies);
        }
        let pending = moved.pending();
        // An acknowledgement that came for `from` since the settling was listed for a node that has
        // no queues any more.
        let cursors = moved.queues.iter().map(|queue| (to, queue.at));
        self.dirty
            .extend(cursors.filter(|(_, at)| !drained.contains(at)));
        let known = registry.nodes.entry(to).or_default();
        absorb(known, moved);
        known.queues.retain(|queue| !drained.contains(&queue.at));
        registry.claim_all_held(to);
        drop(registry);
        // Nothing waits for `from` any more.
        self.shared.tell_leave();
        tracing::info!(
            node = from.0,
            to_node = to.0,
            hints = pending.hints,
            bytes = pending.bytes,
            "a node goes by another name"
        );
        pending
    }
}

/// What the records of both nodes are to be. Lists of what is to be trimmed, and of dead letters,
/// move along.
fn merge(
    from: NodeRecord,
    to_is_known: bool,
    to: NodeRecord,
    drained: &BTreeSet<QueueRef>,
) -> (NodeRecord, NodeRecord) {
    let both = |to: Vec<QueueRef>, from: Vec<QueueRef>| to.into_iter().chain(from);
    let (done, mut live): (Vec<_>, Vec<_>) =
        both(to.live, from.live).partition(|queue| drained.contains(queue));
    live.sort_by_key(|it| it.queue);
    let merged = NodeRecord {
        removed: false,
        live,
        retired: both(to.retired, from.retired).chain(done).collect(),
        dead: both(to.dead, from.dead).collect(),
        // A node that goes by a new name is the same node. One that is merged into another is that
        // one from now on.
        paused: if to_is_known { to.paused } else { from.paused },
        leaves: if to_is_known { to.leaves } else { from.leaves },
        parked_since: to.parked_since,
    };
    let tombstone = NodeRecord {
        removed: true,
        ..NodeRecord::default()
    };
    (tombstone, merged)
}

/// Puts the queues of one node among those of another, with what was counted of them.
fn absorb(to: &mut NodeQueues, mut from: NodeQueues) {
    for queue in &mut from.queues {
        // Whoever claimed hints under the old name gives them back under that, which nobody hears.
        // What is held is claimed anew.
        queue.claimed.clear();
    }
    to.letters.append(&mut from.letters);
    to.queues.append(&mut from.queues);
    let queues = to.queues.make_contiguous();
    queues.sort_by_key(|queue| queue.at.queue);
    for queue in &mut to.queues {
        queue.closed = true;
    }
    to.enqueued = to.enqueued.plus(from.enqueued);
    to.delivered = to.delivered.plus(from.delivered);
    to.dead_lettered = to.dead_lettered.plus(from.dead_lettered);
    to.lost = to.lost.plus(from.lost);
    to.withdrawn = to.withdrawn.plus(from.withdrawn);
    to.letters_evicted = to.letters_evicted.plus(from.letters_evicted);
}
