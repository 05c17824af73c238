//! What of a node's queues is held: it is claimed, and all that is behind it waits.

use std::ops::RangeInclusive;

use crate::{
    store::{
        format::{
            cursor::Leave,
            keys::{Place, QueueRef},
        },
        state::{
            held_hints::{HeldHint, HoldId},
            queue::{NodeQueues, Queue, Stretch},
            registry::Registry,
        },
    },
    types::{Amount, NodeId, Sequence, ShardId},
};

/// What the end of a hold did.
pub struct Ended {
    /// The node that the queue of the hint is drained for.
    pub node: NodeId,
    pub queue: QueueRef,
    /// What left.
    pub left: Amount,
}

impl Registry {
    /// The hints of a queue that are held and there, in order.
    fn held_in<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = &'a HeldHint> {
        let pending = (!queue.is_drained()).then_some(queue.cursor.next..=queue.watermark);
        let held = pending.map(|pending| self.held.within(queue.at, pending));
        held.into_iter().flatten()
    }

    /// Claims what is held of a queue that can be seen from now on: nobody else lets it leave.
    /// Returns how many hints that is.
    pub fn claim_held(
        &mut self,
        node: NodeId,
        at: QueueRef,
        seen: RangeInclusive<Sequence>,
    ) -> u64 {
        let queues = self.nodes.get_mut(&node);
        let queue = queues.and_then(|it| it.queues.iter_mut().find(|queue| queue.at == at));
        let Some(queue) = queue.filter(|_| !seen.is_empty()) else {
            return 0;
        };
        let mut claimed = 0;
        for hint in self.held.within(at, seen) {
            if !queue.cursor.is_gone(hint.place.sequence) {
                queue.claimed.insert(hint.place.sequence);
                claimed += 1;
            }
        }
        claimed
    }

    /// Claims what is held of a node whose queues were found, or came from another: all claims of
    /// theirs were forgotten.
    pub fn claim_all_held(&mut self, node: NodeId) {
        let queues = self.nodes.get(&node);
        let queues = queues.into_iter().flat_map(|it| &it.queues);
        let all: Vec<_> = queues.map(|queue| (queue.at, queue.watermark)).collect();
        for (at, watermark) in all {
            self.claim_held(node, at, Sequence(1)..=watermark);
        }
    }

    /// How many of a shard's next hints, which are in the order of the node's queues, are in front
    /// of its first held one.
    pub fn in_front(&self, node: NodeId, shard: ShardId, hints: &[Place]) -> usize {
        let (false, Some(queues)) = (self.held.hints.is_empty(), self.nodes.get(&node)) else {
            return hints.len();
        };
        let queues = || (0_usize..).zip(&queues.queues);
        let first_held = queues().find_map(|(index, queue)| {
            let held = self.held_in(queue).find(|held| held.shard == shard)?;
            Some((index, held.place.sequence))
        });
        let Some(first_held) = first_held else {
            return hints.len();
        };
        let is_behind = |hint: &Place| {
            // A queue that is not there any more was drained.
            let known = queues().find(|(_, queue)| queue.at == hint.queue);
            known.is_some_and(|(index, _)| (index, hint.sequence) >= first_held)
        };
        let end = hints.iter().position(is_behind);
        end.unwrap_or(hints.len())
    }

    /// What is there to read for those who take a node's hints in order: up to the first that is
    /// held.
    pub fn stretch_in_order(&self, node: NodeId) -> Option<Stretch> {
        let queues = self.nodes.get(&node)?;
        let mut stretch = queues.stretch(None)?;
        let queue = queues.queues.iter().find(|it| it.at == stretch.at)?;
        if let Some(held) = self.held_in(queue).next() {
            stretch.watermark = Sequence(held.place.sequence.0.saturating_sub(1));
        }
        (stretch.from <= stretch.watermark).then_some(stretch)
    }

    /// Where the hint of a hold stands, and the node that its queue is drained for.
    pub fn place_of(&self, id: HoldId) -> Option<(NodeId, Place)> {
        let place = (*self.held.places.get(&id)?)?;
        let holds = |queues: &NodeQueues| queues.queues.iter().any(|queue| queue.at == place.queue);
        let mut nodes = self.nodes.iter();
        let (node, _) = nodes.find(|(_, queues)| holds(queues))?;
        Some((*node, place))
    }

    /// Ends a hold; its hint leaves, or is as any other. `None` if it has none, or none whose queue
    /// is there.
    pub fn let_go(&mut self, id: HoldId, leave: Option<Leave>) -> Option<Ended> {
        let HeldHint {
            place,
            payload_bytes,
            ..
        } = self.held.end(id)?;
        let holds = |queues: &NodeQueues| queues.queues.iter().any(|queue| queue.at == place.queue);
        let mut nodes = self.nodes.iter();
        let (node, _) = nodes.find(|(_, queues)| holds(queues))?;
        let node = *node;
        let queue = self.queue_mut(node, place.queue)?;
        queue.claimed.remove(&place.sequence);
        let left = leave.map(|leave| self.leave_from(node, [(place, payload_bytes)], leave));
        Some(Ended {
            node,
            queue: place.queue,
            left: left.unwrap_or_default(),
        })
    }
}
