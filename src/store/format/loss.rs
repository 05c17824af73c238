//! What the loss journal tells of: hints that left undelivered, and copies that never were hints.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    store::format::reasons::LossReason,
    types::{Amount, NodeId, QueueId, Sequence, ShardId},
};

/// Hints of a queue that left undelivered for the same reason, or copies of writes that could be
/// neither sent nor stored: an entry of the loss journal.
// The order of its fields is part of the format on disk (`commit/loss_journal.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Loss {
    /// The node they were for.
    pub node: NodeId,
    /// Their shard; `None` if it is not known, because they did not read, or if whole queues were
    /// discarded or given to other nodes: then it may be any. Copies that were not stored are
    /// summed up without their shards where these are very many.
    pub shard: Option<ShardId>,
    /// Where they stood; `None` for copies that were not stored ([`LossReason::NotStored`]), and
    /// for nothing else.
    pub place: Option<LostRange>,
    /// How many, and their payload bytes.
    pub amount: Amount,
    /// Why.
    pub reason: LossReason,
    /// When the first of them left, by the wall clock, in milliseconds since 1970. For copies that
    /// were not stored, when they were recorded.
    pub since_unix_ms: u64,
    /// When the last of them left.
    pub until_unix_ms: u64,
    /// For one that had been a dead letter and was sent on, once or more often: where it stood
    /// before, the first place first.
    pub redriven_from: Vec<(QueueId, Sequence)>,
}

/// Where hints stood that are lost: in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LostRange {
    /// Their queue.
    pub queue: QueueId,
    /// The first of them.
    pub first: Sequence,
    /// The last of them; others between the two may have been delivered.
    pub last: Sequence,
}

impl LostRange {
    pub(crate) fn one(queue: QueueId, sequence: Sequence) -> LostRange {
        LostRange {
            queue,
            first: sequence,
            last: sequence,
        }
    }

    /// Makes it reach to these, too.
    pub(crate) fn include(&mut self, first: Sequence, last: Sequence) {
        self.first = self.first.min(first);
        self.last = self.last.max(last);
    }

    /// Whether a hint stood in it.
    pub fn holds(&self, queue: QueueId, sequence: Sequence) -> bool {
        self.queue == queue && (self.first..=self.last).contains(&sequence)
    }
}

impl Loss {
    /// Of this moment.
    pub(crate) fn new(
        node: NodeId,
        shard: Option<ShardId>,
        place: Option<LostRange>,
        amount: Amount,
        reason: LossReason,
    ) -> Loss {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_millis() as u64);
        Loss {
            node,
            shard,
            place,
            amount,
            reason,
            since_unix_ms: now,
            until_unix_ms: now,
            redriven_from: Vec::new(),
        }
    }

    /// When the first of them left, by the wall clock.
    pub fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.since_unix_ms)
    }

    /// When the last of them left.
    pub fn until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.until_unix_ms)
    }

    /// Grows by one of the same kind.
    pub(crate) fn join(&mut self, more: Loss) {
        if let (Some(place), Some(it)) = (&mut self.place, more.place) {
            place.include(it.first, it.last);
        }
        self.amount = self.amount.plus(more.amount);
        self.until_unix_ms = more.until_unix_ms;
    }
}

/// What the loss journal no longer has as entries, of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LostOfQueue {
    /// The node they were for.
    pub node: NodeId,
    /// The queue.
    pub queue: QueueId,
    /// The first that was lost.
    pub first: Sequence,
    /// The last that was lost; others between the two may have been delivered.
    pub last: Sequence,
    /// How many, and their payload bytes. What was a dead letter here, was sent on and then lost is
    /// within the range, and counts in the queue that it was lost from.
    pub amount: Amount,
    /// The index of the newest entry among them.
    pub last_index: u64,
}

/// What the loss journal no longer has as entries, of a node's copies that were not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NotStoredOfNode {
    /// The node they were for.
    pub node: NodeId,
    /// How many, and their payload bytes.
    pub amount: Amount,
    /// The index of the newest entry among them.
    pub last_index: u64,
}

/// What the loss journal holds, from an index on.
///
/// A host that keeps [`next`](Losses::next) with what it made of this, and asks from there the next
/// time, learns of every loss once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Losses {
    /// Oldest first, each with its index. The index grows with every entry and is never reused; an
    /// entry that was given out does not change any more.
    pub entries: Vec<(u64, Loss)>,
    /// Indexes of entries that the disk gave back damaged: something was lost, and nobody knows
    /// what.
    pub unreadable: Vec<u64>,
    /// What is no longer listed, by queue: the journal keeps 10,000 entries, and as many of these.
    /// Those with an entry at or above the index asked for.
    pub folded: Vec<LostOfQueue>,
    /// Of queues below the first of these, what is no longer listed may be missing in `folded` too,
    /// up to the second, an index. Only if that is at or above the one asked for.
    pub forgotten: Option<(QueueId, u64)>,
    /// The same of copies that were not stored, by node; as many are kept.
    pub not_stored: Vec<NotStoredOfNode>,
    /// Of nodes that are not in `not_stored`, copies that are no longer listed may be missing
    /// there, up to this index. Only if that is at or above the one asked for.
    pub not_stored_forgotten: Option<u64>,
    /// All that was ever lost, by reason, whatever index was asked for.
    pub by_reason: BTreeMap<LossReason, Amount>,
    /// Ask from this index on the next time.
    pub next: u64,
}

impl Losses {
    /// All that was ever lost, whatever index was asked for: copies that were not stored, too.
    pub fn total(&self) -> Amount {
        let sums = self.by_reason.values();
        sums.fold(Amount::default(), |sum, it| sum.plus(*it))
    }

    /// Keeps only what concerns a node; the sums stay those of all nodes, and what is unreadable or
    /// forgotten may concern any.
    #[must_use]
    pub fn of_node(mut self, node: NodeId) -> Losses {
        self.entries.retain(|(_, loss)| loss.node == node);
        self.folded.retain(|lost| lost.node == node);
        self.not_stored.retain(|lost| lost.node == node);
        self
    }

    /// Keeps only what has an index of this or above. The sums stay as they are.
    pub(crate) fn keep_since(&mut self, since: u64) {
        self.entries.retain(|(index, _)| *index >= since);
        self.unreadable.retain(|index| *index >= since);
        self.folded.retain(|it| it.last_index >= since);
        self.not_stored.retain(|it| it.last_index >= since);
        let is_since = |last_index: u64| last_index >= since;
        self.forgotten = self.forgotten.filter(|(_, it)| is_since(*it));
        self.not_stored_forgotten = self.not_stored_forgotten.filter(|it| is_since(*it));
    }
}
