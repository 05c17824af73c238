//! What is known of every node's queues in memory: cursors, watermarks, depth.
//!
//! One mutex guards it (see [`Shared`](crate::store::pipeline::shared::Shared)). The commit thread
//! publishes what became durable, replay advances cursors, everybody reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    stats::Damage,
    store::{
        format::{
            cursor::{Cursor, Leave},
            dead_letter_count::{self, LetterTallies},
            keys::{Place, QueueRef},
            node_status::Status,
            peeked::PeekedHint,
            ranges::Range,
            shutdown_summary::CleanQueue,
        },
        state::{
            ages::{self, Ages},
            held_hints::HeldHints,
            limits::{Full, Limits, Quota, Wanted},
        },
    },
    types::{Amount, NodeId, QueueId, Sequence},
};

/// Damage beyond this is logged and counted, but no longer listed.
const DAMAGE_LISTED_MAX: usize = 1000;
/// Ranges that left, of a stretch. It ends there if there are more.
const GONE_MAX: usize = 4096;

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

/// A node's queues and what went through them since open.
#[derive(Debug, Default, Clone)]
pub struct NodeQueues {
    /// Drained in this order; only the last may take new hints.
    pub queues: VecDeque<Queue>,
    /// Its dead letters, by queue: those too of which nothing else is left.
    pub letters: LetterTallies,
    /// How delivery goes.
    pub status: Status,
    /// Stored since open.
    pub enqueued: Amount,
    /// Taken by the node since open.
    pub delivered: Amount,
    /// Moved to dead letters since open.
    pub buried: Amount,
    /// Gone undelivered since open.
    pub lost: Amount,
    /// Gone since open because their writes were refused.
    pub withdrawn: Amount,
    /// Dead letters that made room for newer ones since open.
    pub letters_evicted: Amount,
    /// What limits did since open.
    pub limited: Limited,
}

/// What limits did to a node's hints since open.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Left because they were too old.
    pub expired: Amount,
    /// Left to make room.
    pub dropped: Amount,
    /// Not taken in for want of room.
    pub refused: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its keys.
    pub at: QueueRef,
    /// May be ahead of the one on disk by what the next group will write.
    pub cursor: Cursor,
    /// The watermark: the last sequence known to be fsynced.
    pub watermark: Sequence,
    /// Payload bytes of all hints up to the watermark.
    pub bytes: u64,
    /// Takes no new hints: it was there before an unclean stop, or before another queue of its
    /// node.
    pub sealed: bool,
    /// Hints that somebody is about to let leave, or holds: nobody else may let them leave.
    pub claimed: BTreeSet<Sequence>,
    /// Limits took hints up to here, perhaps past older ones of their shards that were claimed.
    pub limited_through: Sequence,
}

/// A queue from some hint on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub at: QueueRef,
    pub from: Sequence,
    /// The last one that is durable.
    pub watermark: Sequence,
    /// What left in between.
    pub gone: Vec<Range>,
}

impl Queue {
    /// A queue in which nothing is known to have left.
    pub fn new(at: QueueRef, watermark: Sequence, bytes: u64) -> Self {
        Queue {
            at,
            cursor: Cursor::start(),
            watermark,
            bytes,
            sealed: false,
            claimed: BTreeSet::new(),
            limited_through: Sequence(0),
        }
    }

    pub fn pending(&self) -> Amount {
        if self.is_drained() {
            return Amount::default();
        }
        let below = (self.watermark.0 + 1).saturating_sub(self.cursor.next.0);
        Amount {
            hints: below.saturating_sub(self.cursor.gone_above().hints),
            bytes: self.bytes.saturating_sub(self.cursor.gone().bytes),
        }
    }

    pub fn is_drained(&self) -> bool {
        self.cursor.next > self.watermark
    }
}

impl NodeQueues {
    fn queue_mut(&mut self, at: QueueRef) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.at == at)
    }

    fn count(&mut self, left: Amount, leave: Leave) {
        let account = match leave {
            Leave::Delivered => &mut self.delivered,
            Leave::Dead => &mut self.buried,
            Leave::Lost => &mut self.lost,
            Leave::Withdrawn => &mut self.withdrawn,
        };
        *account = account.plus(left);
    }

    /// Durable and not yet acknowledged.
    pub fn pending(&self) -> Amount {
        self.queues
            .iter()
            .fold(Amount::default(), |sum, queue| sum.plus(queue.pending()))
    }

    /// Its dead letters.
    pub fn letters(&self) -> Amount {
        dead_letter_count::sum(&self.letters)
    }

    /// Hints that somebody is about to let leave.
    pub fn in_flight(&self) -> u64 {
        self.queues
            .iter()
            .map(|queue| queue.claimed.len() as u64)
            .sum()
    }

    /// Whether anything is.
    pub fn has_pending(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_drained())
    }

    /// The first pending hint from a place on that nobody has claimed.
    fn unclaimed(&self, from: Option<Place>) -> Option<Place> {
        let known = from.and_then(|place| self.queues.iter().position(|it| it.at == place.queue));
        let queues = self.queues.iter().skip(known.unwrap_or(0));
        queues.into_iter().find_map(|queue| {
            let at_least = match (known, from) {
                (Some(_), Some(place)) if place.queue == queue.at => place.sequence,
                _ => Sequence(1),
            };
            let mut next = queue.cursor.next.max(at_least);
            let mut claimed = queue.claimed.range(next..).peekable();
            loop {
                if let Some(gone) = queue.cursor.gone_with(next) {
                    next = Sequence(gone.last.0.saturating_add(1));
                    continue;
                }
                while claimed.next_if(|claimed| **claimed < next).is_some() {}
                match claimed.next_if(|claimed| **claimed == next) {
                    Some(_) => next = Sequence(next.0.saturating_add(1)),
                    None => break,
                }
            }
            let place = Place {
                queue: queue.at,
                sequence: next,
            };
            (next <= queue.watermark).then_some(place)
        })
    }

    /// What is there to read from a place on, or from the head of the first queue with anything in
    /// it.
    pub fn stretch(&self, from: Option<Place>) -> Option<Stretch> {
        // A queue that is gone by now was drained, and what came before it too.
        let known = from.and_then(|place| self.queues.iter().position(|it| it.at == place.queue));
        let queues = self.queues.iter().skip(known.unwrap_or(0));
        queues.into_iter().find_map(|queue| {
            let at_least = match (known, from) {
                (Some(_), Some(place)) if place.queue == queue.at => place.sequence,
                _ => Sequence(1),
            };
            let from = queue.cursor.next.max(at_least);
            let from = match queue.cursor.gone_with(from) {
                Some(gone) => Sequence(gone.last.0.saturating_add(1)),
                None => from,
            };
            // No more than a read may want.
            let gone: Vec<_> = queue.cursor.gone_from(from).take(GONE_MAX).collect();
            let end = gone.last().filter(|_| gone.len() == GONE_MAX);
            let watermark = end.map_or(queue.watermark, |it| it.last.min(queue.watermark));
            (from <= queue.watermark).then_some(Stretch {
                at: queue.at,
                from,
                watermark,
                gone,
            })
        })
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
                let before = queue.pending();
                queue.watermark = watermark;
                queue.bytes = bytes;
                self.quota.changed(before, queue.pending());
            }
            None => {
                // Only the last one takes hints.
                queues.queues.iter_mut().for_each(|it| it.sealed = true);
                let queue = Queue::new(at, watermark, bytes);
                self.quota.changed(Amount::default(), queue.pending());
                queues.queues.push_back(queue);
            }
        }
    }

    pub fn queue(&self, node: NodeId, at: QueueRef) -> Option<Queue> {
        let queues = &self.nodes.get(&node)?.queues;
        queues.iter().find(|queue| queue.at == at).cloned()
    }

    /// How many ranges left above the cursor of a queue.
    pub fn ranges_of(&self, node: NodeId, at: QueueRef) -> usize {
        let queues = self.nodes.get(&node).map(|node| &node.queues);
        let queue = queues.and_then(|queues| queues.iter().find(|queue| queue.at == at));
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
    /// Replay lets the hints of a shard leave in order. Limits do not: they pass over those that
    /// are being sent, which stay if that fails. So of what a limit may have taken, this says so
    /// only once all of the queue up to there is gone.
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

    /// Promises room for hints, each node once, or says which limit has none.
    pub fn reserve(&mut self, wanted: &[(NodeId, Amount)]) -> Result<(), Full> {
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
        self.quota.reserve(&wanted)
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
                sealed: queue.sealed,
            })
            .collect()
    }
}
