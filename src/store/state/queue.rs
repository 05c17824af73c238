//! A queue in memory, and those of a node: cursor, watermark, what is pending and claimed.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    store::format::{
        cursor::{Cursor, Leave},
        dead_letter_count::{self, LetterTallies},
        keys::{Place, QueueRef},
        node_status::Status,
        ranges::Range,
    },
    types::{Amount, Sequence},
};

/// Ranges that left, of a stretch. It ends there if there are more.
const GONE_MAX: usize = 4096;

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
    pub dead_lettered: Amount,
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
    pub closed: bool,
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
            closed: false,
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
    pub(super) fn queue_mut(&mut self, at: QueueRef) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.at == at)
    }

    pub(super) fn count(&mut self, left: Amount, leave: Leave) {
        let account = match leave {
            Leave::Delivered => &mut self.delivered,
            Leave::Dead => &mut self.dead_lettered,
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
    pub(super) fn unclaimed(&self, from: Option<Place>) -> Option<Place> {
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
