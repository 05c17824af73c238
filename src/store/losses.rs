//! The loss journal: every hint that left undelivered, durably, in the tree `hh/losses`.
//!
//! ```text
//! 00               what was folded: the oldest entry's index, amounts by reason, queues whose range is forgotten
//! 01 <index u64>   an entry
//! 02 <queue u64>   what was folded of a queue
//! ```
//! Each value: version u8 = 1, the fields in postcard's encoding, CRC32C over key and all before it u32. The order of the fields of
//! [`Loss`], [`LostOfQueue`] and [`Folded`], and of the variants of [`LossReason`], is part of the format.
//!
//! Entries are kept up to a number; beyond it the oldest is folded into a range of its queue and into sums by reason, in the same
//! step that adds the newest. The ranges are bounded in the same way.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sled::IVec;

use super::{
    departure::LossReason,
    overlay::RowMap,
    sealed::{DecodeError, seal_record, unseal_record},
};
use crate::types::{Amount, NodeId, QueueId, Sequence, ShardId};

pub const LOSSES: &str = "hh/losses";
const VERSION: u8 = 1;
const FOLDED: u8 = 0;
const ENTRY: u8 = 1;
const RANGE: u8 = 2;

/// Entries, and ranges of queues, that are kept.
const KEPT: usize = 10_000;
/// Entries that may still grow.
const OPEN: usize = 1000;

/// Hints of a queue that left undelivered for the same reason: an entry of the loss journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Loss {
    /// The node they were for.
    pub node: NodeId,
    /// Their shard; `None` if it is not known, because they did not read, or if whole queues were discarded: then it may be any.
    pub shard: Option<ShardId>,
    /// Their queue.
    pub queue: QueueId,
    /// The first of them.
    pub first: Sequence,
    /// The last of them; others between the two may have been delivered.
    pub last: Sequence,
    /// How many, and their payload bytes.
    pub amount: Amount,
    /// Why.
    pub reason: LossReason,
    /// When the first of them left, by the wall clock, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// When the last of them left.
    pub until_unix_ms: u64,
    /// For one that had been a dead letter and was sent on: where it stood before.
    pub redriven_from: Option<(QueueId, Sequence)>,
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
    /// The last that was lost.
    pub last: Sequence,
    /// How many, and their payload bytes.
    pub amount: Amount,
    /// The index of the newest entry among them.
    pub last_index: u64,
}

/// Everything that the loss journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Losses {
    /// Oldest first, each with its index. The index grows with every entry and is never reused.
    pub entries: Vec<(u64, Loss)>,
    /// What is no longer listed, by queue.
    pub folded: Vec<LostOfQueue>,
    /// Sums of what is no longer listed, by reason.
    pub folded_by_reason: BTreeMap<LossReason, Amount>,
    /// Of queues below this, what is no longer listed may be missing in `folded` too, though not in the sums.
    pub forgotten_below: Option<QueueId>,
}

impl Losses {
    /// All that was ever lost, by reason.
    pub fn by_reason(&self) -> BTreeMap<LossReason, Amount> {
        let mut sums = self.folded_by_reason.clone();
        for (_, loss) in &self.entries {
            let sum = sums.entry(loss.reason).or_default();
            *sum = sum.plus(loss.amount);
        }
        sums
    }

    /// All that was ever lost.
    pub fn total(&self) -> Amount {
        let sums = self.by_reason();
        sums.values()
            .fold(Amount::default(), |sum, it| sum.plus(*it))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Folded {
    /// Entries below this are folded, whether they are still there or not.
    below: u64,
    by_reason: BTreeMap<LossReason, Amount>,
    forgotten_below: Option<QueueId>,
}

/// What tells entries apart that do not grow into one.
type Kind = (NodeId, QueueId, Option<ShardId>, LossReason);

/// The commit thread's view: it alone writes the journal.
#[derive(Debug, Default)]
pub struct Journal {
    next: u64,
    /// Indexes of the entries that are kept, oldest first.
    kept: VecDeque<u64>,
    open: BTreeMap<Kind, (u64, Loss)>,
    folded: Folded,
    ranges: BTreeMap<QueueId, LostOfQueue>,
}

fn key(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    let (_, rest) = key.split_at_mut(1);
    rest.copy_from_slice(&number.to_be_bytes());
    key
}

const NOT_OURS: DecodeError = DecodeError::Invalid("its key is not of the loss journal");

/// A record of the tree.
enum Record {
    Folded(Folded),
    Entry(u64, Loss),
    Range(LostOfQueue),
}

impl Record {
    fn read(key: &[u8], value: &[u8]) -> Result<Record, DecodeError> {
        let (kind, number) = match *key {
            [kind] => (kind, None),
            [kind, ref number @ ..] => (kind, number.try_into().ok().map(u64::from_be_bytes)),
            [] => return Err(NOT_OURS),
        };
        Ok(match (kind, number) {
            (FOLDED, None) if key.len() == 1 => Record::Folded(unseal_record(key, VERSION, value)?),
            (ENTRY, Some(index)) => Record::Entry(index, unseal_record(key, VERSION, value)?),
            (RANGE, Some(_)) => Record::Range(unseal_record(key, VERSION, value)?),
            _ => return Err(NOT_OURS),
        })
    }
}

/// Whether this is a record of the journal, whole.
pub fn is_record(key: &[u8], value: &[u8]) -> bool {
    Record::read(key, value).is_ok()
}

/// A record, encoded again.
#[cfg(feature = "testkit")]
pub fn encode_again(key: &[u8], value: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Ok(match Record::read(key, value)? {
        Record::Folded(folded) => seal_record(key, VERSION, &folded),
        Record::Entry(_, loss) => seal_record(key, VERSION, &loss),
        Record::Range(range) => seal_record(key, VERSION, &range),
    })
}

/// Reads all of it. Damaged records are logged and left out.
pub fn read(tree: &sled::Tree) -> sled::Result<Losses> {
    let mut losses = Losses::default();
    let mut below = 0;
    for record in tree {
        let (key, value) = record?;
        match Record::read(&key, &value) {
            Ok(Record::Folded(folded)) => {
                below = folded.below;
                losses.folded_by_reason = folded.by_reason;
                losses.forgotten_below = folded.forgotten_below;
            }
            Ok(Record::Entry(index, loss)) => losses.entries.push((index, loss)),
            Ok(Record::Range(range)) => losses.folded.push(range),
            Err(error) => {
                tracing::error!(key = ?key, %error, "a record of the loss journal is damaged");
            }
        }
    }
    losses.entries.retain(|(index, _)| *index >= below);
    Ok(losses)
}

impl Journal {
    pub fn load(tree: &sled::Tree) -> sled::Result<Journal> {
        let losses = read(tree)?;
        let ranges = losses.folded.into_iter().map(|it| (it.queue, it));
        let kept: VecDeque<u64> = losses.entries.iter().map(|(index, _)| *index).collect();
        let folded = match tree.get([FOLDED])? {
            Some(value) => match Record::read(&[FOLDED], &value) {
                Ok(Record::Folded(folded)) => folded,
                _ => Folded::default(),
            },
            None => Folded::default(),
        };
        Ok(Journal {
            next: kept.back().map_or(folded.below, |last| last + 1),
            kept,
            open: BTreeMap::new(),
            folded,
            ranges: ranges.collect(),
        })
    }

    /// Lets no entry grow any more, so that what is lost from now on has an index of this or above.
    pub fn close_entries(&mut self) -> u64 {
        self.open.clear();
        self.next
    }

    /// Records a loss: says what to write for it.
    pub fn record(&mut self, loss: Loss, writes: &mut RowMap) {
        let kind = (loss.node, loss.queue, loss.shard, loss.reason);
        let grows = loss.redriven_from.is_none();
        let (index, loss) = match self.open.remove(&kind).filter(|_| grows) {
            Some((index, known)) => (index, joined(known, loss)),
            None => {
                let index = self.next;
                self.next += 1;
                self.kept.push_back(index);
                (index, loss)
            }
        };
        put(writes, &key(ENTRY, index), &loss);
        if grows {
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            self.open.insert(kind, (index, loss));
        }
    }

    /// Folds what is over the bound: says what to write for that.
    pub fn fold(&mut self, tree: &sled::Tree, writes: &mut RowMap) -> sled::Result<()> {
        self.fold_to(KEPT, tree, writes)
    }

    fn fold_to(&mut self, kept: usize, tree: &sled::Tree, writes: &mut RowMap) -> sled::Result<()> {
        if self.kept.len() <= kept {
            return Ok(());
        }
        while self.kept.len() > kept
            && let Some(index) = self.kept.pop_front()
        {
            let key = key(ENTRY, index);
            // It may be among those that are written in this very step.
            let value = match writes.get(key.as_slice()) {
                Some(value) => value.clone(),
                None => tree.get(key)?,
            };
            self.open.retain(|_, (open, _)| *open != index);
            writes.insert(IVec::from(&key), None);
            self.folded.below = index + 1;
            if let Some(Record::Entry(_, loss)) =
                value.and_then(|value| Record::read(&key, &value).ok())
            {
                self.fold_one(index, &loss, kept, writes);
            }
        }
        put(writes, &[FOLDED], &self.folded);
        Ok(())
    }

    fn fold_one(&mut self, index: u64, loss: &Loss, kept: usize, writes: &mut RowMap) {
        let sum = self.folded.by_reason.entry(loss.reason).or_default();
        *sum = sum.plus(loss.amount);
        // One that was sent on is looked for where it stood first, too.
        let range = self.ranges.entry(loss.queue).or_insert(LostOfQueue {
            node: loss.node,
            queue: loss.queue,
            first: loss.first,
            last: loss.last,
            amount: Amount::default(),
            last_index: index,
        });
        range.first = range.first.min(loss.first);
        range.last = range.last.max(loss.last);
        range.amount = range.amount.plus(loss.amount);
        range.last_index = index;
        put(writes, &key(RANGE, loss.queue.0), range);
        if self.ranges.len() > kept
            && let Some((lowest, _)) = self.ranges.pop_first()
        {
            writes.insert(IVec::from(&key(RANGE, lowest.0)), None);
            let above = QueueId(lowest.0.saturating_add(1));
            self.folded.forgotten_below = self.folded.forgotten_below.max(Some(above));
        }
    }
}

fn put(writes: &mut RowMap, key: &[u8], record: &impl Serialize) {
    let value = seal_record(key, VERSION, record);
    writes.insert(IVec::from(key), Some(value.into()));
}

fn joined(known: Loss, more: Loss) -> Loss {
    Loss {
        first: known.first.min(more.first),
        last: known.last.max(more.last),
        amount: known.amount.plus(more.amount),
        until_unix_ms: more.until_unix_ms,
        ..known
    }
}

#[cfg(test)]
mod tests;
