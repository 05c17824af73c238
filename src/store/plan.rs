//! What a group's hints become: sequences, blocks, and the spacers before these.

use std::collections::BTreeMap;

use super::{
    accept::Accepted,
    block::NewHint,
    committer::{Committer, Tail},
    encoder::EncodedBlock,
    encoding::Draft,
    in_flight::Owner,
    keys::{CHUNK_KEY_BYTES, Place, QueueRef},
    spacers::Spacing,
};
use crate::{
    error::StorageError,
    types::{HintId, NodeId, QueueId, Sequence},
};

/// The blocks of a group, encoded and not yet written.
#[derive(Default)]
pub struct Plan {
    pub blocks: Vec<(NodeId, EncodedBlock)>,
    /// Nodes whose block is the first of a new queue.
    pub new_queues: Vec<NodeId>,
    /// Keys of spacers that come before the blocks.
    pub spacers: Vec<[u8; CHUNK_KEY_BYTES]>,
}

impl Committer {
    /// Gives out sequences, and encodes a block a node, or two of a large group's largest.
    pub fn plan(
        &mut self,
        hints: Vec<(Owner, NodeId, NewHint)>,
        accepted: &mut Accepted,
    ) -> Result<Plan, StorageError> {
        let mut by_node: BTreeMap<NodeId, (Vec<Owner>, Vec<NewHint>)> = BTreeMap::new();
        for (owner, node, hint) in hints {
            let (owners, hints) = by_node.entry(node).or_default();
            owners.push(owner);
            hints.push(hint);
        }
        let mut plan = Plan::default();
        let mut drafts = Vec::with_capacity(by_node.len());
        for (node, (owners, hints)) in by_node {
            if !self.tails.contains_key(&node) {
                plan.new_queues.push(node);
            }
            drafts.push(self.draft(node, owners, hints, accepted));
        }
        plan.blocks = self.encoding.encode(drafts)?;
        for (node, block) in &plan.blocks {
            if let Some(tail) = self.tails.get_mut(node) {
                let spacers = tail.spacing.before(tail.queue, &block.header);
                plan.spacers.extend(spacers);
            }
        }
        Ok(plan)
    }

    /// Gives out the sequences of a node's hints.
    fn draft(
        &mut self,
        node: NodeId,
        owners: Vec<Owner>,
        hints: Vec<NewHint>,
        accepted: &mut Accepted,
    ) -> Draft {
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
        for ((owner, hint), id) in owners.iter().zip(&hints).zip(ids.clone()) {
            if let Some(letter) = accepted.redriven.remove(owner) {
                let now = Place {
                    queue: tail.queue,
                    sequence: id.sequence,
                };
                self.point_to(accepted, letter, now, hint.payload.len() as u64);
            }
        }
        self.shared.in_flight.identify(owners.into_iter().zip(ids));
        let draft = Draft {
            node,
            queue: tail.queue,
            first: tail.next,
            bytes_before: tail.bytes,
            hints,
            with_body: self.shared.recent.is_waited_for(node),
        };
        tail.next = Sequence(tail.next.0 + draft.hints.len() as u64);
        tail.bytes += draft.payload_bytes();
        self.tails.insert(node, tail);
        draft
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
            spacing: Spacing::default(),
        }
    }
}
