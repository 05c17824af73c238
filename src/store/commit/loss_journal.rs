//! The loss journal, in the tree `hh/losses`: every hint that left undelivered, durably, and every
//! copy of a write that could be neither sent nor stored, as soon as the store can.
//!
//! ```text
//! 00               what was folded: the oldest entry's index, amounts by reason,
//!                  queues whose range is forgotten
//! 01 <index u64>   an entry
//! 02 <queue u64>   what was folded of a queue
//! 03               index of the newest entry of copies not stored whose node is forgotten
//! 03 <node u64>    what was folded of a node's copies that were not stored
//! 04 <queue u64>   dead letters of a queue that are none any more: no part of the journal,
//!                  see `gone_letters.rs`
//! ```
//! Each value: version u8 = 1, the fields in postcard's encoding, CRC32C over key and all before it
//! u32. The order of the fields of [`Loss`], [`LostOfQueue`], [`NotStoredOfNode`] and [`Folded`],
//! and of the variants of [`LossReason`], is part of the format.
//!
//! Entries are kept up to a number; beyond it the oldest is folded into a range of its queue, or a
//! sum of its node, and into sums by reason, in the same step that adds the newest. The ranges and
//! the sums of nodes are bounded in the same way.

pub mod records;

use std::collections::{BTreeMap, VecDeque};

use crate::{
    store::{
        engine::{
            rows::RowMap,
            table::{self, IVec, Table},
        },
        format::{
            checksum::{DecodeError, decode_record, encode_record},
            gone_letters::GONE_LETTERS,
            loss::{Loss, Losses, LostOfQueue, NotStoredOfNode},
            reasons::LossReason,
        },
    },
    types::{Amount, NodeId, QueueId, Sequence, ShardId},
};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
const FOLDED: u8 = 0;
const ENTRY: u8 = 1;
const RANGE: u8 = 2;
const NODE: u8 = 3;

/// Entries, ranges of queues, and sums of nodes, that are kept.
const KEPT: usize = 10_000;
/// Entries that may still grow.
const OPEN: usize = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Folded {
    /// Entries below this are folded, whether they are still there or not.
    below: u64,
    by_reason: BTreeMap<LossReason, Amount>,
    /// Of queues below the first the range may be forgotten; the second is the newest index in any
    /// of these.
    forgotten: Option<(QueueId, u64)>,
}

/// What tells entries apart that do not grow into one.
type LossKind = (NodeId, Option<QueueId>, Option<ShardId>, LossReason);

/// The commit thread's view: it alone writes the journal.
#[derive(Debug, Default)]
pub struct Journal {
    /// Recorded, and not told of yet.
    untold: Vec<Loss>,
    next: u64,
    /// Indexes of the entries that are kept, oldest first.
    kept: VecDeque<u64>,
    open: BTreeMap<LossKind, (u64, Loss)>,
    folded: Folded,
    ranges: BTreeMap<QueueId, LostOfQueue>,
    not_stored: BTreeMap<NodeId, NotStoredOfNode>,
    /// The newest entry of copies not stored whose node is in `not_stored` no more.
    not_stored_forgotten: Option<u64>,
}

fn key(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    let (_, rest) = key.split_at_mut(1);
    rest.copy_from_slice(&number.to_be_bytes());
    key
}

const NOT_OURS: DecodeError = DecodeError::Invalid("its key is not of the loss journal");

/// A record of the tree.
enum LossRecord {
    Folded(Folded),
    Entry(u64, Loss),
    Range(LostOfQueue),
    Node(NotStoredOfNode),
    NodesForgotten(u64),
}

impl LossRecord {
    fn read(key: &[u8], value: &[u8]) -> Result<LossRecord, DecodeError> {
        let (kind, number) = match *key {
            [kind] => (kind, None),
            [kind, ref number @ ..] => (kind, number.try_into().ok().map(u64::from_be_bytes)),
            [] => return Err(NOT_OURS),
        };
        Ok(match (kind, number) {
            (FOLDED, None) if key.len() == 1 => {
                LossRecord::Folded(decode_record(key, VERSION, value)?)
            }
            (ENTRY, Some(index)) => LossRecord::Entry(index, read_entry(key, value)?),
            (RANGE, Some(_)) => LossRecord::Range(decode_record(key, VERSION, value)?),
            (NODE, Some(_)) => LossRecord::Node(decode_record(key, VERSION, value)?),
            (NODE, None) if key.len() == 1 => {
                LossRecord::NodesForgotten(decode_record(key, VERSION, value)?)
            }
            _ => return Err(NOT_OURS),
        })
    }
}

fn read_entry(key: &[u8], value: &[u8]) -> Result<Loss, DecodeError> {
    let loss: Loss = decode_record(key, VERSION, value)?;
    match loss.place.is_none() == (loss.reason == LossReason::NotStored) {
        true => Ok(loss),
        false => Err(DecodeError::Invalid("its place does not fit its reason")),
    }
}

/// Whether this is a record of the journal, whole.
pub fn is_record(key: &[u8], value: &[u8]) -> bool {
    LossRecord::read(key, value).is_ok()
}

/// A record, encoded again.
#[cfg(feature = "internals")]
pub fn encode_again(key: &[u8], value: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Ok(match LossRecord::read(key, value)? {
        LossRecord::Folded(folded) => encode_record(key, VERSION, &folded),
        LossRecord::Entry(_, loss) => encode_record(key, VERSION, &loss),
        LossRecord::Range(range) => encode_record(key, VERSION, &range),
        LossRecord::Node(node) => encode_record(key, VERSION, &node),
        LossRecord::NodesForgotten(index) => encode_record(key, VERSION, &index),
    })
}

/// Reads what there is from an index on. Damaged records are logged.
pub fn read_since(tree: &Table, since: u64) -> table::Result<Losses> {
    let mut losses = scan(tree, 0)?;
    losses.keep_since(since);
    Ok(losses)
}

/// Reads what there is from an index on, and nothing of what is before it: so the sums are not
/// those of all.
///
/// Folding goes on meanwhile, an entry and the range it becomes part of at once. Ranges are read
/// after entries, and what is forgotten after both, so nothing slips through.
pub fn scan(tree: &Table, since: u64) -> table::Result<Losses> {
    let mut losses = Losses::default();
    let folded = read_folded(tree)?;
    losses.by_reason = folded.by_reason;
    for record in tree.range(key(ENTRY, folded.below.max(since))..key(RANGE, 0)) {
        let (key, value) = record?;
        match (index_of(&key), LossRecord::read(&key, &value)) {
            (_, Ok(LossRecord::Entry(index, loss))) => {
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
    scan_folded(tree, &mut losses)?;
    losses.keep_since(since);
    Ok(losses)
}

/// What was folded of queues and of nodes, and what of that is forgotten.
fn scan_folded(tree: &Table, losses: &mut Losses) -> table::Result<()> {
    let mut damaged = None;
    for record in tree.range(key(RANGE, 0)..key(GONE_LETTERS, 0)) {
        let (key, value) = record?;
        match LossRecord::read(&key, &value) {
            Ok(LossRecord::Range(range)) => losses.folded.push(range),
            Ok(LossRecord::Node(node)) => losses.not_stored.push(node),
            // It is read below, after all that may be added to it.
            Ok(LossRecord::NodesForgotten(_)) => {}
            _ if key.first() == Some(&NODE) => {
                tracing::error!(key = ?key, "a sum of a node in the loss journal is damaged");
                losses.not_stored_forgotten = Some(u64::MAX);
            }
            _ => {
                tracing::error!(key = ?key, "a range of the loss journal is damaged");
                damaged = index_of(&key).map(|queue| (QueueId(queue.saturating_add(1)), u64::MAX));
            }
        }
    }
    losses.forgotten = damaged.max(read_folded(tree)?.forgotten);
    if let Some(value) = tree.get([NODE])?
        && let Ok(LossRecord::NodesForgotten(index)) = LossRecord::read(&[NODE], &value)
    {
        losses.not_stored_forgotten = losses.not_stored_forgotten.max(Some(index));
    }
    Ok(())
}

fn read_folded(tree: &Table) -> table::Result<Folded> {
    let Some(value) = tree.get([FOLDED])? else {
        return Ok(Folded::default());
    };
    match LossRecord::read(&[FOLDED], &value) {
        Ok(LossRecord::Folded(folded)) => Ok(folded),
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
    pub fn load(tree: &Table) -> table::Result<Journal> {
        let losses = read_since(tree, 0)?;
        let ranges = losses.folded.into_iter().map(|it| (it.queue, it));
        let not_stored = losses.not_stored.into_iter().map(|it| (it.node, it));
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
            not_stored: not_stored.collect(),
            not_stored_forgotten: losses.not_stored_forgotten,
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
        let queue = loss.place.map(|place| place.queue);
        let kind = (loss.node, queue, loss.shard, loss.reason);
        let grows = loss.redriven_from.is_empty();
        let known = match grows {
            true => self.open.remove(&kind),
            false => None,
        };
        let (index, loss) = match known {
            Some((index, mut known)) => {
                known.join(loss);
                (index, known)
            }
            None => {
                let index = self.next;
                self.next += 1;
                self.kept.push_back(index);
                (index, loss)
            }
        };
        let key = key(ENTRY, index);
        let value = encode_record(&key, VERSION, &loss);
        writes.insert(IVec::from(&key), Some(value.into()));
        if grows {
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            self.open.insert(kind, (index, loss));
        }
    }

    /// Folds what is over the bound: says what to write for that.
    pub fn fold(&mut self, tree: &Table, writes: &mut RowMap) -> table::Result<()> {
        self.fold_to(KEPT, tree, writes)
    }

    fn fold_to(&mut self, kept: usize, tree: &Table, writes: &mut RowMap) -> table::Result<()> {
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
            let record = value.and_then(|value| LossRecord::read(&key, &value).ok());
            if let Some(LossRecord::Entry(_, loss)) = record {
                self.fold_one(index, &loss, kept, writes);
            }
        }
        put(writes, &[FOLDED], &self.folded);
        Ok(())
    }

    fn fold_one(&mut self, index: u64, loss: &Loss, kept: usize, writes: &mut RowMap) {
        let sum = self.folded.by_reason.entry(loss.reason).or_default();
        *sum = sum.plus(loss.amount);
        let Some(place) = loss.place else {
            return self.fold_not_stored(index, loss, kept, writes);
        };
        let range = self.range_of(loss.node, place.queue, place.first);
        range.amount = range.amount.plus(loss.amount);
        let mut places = vec![(place.queue, place.first), (place.queue, place.last)];
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

    /// Of what has no queue only its node is kept.
    fn fold_not_stored(&mut self, index: u64, loss: &Loss, kept: usize, writes: &mut RowMap) {
        let sum = self.not_stored.entry(loss.node).or_insert(NotStoredOfNode {
            node: loss.node,
            amount: Amount::default(),
            last_index: 0,
        });
        sum.amount = sum.amount.plus(loss.amount);
        sum.last_index = sum.last_index.max(index);
        put(writes, &key(NODE, loss.node.0), sum);
        while self.not_stored.len() > kept {
            let sums = self.not_stored.values();
            let Some(oldest) = sums.min_by_key(|it| it.last_index).cloned() else {
                break;
            };
            self.not_stored.remove(&oldest.node);
            writes.insert(IVec::from(&key(NODE, oldest.node.0)), None);
            self.not_stored_forgotten = self.not_stored_forgotten.max(Some(oldest.last_index));
            if let Some(index) = self.not_stored_forgotten {
                put(writes, &[NODE], &index);
            }
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
    let value = encode_record(key, VERSION, record);
    writes.insert(IVec::from(key), Some(value.into()));
}

#[cfg(test)]
mod tests;
