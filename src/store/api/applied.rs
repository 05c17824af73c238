//! The receiving side: which hints a node has applied, kept in the same database as what they
//! changed.
//!
//! ```text
//! tree hh/applied
//! key    store 16 bytes | queue u64 | shard u64      a mark
//!        store 16 bytes                              the store's floor
//! value  version u8 = 1
//!        highest applied sequence u64, or the queue below which all marks are forgotten
//!        CRC32C over key and all of the above u32
//! ```
//! All big endian. Within one (store, queue, shard) sequences only grow, so the highest one stands
//! for all below it. A hint of a queue below the floor is a send that timed out and comes late: the
//! sender has had an answer for it long ago.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use parking_lot::Mutex;
use sled::{
    IVec, Tree,
    transaction::{TransactionalTree, UnabortableTransactionError},
};

use crate::{
    error::{StorageError, TransactionError},
    store::{
        format::checksum::{DecodeError, with_checksum, without_checksum},
        pipeline::overlay::Rows,
    },
    types::{HintId, QueueId, ShardId, StoreId},
};

const TREE: &str = "hh/applied";
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Marks that one transaction removes.
const FORGOTTEN_AT_ONCE: usize = 100;
/// docs/sled.md rules 2 and 4: not too much between two flushes.
const FORGOTTEN_AT_ONCE_IN_SLED: usize = 1000;

/// What a node has applied of the hints that were sent to it, so that it applies each once although
/// it may get it several times.
///
/// It keeps one mark of some 45 bytes for each (store, queue, shard), in the tree `hh/applied` of
/// the node's own database. The mark and what the hint changes must be written as one: in a
/// [`transaction`](crate::HintedHandoff::transaction) with
/// [`apply_once`](AppliedHints::apply_once), or, in a database that no store shares, in a
/// transaction of sled's with [`apply_once_in_sled`](AppliedHints::apply_once_in_sled), and then
/// [`make_durable`](crate::make_durable) before it is acknowledged: sled by itself makes nothing
/// durable.
///
/// Direct writes have no such id: if one may come a second time as a hint, because its reply was
/// lost, the host asks [`AppliedWrites`](crate::AppliedWrites) for that.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # use hinted_handoff::*;
/// let db = open_database(&database_config(dir.path().join("db")))?;
/// let (rows, applied) = (db.open_tree("rows")?, AppliedHints::open(&db)?);
/// # let (store, queue) = (StoreId([7; 16]), QueueId(1));
/// let hint = HintId { store, queue, sequence: Sequence(12) }; // as it came with the points
///
/// use sled::Transactional;
/// let apply = || (&rows, applied.tree()).transaction(|(rows, marks)| {
///     let is_new = applied.apply_once_in_sled(marks, hint, ShardId(7))?;
///     if is_new {
///         rows.insert("cpu", "0.64")?;
///     }
///     Ok::<bool, sled::transaction::ConflictableTransactionError>(is_new)
/// });
/// assert!(apply()?);
/// make_durable(&db)?; // before it says that it has taken the hint, which is forgotten then
/// assert!(!apply()?, "it came again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A receiver that has the whole [`ShardWrite`](crate::ShardWrite) needs one call for it:
/// [`take_new`](AppliedHints::take_new) in a transaction, or
/// [`apply_in_sled`](AppliedHints::apply_in_sled) in a database that no store shares.
#[derive(Debug, Clone)]
pub struct AppliedHints {
    tree: Tree,
    /// Held by whoever takes a delivery into a database of sled's, until that is durable; nothing
    /// else of ours is taken before it.
    pub(super) turn: Arc<Mutex<()>>,
}

impl AppliedHints {
    /// The marks in this database. Makes their tree if it is not there.
    ///
    /// # Errors
    /// What sled says.
    pub fn open(db: &sled::Db) -> Result<Self, StorageError> {
        let tree = db.open_tree(TREE);
        let tree =
            tree.map_err(|error| StorageError::new("open the tree of applied hints", error))?;
        Ok(AppliedHints {
            tree,
            turn: Arc::default(),
        })
    }

    /// The tree of the marks, to be named in transactions.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether the hint is new; if it is, it is so no more once the transaction has come into
    /// effect. `marks` must be the rows of [`tree`](AppliedHints::tree). Whoever gets false leaves
    /// everything as it is.
    ///
    /// # Errors
    /// [`TransactionError::Read`] if the mark does not read or is damaged; as [`Rows::insert`].
    pub fn apply_once(
        &self,
        marks: &mut Rows<'_>,
        hint: HintId,
        shard: ShardId,
    ) -> Result<bool, TransactionError> {
        let floor = marks.get(hint.store.0)?;
        let key = key(hint, shard);
        let known = marks.get(key)?;
        let mark = raised(hint, &key, known.as_ref(), floor.as_ref());
        match mark.map_err(|error| TransactionError::Read(damaged(hint, error)))? {
            Some(mark) => marks.insert(key, mark).map(|()| true),
            None => Ok(false),
        }
    }

    /// [`apply_once`](AppliedHints::apply_once) in a transaction of sled's.
    ///
    /// # Errors
    /// What sled says; [`sled::Error::ReportableBug`] if the mark is damaged.
    pub fn apply_once_in_sled(
        &self,
        marks: &TransactionalTree,
        hint: HintId,
        shard: ShardId,
    ) -> Result<bool, UnabortableTransactionError> {
        let floor = marks.get(hint.store.0)?;
        let key = key(hint, shard);
        let known = marks.get(key)?;
        let mark = raised(hint, &key, known.as_ref(), floor.as_ref()).map_err(|error| {
            sled::Error::ReportableBug(format!("the mark of applied hints for {hint}: {error}"))
        })?;
        match mark {
            Some(mark) => marks.insert(&key, mark).map(|_| true),
            None => Ok(false),
        }
    }

    /// Forgets marks that are needed no more: those of the store's queues below
    /// [`ShardWrite::retired_below`](crate::ShardWrite::retired_below), at most 100 at a time. What
    /// comes late of these queues is not new from then on. To be called with each delivery, in the
    /// same transaction; `marks` must be the rows of [`tree`](AppliedHints::tree).
    ///
    /// # Errors
    /// [`TransactionError::Read`] if the marks do not read or the floor is damaged; as
    /// [`Rows::insert`].
    pub fn forget_retired(
        &self,
        marks: &mut Rows<'_>,
        store: StoreId,
        retired_below: QueueId,
    ) -> Result<(), TransactionError> {
        let floor = floor_of(store, marks.get(store.0)?.as_ref());
        let floor = floor
            .map_err(|text| TransactionError::Read(StorageError::new("read a floor", text)))?;
        // Two deliveries may come in any order; the floor only rises.
        if floor < retired_below.0 {
            marks.insert(store.0, with_checksum(&store.0, encode(retired_below.0)))?;
        }
        // Below the floor nobody looks for a mark, so it does not matter if another transaction
        // removes these too.
        for key in self
            .keys_below(store, retired_below)
            .take(FORGOTTEN_AT_ONCE)
        {
            let read = |error| StorageError::new("read the marks of applied hints", error);
            marks.remove(key.map_err(|error| TransactionError::Read(read(error)))?)?;
        }
        Ok(())
    }

    /// [`forget_retired`](AppliedHints::forget_retired) for a database that no store shares: at
    /// most 1,000 of them, outside of any other transaction, within which it would wait for itself.
    /// Returns how many marks are gone; call [`make_durable`](crate::make_durable) before the next
    /// 1,000.
    ///
    /// # Errors
    /// What sled says; [`sled::Error::ReportableBug`] if the floor is damaged.
    pub fn forget_retired_in_sled(
        &self,
        store: StoreId,
        retired_below: QueueId,
    ) -> sled::Result<usize> {
        let raised = with_checksum(&store.0, encode(retired_below.0));
        let raise = self.tree.transaction(|marks| {
            let floor = floor_of(store, marks.get(store.0)?.as_ref());
            let floor = floor.map_err(sled::Error::ReportableBug)?;
            if floor < retired_below.0 {
                marks.insert(&store.0, raised.as_slice())?;
            }
            Ok(())
        });
        // First, so that a crash does not forget marks of queues above the floor.
        raise.map_err(|error| match error {
            sled::transaction::TransactionError::Storage(error) => error,
            sled::transaction::TransactionError::Abort(never) => never,
        })?;
        let mut gone = 0;
        for key in self
            .keys_below(store, retired_below)
            .take(FORGOTTEN_AT_ONCE_IN_SLED)
        {
            self.tree.remove(key?)?;
            gone += 1;
        }
        Ok(gone)
    }

    /// The marks of the store's queues below this one.
    fn keys_below(
        &self,
        store: StoreId,
        queue: QueueId,
    ) -> impl Iterator<Item = sled::Result<IVec>> + use<> {
        let from = |queue: u64| [store.0.as_slice(), &queue.to_be_bytes()].concat();
        self.tree.range(from(0)..from(queue.0)).keys()
    }
}

fn key(hint: HintId, shard: ShardId) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let mut out = key.as_mut_slice();
    out.put_slice(&hint.store.0);
    out.put_u64(hint.queue.0);
    out.put_u64(shard.0);
    key
}

/// The mark that takes the place of `known`, `None` if the hint is not new.
fn raised(
    hint: HintId,
    key: &[u8],
    known: Option<&IVec>,
    floor: Option<&IVec>,
) -> Result<Option<Vec<u8>>, DecodeError> {
    let floor = floor.map_or(Ok(0), |floor| decode(&hint.store.0, floor))?;
    let applied = known.map_or(Ok(0), |known| decode(key, known))?;
    if hint.queue.0 < floor || hint.sequence.0 <= applied {
        return Ok(None);
    }
    Ok(Some(with_checksum(key, encode(hint.sequence.0))))
}

/// The queue below which all marks are forgotten, or what is wrong with the record that says so.
fn floor_of(store: StoreId, record: Option<&IVec>) -> Result<u64, String> {
    let floor = record.map_or(Ok(0), |record| decode(&store.0, record));
    floor.map_err(|error| format!("the floor of applied hints from {store}: {error}"))
}

/// A mark, a floor, or when a write was applied, without its checksum.
pub fn encode(number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(13);
    bytes.put_u8(VERSION);
    bytes.put_u64(number);
    bytes
}

pub fn decode(key: &[u8], value: &[u8]) -> Result<u64, DecodeError> {
    let mut bytes = without_checksum(key, value)?;
    match bytes.try_get_u8()? {
        VERSION => {}
        other => return Err(DecodeError::Version(other)),
    }
    let number = bytes.try_get_u64()?;
    match bytes.is_empty() {
        true => Ok(number),
        false => Err(DecodeError::Invalid("it is too long")),
    }
}

fn damaged(hint: HintId, error: DecodeError) -> StorageError {
    let text = format!("the mark of applied hints for {hint}: {error}");
    StorageError::new("read a mark", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Sequence;

    const HINT: HintId = HintId {
        store: StoreId([7; 16]),
        queue: QueueId(2),
        sequence: Sequence(0x0102),
    };

    #[test]
    fn a_mark_is_the_documented_bytes_and_damage_anywhere_is_noticed() {
        let key = key(HINT, ShardId(3));
        let expected = [&[7; 16][..], &2_u64.to_be_bytes(), &3_u64.to_be_bytes()].concat();
        assert_eq!(key.as_slice(), expected);
        let mark = raised(HINT, &key, None, None).unwrap().unwrap();
        assert_eq!(mark[..9], [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(mark.len(), 13);
        assert_eq!(decode(&key, &mark), Ok(HINT.sequence.0));
        for bit in 0..mark.len() * 8 {
            let mut flipped = mark.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &flipped).is_err(), "bit {bit}");
        }
        assert!(decode(&[0; KEY_BYTES], &mark).is_err());
    }

    #[test]
    fn only_what_is_above_the_mark_and_not_below_the_floor_is_new() {
        let key = key(HINT, ShardId(3));
        let becomes = |known: u64, sequence, floor: u64| {
            let hint = HintId {
                sequence: Sequence(sequence),
                ..HINT
            };
            let known = IVec::from(with_checksum(&key, encode(known)));
            let floor = IVec::from(with_checksum(&HINT.store.0, encode(floor)));
            let mark = raised(hint, &key, Some(&known), Some(&floor)).unwrap();
            mark.map(|mark| decode(&key, &mark).unwrap())
        };
        assert_eq!(becomes(5, 4, 0), None);
        assert_eq!(becomes(5, 5, 0), None);
        assert_eq!(becomes(5, 6, 0), Some(6));
        assert_eq!(
            becomes(5, 9, 2),
            Some(9),
            "hints of other shards lie between"
        );
        assert_eq!(becomes(0, 1, 3), None, "its queue is retired");
    }
}
