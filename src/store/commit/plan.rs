//! What a group's hints become: sequences, blocks of their queues or WAL records, and the padding
//! keys before these.

use std::collections::BTreeMap;

use crate::{
    error::StorageError,
    store::{
        commit::{
            accepted::Accepted,
            committer::{Committer, Tail},
            encode_pool::Job,
        },
        engine::leaf_padding::LeafPadding,
        format::{
            block::Hint,
            encoder::EncodedBlock,
            keys::{CHUNK_KEY_BYTES, Place, QueueRef},
            peeked::{Mark, PeekedHint},
            run::Draft,
            wal_record::WalDraft,
        },
        pipeline::{
            batch::{HintKind, NewHint},
            inbox::Dirty,
            ticket::Owner,
        },
        state::held_hints::HeldHint,
    },
    types::{HintId, NodeId, QueueId, Sequence},
};

/// Hints of a node that take more than this are a block of their own.
const WAL_BELOW_BYTES: usize = 16 * 1024;

/// What left a queue above its cursor is a list that is stored as one value (docs/sled.md rule 3).
/// What a node takes beyond a bound is left out there; hints that leave with the group that stores
/// them, and held ones, may be any number, so a queue whose list has this many ranges gets no more
/// of them.
const RANGES_OF_NEW_MAX: usize = 1000;

/// The blocks of a group, encoded and not yet written.
#[derive(Default)]
pub struct Plan {
    pub blocks: Vec<(Job, EncodedBlock)>,
    /// Nodes whose block is the first of a new queue.
    pub new_queues: Vec<NodeId>,
    /// Queues that take no new hints from now on.
    pub ended: Vec<Dirty>,
    /// Padding keys that come before the blocks.
    pub padding: Vec<[u8; CHUNK_KEY_BYTES]>,
}

/// What a group brings for a node.
#[derive(Default)]
struct OfNode {
    owners: Vec<(Owner, HintKind)>,
    hints: Vec<Hint>,
}

impl Committer {
    /// Gives out sequences, and encodes a block a node, or WAL records of nodes that have little.
    pub fn plan(
        &mut self,
        hints: Vec<(Owner, NewHint)>,
        accepted: &mut Accepted,
    ) -> Result<Plan, StorageError> {
        let mut by_node: BTreeMap<NodeId, OfNode> = BTreeMap::new();
        for (owner, NewHint { node, hint, kind }) in hints {
            let of_node = by_node.entry(node).or_default();
            of_node.owners.push((owner, kind));
            of_node.hints.push(hint);
        }
        let mut plan = Plan::default();
        let mut drafts = Vec::with_capacity(by_node.len());
        for (node, of_node) in by_node {
            let may_leave_a_hole = |(_, kind): &(Owner, HintKind)| {
                matches!(kind, HintKind::Held(_) | HintKind::Undelivered(_))
            };
            if of_node.owners.iter().any(may_leave_a_hole) {
                plan.ended.extend(self.end_long_queue(node, accepted));
            }
            if !self.tails.contains_key(&node) {
                plan.new_queues.push(node);
            }
            drafts.push(self.draft(node, of_node, accepted)?);
        }
        let jobs = match accepted.is_plain() {
            true => self.gather_in_wal(drafts),
            // Its blocks are part of a transaction.
            false => drafts.into_iter().map(Job::Block).collect(),
        };
        plan.blocks = self.encoding.encode(jobs)?;
        for (job, block) in &plan.blocks {
            let padding = match job {
                Job::Wal(_) => Some(&mut self.flushing.padding),
                Job::Block(draft) | Job::Flush(draft) => {
                    let tail = self.tails.get_mut(&draft.node);
                    let tail = tail.filter(|tail| tail.queue == block.queue);
                    tail.map(|tail| &mut tail.padding)
                }
            };
            let keys = padding.map(|it| it.before(block.queue, &block.header));
            plan.padding.extend(keys.into_iter().flatten());
        }
        Ok(plan)
    }

    /// Where several nodes have little, that is one WAL record; and some of what is in earlier
    /// ones is flushed.
    fn gather_in_wal(&mut self, mut drafts: Vec<Draft>) -> Vec<Job> {
        let is_little = |draft: &mut Draft| draft.bytes() < WAL_BELOW_BYTES;
        let mut runs: Vec<Draft> = drafts.extract_if(.., is_little).collect();
        if runs.len() == 1 {
            drafts.append(&mut runs);
        }
        let brought = runs.iter().map(Draft::bytes).sum();
        let mut jobs = self.flush_some(brought);
        if !runs.is_empty() {
            let wal = WalDraft {
                first: self.flushing.next,
                runs,
            };
            self.flushing.next = Sequence(wal.first.0 + wal.hints());
            jobs.push(Job::Wal(wal));
        }
        jobs.extend(drafts.into_iter().map(Job::Block));
        jobs
    }

    /// Gives out the sequences of a node's hints.
    fn draft(
        &mut self,
        node: NodeId,
        OfNode { owners, hints }: OfNode,
        accepted: &mut Accepted,
    ) -> Result<Draft, StorageError> {
        let mut tail = match self.tails.get(&node) {
            Some(tail) => *tail,
            None => self.new_tail(node),
        };
        let store = self.shared.store;
        let ids = (tail.next.0..).map(|sequence| HintId {
            store,
            queue: tail.queue.queue,
            sequence: Sequence(sequence),
        });
        let mut bytes_through = tail.bytes;
        for (((_, kind), hint), id) in owners.iter().zip(&hints).zip(ids.clone()) {
            let place = Place {
                queue: tail.queue,
                sequence: id.sequence,
            };
            bytes_through += hint.payload_bytes();
            match kind {
                HintKind::Pending | HintKind::Rehinted(_) => {}
                HintKind::Held(hold) => {
                    let held = HeldHint {
                        place,
                        shard: hint.shard,
                        payload_bytes: hint.payload_bytes(),
                    };
                    // Before anything is written: a reopen may find it although its group failed.
                    self.shared.registry.lock().held.identify(*hold, held);
                }
                HintKind::Undelivered(fate) => {
                    let mark = Mark {
                        queue: tail.queue,
                        sequence: id.sequence,
                        bytes_through,
                    };
                    let hint = hint.clone();
                    self.leave_at_once(accepted, node, PeekedHint { mark, hint }, fate)?;
                }
                HintKind::Redriven(letter) => {
                    self.point_to(accepted, *letter, place, hint.payload_bytes());
                }
            }
        }
        let owners = owners.into_iter().map(|(owner, _)| owner);
        self.shared.tickets.identify(owners.zip(ids));
        let draft = Draft {
            node,
            queue: tail.queue,
            first: tail.next,
            bytes_before: tail.bytes,
            hints,
            with_body: self.shared.recent.is_waited_for(node),
        };
        tail.next = Sequence(tail.next.0 + draft.hints.len() as u64);
        tail.bytes = draft.bytes_through();
        self.tails.insert(node, tail);
        Ok(draft)
    }

    /// Lets the node's next hint begin a new queue if its last one can take none that leaves past
    /// others. Returns that one.
    fn end_long_queue(&mut self, node: NodeId, accepted: &Accepted) -> Option<Dirty> {
        let tail = self.tails.get(&node)?;
        let ranges = match accepted.cursors.get(&(node, tail.queue)) {
            Some(cursor) => cursor.above.len(),
            None => self.shared.registry.lock().ranges_of(node, tail.queue),
        };
        if ranges < RANGES_OF_NEW_MAX {
            return None;
        }
        let ended = self.tails.remove(&node);
        ended.map(|tail| (node, tail.queue))
    }

    /// docs/sled.md rule 16: queue ids come from a counter of our own.
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
            padding: LeafPadding::default(),
        }
    }
}
