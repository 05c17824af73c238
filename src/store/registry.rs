//! What is known of every node's queues in memory: cursors, watermarks, depth.
//!
//! One mutex guards it (see [`Shared`](super::shared::Shared)). The commit thread publishes what became durable, replay
//! advances cursors, everybody reads.

use std::collections::{BTreeMap, VecDeque};

use super::{
    clean::CleanQueue,
    cursor::{Cursor, Leave},
    keys::QueueRef,
};
use crate::{
    stats::Damage,
    types::{Amount, NodeId, QueueId, Sequence},
};

/// Damage beyond this is logged and counted, but no longer listed.
const DAMAGE_LISTED_MAX: usize = 1000;

#[derive(Debug, Default)]
pub struct Registry {
    pub nodes: BTreeMap<NodeId, NodeQueues>,
    pub damage: Vec<Damage>,
    pub damage_not_listed: u64,
}

/// A node's queues and what went through them since open.
#[derive(Debug, Default, Clone)]
pub struct NodeQueues {
    /// Drained in this order; only the last may take new hints.
    pub queues: VecDeque<Queue>,
    /// Stored since open.
    pub enqueued: Amount,
    /// Taken by the node since open.
    pub delivered: Amount,
    /// Gone undelivered since open.
    pub lost: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Its keys.
    pub at: QueueRef,
    /// May be ahead of the one on disk by what the next group will write.
    pub cursor: Cursor,
    /// The watermark: the last sequence known to be fsynced.
    pub watermark: Sequence,
    /// Payload bytes of all hints up to the watermark.
    pub bytes: u64,
    /// Takes no new hints: it was there before an unclean stop.
    pub sealed: bool,
}

impl Queue {
    pub fn pending(&self) -> Amount {
        Amount {
            hints: (self.watermark.0 + 1).saturating_sub(self.cursor.next.0),
            bytes: self.bytes.saturating_sub(self.cursor.bytes_below()),
        }
    }

    pub fn is_drained(&self) -> bool {
        self.cursor.next > self.watermark
    }
}

impl NodeQueues {
    /// Durable and not yet acknowledged.
    pub fn pending(&self) -> Amount {
        self.queues
            .iter()
            .fold(Amount::default(), |sum, queue| sum.plus(queue.pending()))
    }

    /// The first queue with something to replay.
    pub fn front(&self) -> Option<Queue> {
        self.queues
            .iter()
            .find(|queue| !queue.is_drained())
            .copied()
    }
}

impl Registry {
    /// A commit group made `added` more hints of `at` durable, up to `watermark`.
    pub fn publish(
        &mut self,
        node: NodeId,
        at: QueueRef,
        watermark: Sequence,
        bytes: u64,
        added: Amount,
    ) {
        let queues = self.nodes.entry(node).or_default();
        queues.enqueued = queues.enqueued.plus(added);
        match queues.queues.iter_mut().find(|queue| queue.at == at) {
            Some(queue) => {
                queue.watermark = watermark;
                queue.bytes = bytes;
            }
            None => queues.queues.push_back(Queue {
                at,
                cursor: Cursor::start(),
                watermark,
                bytes,
                sealed: false,
            }),
        }
    }

    pub fn queue(&self, node: NodeId, at: QueueRef) -> Option<Queue> {
        let queues = &self.nodes.get(&node)?.queues;
        queues.iter().find(|queue| queue.at == at).copied()
    }

    /// Moves a cursor behind `through`, never above the watermark. Returns what left the queue.
    pub fn advance(
        &mut self,
        node: NodeId,
        at: QueueRef,
        through: Sequence,
        bytes_through: u64,
        leave: Leave,
    ) -> Amount {
        let Some(queues) = self.nodes.get_mut(&node) else {
            return Amount::default();
        };
        let Some(queue) = queues.queues.iter_mut().find(|queue| queue.at == at) else {
            return Amount::default();
        };
        if through > queue.watermark {
            return Amount::default();
        }
        let left = queue
            .cursor
            .advance(through, bytes_through.min(queue.bytes), leave);
        let account = match leave {
            Leave::Delivered => &mut queues.delivered,
            Leave::Lost => &mut queues.lost,
        };
        *account = account.plus(left);
        left
    }

    pub fn drop_queue(&mut self, node: NodeId, at: QueueRef) {
        if let Some(queues) = self.nodes.get_mut(&node) {
            queues.queues.retain(|queue| queue.at != at);
        }
    }

    pub fn note_damage(&mut self, damage: Damage) {
        tracing::error!(
            node = damage.node.0, queue = damage.queue.0, what = %damage.what,
            first_lost = damage.lost.map(|(first, _)| first.0),
            last_lost = damage.lost.map(|(_, last)| last.0),
            "damage found in the store"
        );
        self.list_damage(damage);
    }

    pub fn list_damage(&mut self, damage: Damage) {
        if self.damage.len() < DAMAGE_LISTED_MAX {
            self.damage.push(damage);
        } else {
            self.damage_not_listed += 1;
        }
    }

    /// The lowest id of all queues that are not durably retired.
    pub fn lowest_queue(&self) -> Option<QueueId> {
        let queues = self.nodes.values().flat_map(|node| &node.queues);
        queues.map(|queue| queue.at.queue).min()
    }

    /// What the `CLEAN` file says of every queue.
    pub fn clean_queues(&self) -> Vec<CleanQueue> {
        self.nodes
            .values()
            .flat_map(|node| &node.queues)
            .map(|queue| CleanQueue {
                queue: queue.at,
                next: Sequence(queue.watermark.0 + 1),
                bytes: queue.bytes,
                cursor: queue.cursor.next,
                cursor_bytes: queue.cursor.bytes_below(),
                sealed: queue.sealed,
            })
            .collect()
    }
}
