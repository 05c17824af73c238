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

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
    /// For one that had been a dead letter and was sent on, once or more often: where it stood before, the first place first.
    pub redriven_from: Vec<(QueueId, Sequence)>,
}

impl Loss {
    /// When the first of them left, by the wall clock.
    pub fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.since_unix_ms)
    }

    /// When the last of them left.
    pub fn until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.until_unix_ms)
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
    /// How many, and their payload bytes. What was a dead letter here, was sent on and then lost is within the range, and counts in
    /// the queue that it was lost from.
    pub amount: Amount,
    /// The index of the newest entry among them.
    pub last_index: u64,
}

/// What the loss journal holds, from an index on.
///
/// A host that keeps [`next`](Losses::next) with what it made of this, and asks from there the next time, learns of every loss once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Losses {
    /// Oldest first, each with its index. The index grows with every entry and is never reused; an entry that was given out does
    /// not change any more.
    pub entries: Vec<(u64, Loss)>,
    /// Indexes of entries that the disk gave back damaged: something was lost, and nobody knows what.
    pub unreadable: Vec<u64>,
    /// What is no longer listed, by queue: the journal keeps 10,000 entries, and as many of these. Those with an entry at or above the
    /// index asked for.
    pub folded: Vec<LostOfQueue>,
    /// Of queues below the first of these, what is no longer listed may be missing in `folded` too, up to the second, an index. Only if
    /// that is at or above the one asked for.
    pub forgotten: Option<(QueueId, u64)>,
    /// All that was ever lost, by reason, whatever index was asked for.
    pub by_reason: BTreeMap<LossReason, Amount>,
    /// Ask from this index on the next time.
    pub next: u64,
}

impl Losses {
    /// All that was ever lost, whatever index was asked for.
    pub fn total(&self) -> Amount {
        let sums = self.by_reason.values();
        sums.fold(Amount::default(), |sum, it| sum.plus(*it))
    }

    /// Keeps only what concerns a node; the sums stay those of all nodes, and what is unreadable may concern any.
    #[must_use]
    pub fn of_node(mut self, node: NodeId) -> Losses {
        self.entries.retain(|(_, loss)| loss.node == node);
        self.folded.retain(|lost| lost.node == node);
        self
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Folded {
    /// Entries below this are folded, whether they are still there or not.
    below: u64,
    by_reason: BTreeMap<LossReason, Amount>,
    /// Of queues below the first the range may be forgotten; the second is the newest index in any of these.
    forgotten: Option<(QueueId, u64)>,
}

/// What tells entries apart that do not grow into one.
type Kind = (NodeId, QueueId, Option<ShardId>, LossReason);

/// The commit thread's view: it alone writes the journal.
#[derive(Debug, Default)]
pub struct Journal {
    /// Recorded, and not told of yet.
    untold: Vec<Loss>,
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

/// Reads what there is from an index on. Damaged records are logged.
pub fn read_since(tree: &sled::Tree, since: u64) -> sled::Result<Losses> {
    let mut losses = scan(tree, 0)?;
    losses.entries.retain(|(index, _)| *index >= since);
    losses.unreadable.retain(|index| *index >= since);
    losses.folded.retain(|it| it.last_index >= since);
    let is_since = |(_, last_index): &(QueueId, u64)| *last_index >= since;
    losses.forgotten = losses.forgotten.filter(is_since);
    Ok(losses)
}

/// Reads what there is from an index on, and nothing of what is before it: so the sums are not those of all.
///
/// Folding goes on meanwhile, an entry and the range it becomes part of at once. Ranges are read after entries, and what is forgotten
/// after both, so nothing slips through.
pub fn scan(tree: &sled::Tree, since: u64) -> sled::Result<Losses> {
    let mut losses = Losses::default();
    let folded = read_folded(tree)?;
    losses.by_reason = folded.by_reason;
    for record in tree.range(key(ENTRY, folded.below.max(since))..key(RANGE, 0)) {
        let (key, value) = record?;
        match (index_of(&key), Record::read(&key, &value)) {
            (_, Ok(Record::Entry(index, loss))) => {
                let sum = losses.by_reason.entry(loss.reason).or_default();
                *sum = sum.plus(loss.amount);
                losses.next = index + 1;
                losses.entries.push((index, loss));
            }
            (Some(index), _) => {
                tracing::error!(index, "an entry of the loss journal is damaged");
                losses.next = index + 1;
                losses.unreadable.push(index);
            }
            _ => tracing::error!(key = ?key, "a record of the loss journal is not ours"),
        }
    }
    losses.next = losses.next.max(folded.below);
    let mut damaged = None;
    for record in tree.range(key(RANGE, 0)..) {
        let (key, value) = record?;
        match Record::read(&key, &value) {
            Ok(Record::Range(range)) => losses.folded.push(range),
            _ => {
                tracing::error!(key = ?key, "a range of the loss journal is damaged");
                damaged = index_of(&key).map(|queue| (QueueId(queue.saturating_add(1)), u64::MAX));
            }
        }
    }
    losses.folded.retain(|it| it.last_index >= since);
    let forgotten = damaged.max(read_folded(tree)?.forgotten);
    losses.forgotten = forgotten.filter(|(_, last_index)| *last_index >= since);
    Ok(losses)
}

fn read_folded(tree: &sled::Tree) -> sled::Result<Folded> {
    let Some(value) = tree.get([FOLDED])? else {
        return Ok(Folded::default());
    };
    match Record::read(&[FOLDED], &value) {
        Ok(Record::Folded(folded)) => Ok(folded),
        _ => {
            tracing::error!("the sums of the loss journal are damaged; they begin anew");
            Ok(Folded::default())
        }
    }
}

/// The number in a key.
fn index_of(key: &[u8]) -> Option<u64> {
    let (_, number) = key.split_first()?;
    number.try_into().ok().map(u64::from_be_bytes)
}

impl Journal {
    pub fn load(tree: &sled::Tree) -> sled::Result<Journal> {
        let losses = read_since(tree, 0)?;
        let ranges = losses.folded.into_iter().map(|it| (it.queue, it));
        let entries = losses.entries.iter().map(|(index, _)| *index);
        let mut kept: Vec<u64> = entries.chain(losses.unreadable).collect();
        kept.sort_unstable();
        Ok(Journal {
            untold: Vec::new(),
            next: losses.next,
            kept: kept.into(),
            open: BTreeMap::new(),
            folded: read_folded(tree)?,
            ranges: ranges.collect(),
        })
    }

    /// Lets no entry grow any more, so that what is lost from now on has an index of this or above.
    pub fn close_entries(&mut self) -> u64 {
        self.open.clear();
        self.next
    }

    /// What was recorded since this was asked last, to be told of once it is durable.
    pub fn untold(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.untold)
    }

    /// Records a loss: says what to write for it.
    pub fn record(&mut self, loss: Loss, writes: &mut RowMap) {
        self.untold.push(loss.clone());
        let kind = (loss.node, loss.queue, loss.shard, loss.reason);
        let grows = loss.redriven_from.is_empty();
        let known = match grows {
            true => self.open.remove(&kind),
            false => None,
        };
        let (index, loss) = match known {
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
            let record = value.and_then(|value| Record::read(&key, &value).ok());
            if let Some(Record::Entry(_, loss)) = record {
                self.fold_one(index, &loss, kept, writes);
            }
        }
        put(writes, &[FOLDED], &self.folded);
        Ok(())
    }

    fn fold_one(&mut self, index: u64, loss: &Loss, kept: usize, writes: &mut RowMap) {
        let sum = self.folded.by_reason.entry(loss.reason).or_default();
        *sum = sum.plus(loss.amount);
        let range = self.range_of(loss.node, loss.queue, loss.first);
        range.amount = range.amount.plus(loss.amount);
        let mut places = vec![(loss.queue, loss.first), (loss.queue, loss.last)];
        // One that was sent on is looked for where it stood before, too.
        places.extend(&loss.redriven_from);
        for (queue, sequence) in places {
            let range = self.range_of(loss.node, queue, sequence);
            range.first = range.first.min(sequence);
            range.last = range.last.max(sequence);
            range.last_index = range.last_index.max(index);
            put(writes, &key(RANGE, queue.0), range);
        }
        while self.ranges.len() > kept
            && let Some((lowest, range)) = self.ranges.pop_first()
        {
            writes.insert(IVec::from(&key(RANGE, lowest.0)), None);
            let above = QueueId(lowest.0.saturating_add(1));
            let (queue, last_index) = self.folded.forgotten.unwrap_or((above, 0));
            let last_index = last_index.max(range.last_index);
            self.folded.forgotten = Some((queue.max(above), last_index));
        }
    }

    fn range_of(&mut self, node: NodeId, queue: QueueId, sequence: Sequence) -> &mut LostOfQueue {
        self.ranges.entry(queue).or_insert(LostOfQueue {
            node,
            queue,
            first: sequence,
            last: sequence,
            amount: Amount::default(),
            last_index: 0,
        })
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
