//! What is known of every node's queues in memory: cursors, watermarks, depth.
//!
//! One mutex guards it (see [`Shared`](crate::store::pipeline::shared::Shared)). The commit thread
//! publishes what became durable, replay advances cursors, everybody reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    stats::Damage,
    store::{
        format::{
            cursor::Leave,
            keys::{Place, QueueRef},
            peeked::PeekedHint,
            shutdown_summary::CleanQueue,
        },
        state::{
            ages::{self, Ages},
            held_hints::HeldHints,
            limits::{Full, Limits, Quota, Wanted},
            queue::{NodeQueues, Queue},
        },
    },
    types::{Amount, NodeId, QueueId, Sequence},
};

/// Damage beyond this is logged and counted, but no longer listed.
const DAMAGE_LISTED_MAX: usize = 1000;

#[derive(Debug, Default)]
pub struct Registry {
    pub nodes: BTreeMap<NodeId, NodeQueues>,
    pub damage: Vec<Damage>,
    pub damage_not_listed: u64,
    /// What is pending in all, and the limits of that.
    pub quota: Quota,
    /// Since when the hints of each queue wait, as far as that is known.
    pub ages: BTreeMap<QueueRef, Ages>,
    /// Hints that only their holders let leave.
    pub held: HeldHints,
    /// Copies that were neither sent nor stored since open, by node. Apart from the nodes, since
    /// one that has only these has no queues and is none that the store knows.
    pub not_stored: BTreeMap<NodeId, Amount>,
    /// How often the store was opened again before this was found; all claims were forgotten each
    /// time.
    pub reopens: u64,
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
                let before = queue.pending();
                queue.watermark = watermark;
                queue.bytes = bytes;
                self.quota.changed(before, queue.pending());
            }
            None => {
                // Only the last one takes hints.
                queues.queues.iter_mut().for_each(|it| it.closed = true);
                let queue = Queue::new(at, watermark, bytes);
                self.quota.changed(Amount::default(), queue.pending());
                queues.queues.push_back(queue);
            }
        }
    }

    pub fn queue(&self, node: NodeId, at: QueueRef) -> Option<Queue> {
        self.look_at(node, at).cloned()
    }

    /// A queue of a node, as it is now.
    pub fn look_at(&self, node: NodeId, at: QueueRef) -> Option<&Queue> {
        let queues = &self.nodes.get(&node)?.queues;
        queues.iter().find(|queue| queue.at == at)
    }

    /// How many ranges left above the cursor of a queue.
    pub fn ranges_of(&self, node: NodeId, at: QueueRef) -> usize {
        let queue = self.look_at(node, at);
        queue.map_or(0, |queue| queue.cursor.above.len())
    }

    /// A queue as a group writes its cursor.
    pub fn stored(&self, node: NodeId, at: QueueRef) -> Option<Queue> {
        let mut queues = self.nodes.get(&node)?.queues.iter();
        queues.find(|queue| queue.at == at).map(|queue| Queue {
            cursor: queue.cursor.stored(),
            claimed: BTreeSet::new(),
            ..*queue
        })
    }

    pub fn queue_mut(&mut self, node: NodeId, at: QueueRef) -> Option<&mut Queue> {
        self.nodes.get_mut(&node)?.queue_mut(at)
    }

    /// A queue, whichever node it is drained for; mostly the one in its keys.
    pub fn find(&self, at: QueueRef) -> Option<Queue> {
        let elsewhere = || self.nodes.keys().find_map(|node| self.queue(*node, at));
        self.queue(at.node, at).or_else(elsewhere)
    }

    fn numbered(&self, node: NodeId, queue: QueueId) -> Option<&Queue> {
        let mut queues = self.nodes.get(&node)?.queues.iter();
        queues.find(|it| it.at.queue == queue)
    }

    /// Whether a hint has left its queue, and with it every older one of its shard there, or the
    /// queue its node.
    ///
    /// Replay lets the hints of a shard leave in order. Limits and the host's own hand do not: they
    /// pass over those that are being sent, which stay if that fails. So of what they may have
    /// taken, this says so only once all of the queue up to there is gone.
    pub fn is_gone_in_order(&self, node: NodeId, queue: QueueId, sequence: Sequence) -> bool {
        let queue = self.numbered(node, queue);
        queue.is_none_or(|queue| match sequence <= queue.limited_through {
            true => sequence < queue.cursor.next,
            false => queue.cursor.is_gone(sequence),
        })
    }

    /// Whether every hint up to this one has.
    pub fn is_gone_through(&self, node: NodeId, queue: QueueId, sequence: Sequence) -> bool {
        let queue = self.numbered(node, queue);
        queue.is_none_or(|queue| sequence < queue.cursor.next)
    }

    /// Claims those hints that are pending and nobody else's, and keeps only them in the list.
    pub fn claim(&mut self, node: NodeId, hints: &mut Vec<PeekedHint>) {
        let Some(queues) = self.nodes.get_mut(&node) else {
            return hints.clear();
        };
        hints.retain(|hint| {
            let Place { queue, sequence } = hint.mark.place();
            queues.queue_mut(queue).is_some_and(|queue| {
                !queue.cursor.is_gone(sequence) && queue.claimed.insert(sequence)
            })
        });
    }

    /// A limit is about to let claimed hints leave.
    pub fn note_limited(&mut self, node: NodeId, hints: &[PeekedHint]) {
        let Some(queues) = self.nodes.get_mut(&node) else {
            return;
        };
        for hint in hints {
            let Place { queue, sequence } = hint.mark.place();
            if let Some(queue) = queues.queue_mut(queue) {
                queue.limited_through = queue.limited_through.max(sequence);
            }
        }
    }

    /// Gives hints back that were claimed.
    pub fn release(&mut self, node: NodeId, hints: &[PeekedHint]) {
        let Some(queues) = self.nodes.get_mut(&node) else {
            return;
        };
        for hint in hints {
            let Place { queue, sequence } = hint.mark.place();
            if let Some(queue) = queues.queue_mut(queue) {
                queue.claimed.remove(&sequence);
            }
        }
    }

    /// Lets hints leave, wherever they stand; they are claimed no longer. Returns what left.
    pub fn leave(&mut self, node: NodeId, hints: &[PeekedHint], leave: Leave) -> Amount {
        let hints = hints.iter();
        let hints = hints.map(|hint| (hint.mark.place(), hint.hint.payload_bytes()));
        self.leave_from(node, hints, leave)
    }

    /// The same of hints of which only the place and the payload bytes are known.
    pub fn leave_from(
        &mut self,
        node: NodeId,
        hints: impl IntoIterator<Item = (Place, u64)>,
        leave: Leave,
    ) -> Amount {
        let mut left = Amount::default();
        let Some(queues) = self.nodes.get_mut(&node) else {
            return left;
        };
        for (Place { queue, sequence }, bytes) in hints {
            let Some(queue) = queues.queue_mut(queue) else {
                continue;
            };
            queue.claimed.remove(&sequence);
            if sequence <= queue.watermark {
                let before = queue.pending();
                left = left.plus(queue.cursor.leave(sequence, bytes, leave));
                self.quota.changed(before, queue.pending());
            }
        }
        queues.count(left, leave);
        left
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
        let Some(queue) = queues.queue_mut(at) else {
            return Amount::default();
        };
        if through > queue.watermark {
            return Amount::default();
        }
        let (bytes_through, before) = (bytes_through.min(queue.bytes), queue.pending());
        let left = queue.cursor.advance(through, bytes_through, leave);
        self.quota.changed(before, queue.pending());
        queue.claimed = queue.claimed.split_off(&queue.cursor.next);
        queues.count(left, leave);
        left
    }

    pub fn drop_queue(&mut self, node: NodeId, at: QueueRef) {
        if let Some(queues) = self.nodes.get_mut(&node) {
            if let Some(queue) = queues.queue_mut(at) {
                self.quota.changed(queue.pending(), Amount::default());
            }
            queues.queues.retain(|queue| queue.at != at);
        }
        self.ages.remove(&at);
    }

    /// Forgets a node; returns what it had.
    pub fn remove(&mut self, node: NodeId) -> Option<NodeQueues> {
        let removed = self.nodes.remove(&node)?;
        self.not_stored.remove(&node);
        self.quota.changed(removed.pending(), Amount::default());
        for queue in &removed.queues {
            self.ages.remove(&queue.at);
        }
        Some(removed)
    }

    /// Says what the limits are, and counts anew what they count.
    pub fn limit(&mut self, limits: Limits) {
        self.quota.limits = limits;
        self.recount();
    }

    /// Counts anew what the limits count: queues were found rather than filled.
    pub fn recount(&mut self) {
        self.quota.pending = self.sum();
        self.quota.freed = true;
    }

    fn sum(&self) -> Amount {
        let nodes = self.nodes.values().map(NodeQueues::pending);
        nodes.fold(Amount::default(), Amount::plus)
    }

    /// Promises room for hints, each node once, in the place of what leaves with them, or says
    /// which limit has none.
    pub fn reserve(&mut self, wanted: &[(NodeId, Amount)], leaving: Amount) -> Result<(), Full> {
        debug_assert_eq!(self.quota.pending, self.sum(), "the account is off");
        let pending = |node| self.nodes.get(node).map(NodeQueues::pending);
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|(node, amount)| Wanted {
                node: *node,
                amount: *amount,
                pending: pending(node).unwrap_or_default(),
            })
            .collect();
        self.quota.reserve(&wanted, leaving)
    }

    /// A block was stored: from `first` on, no hint of it was enqueued before `unix_ms`, nor has a
    /// lifetime that ends before `due_unix_ms`.
    pub fn note_stored(
        &mut self,
        node: NodeId,
        at: QueueRef,
        first: Sequence,
        unix_ms: u64,
        due_unix_ms: u64,
    ) {
        let queues = self.nodes.get(&node).map(|node| &node.queues);
        let queue = queues.and_then(|queues| queues.iter().find(|queue| queue.at == at));
        if let Some(queue) = queue {
            let ages = self.ages.entry(at).or_default();
            ages.push(first, unix_ms, due_unix_ms, queue.cursor.next);
        }
    }

    /// A hint was read, which was enqueued at `unix_ms`.
    pub fn note_read(&mut self, node: NodeId, place: Place, unix_ms: u64) {
        let queues = self.nodes.get(&node).map(|node| &node.queues);
        let queue = queues.and_then(|queues| queues.iter().find(|it| it.at == place.queue));
        if let Some(queue) = queue {
            let ages = self.ages.entry(place.queue).or_default();
            ages.read(place.sequence, unix_ms, queue.cursor.next);
        }
    }

    /// All that is pending, as the marks of its age divide it: node, queue, the next sequence of
    /// the queue, and which hints.
    pub fn stretches(&self) -> impl Iterator<Item = (NodeId, QueueRef, Sequence, ages::Stretch)> {
        const NONE: &Ages = &Ages::new();
        let queues = self.nodes.iter();
        let queues =
            queues.flat_map(|(node, it)| it.queues.iter().map(move |queue| (*node, queue)));
        let queues = queues.filter(|(_, queue)| !queue.is_drained());
        queues.flat_map(|(node, queue)| {
            let ages = self.ages.get(&queue.at).unwrap_or(NONE);
            let next = Sequence(queue.watermark.0.saturating_add(1));
            let stretches = ages.stretches(queue.cursor.next);
            let stretches = stretches.filter(move |it| it.from < next);
            stretches.map(move |it| (node, queue.at, next, it))
        })
    }

    /// When the node's oldest pending hint was enqueued, or a moment before that.
    pub fn oldest(&self, node: NodeId) -> Option<u64> {
        let queues = &self.nodes.get(&node)?.queues;
        let waiting = queues.iter().filter(|queue| !queue.is_drained());
        let known = waiting.filter_map(|queue| self.ages.get(&queue.at)?.at(queue.cursor.next));
        known.min()
    }

    /// The first hint from a place on that is nobody's, and when it was enqueued, or a moment
    /// before that.
    pub fn unclaimed(&self, node: NodeId, from: Option<Place>) -> Option<(Place, Option<u64>)> {
        let place = self.nodes.get(&node)?.unclaimed(from)?;
        let ages = self.ages.get(&place.queue);
        Some((place, ages.and_then(|ages| ages.at(place.sequence))))
    }

    pub fn note_damage(&mut self, damage: Damage) {
        tracing::error!(
            node = damage.node.0, queue = damage.queue.0, error = %damage.what,
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

    /// What the `CLEAN` file says of every queue: those of a node one behind the other, in their
    /// order.
    pub fn clean_queues(&self) -> Vec<CleanQueue> {
        self.nodes
            .iter()
            .flat_map(|(node, queues)| queues.queues.iter().map(move |queue| (*node, queue)))
            .map(|(node, queue)| CleanQueue {
                queue: queue.at,
                node,
                next: Sequence(queue.watermark.0 + 1),
                bytes: queue.bytes,
                cursor: queue.cursor.next,
                cursor_bytes: queue.cursor.bytes_below(),
                closed: queue.closed,
            })
            .collect()
    }
}
