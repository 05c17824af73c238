//! The receiving side of the fan-out: which writes a node has applied, whether they came directly
//! or as a hint.
//!
//! ```text
//! tree hh/applied_writes
//! key    boot u64 | counter u64
//! value  version u8 = 1 | when it was applied u64 (unix ms) |
//!        CRC32C over key and all of the above u32
//! ```
//! All big endian. Direct writes come in any order, so no mark stands for those below it, as it
//! does for hints.

use std::time::{SystemTime, UNIX_EPOCH};

use sled::{
    IVec, Tree,
    transaction::{TransactionalTree, UnabortableTransactionError},
};

use crate::{
    error::{StorageError, TransactionError},
    store::{
        api::applied::{decode, encode},
        format::checksum::{DecodeError, with_checksum},
        pipeline::overlay::Rows,
    },
    types::WriteId,
};

const TREE: &str = "hh/applied_writes";
const KEY_BYTES: usize = 16;
/// Ids that one transaction forgets.
const FORGOTTEN_AT_ONCE: usize = 100;
/// docs/sled.md rules 2 and 4: not too much between two flushes.
const FORGOTTEN_AT_ONCE_IN_SLED: usize = 1000;

/// Which writes of [`PointsWriter`](crate::PointsWriter)s a node has applied, so that it applies
/// each once: a write whose reply was lost comes again as a hint, and one that timed out may arrive
/// after its hint.
///
/// Beside [`AppliedHints`](crate::AppliedHints), which tells the repetitions of a hint by its id. A
/// host asks both for what comes with a hint and a [`Batch::write`](crate::Batch::write), and this
/// one for a direct write.
///
/// **What it costs, and for how long.** A row of some 30 bytes for each write. An id is needed as
/// long as the other copy may come: until the coordinator's hint is delivered, which is as long as
/// an outage lasts, or its [`Config::max_age`](crate::Config::max_age) where that is set. Forget
/// older ones with [`forget_before`](AppliedWrites::forget_before). A dead letter keeps its write's
/// id, and comes when somebody sends it on. An id that is forgotten too early costs a second
/// application, never a loss.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # use hinted_handoff::*;
/// use std::time::{Duration, SystemTime};
/// let db = open_database(&database_config(dir.path().join("db")))?;
/// let (rows, applied) = (db.open_tree("rows")?, AppliedWrites::open(&db)?);
/// let write = WriteId { boot: 7, counter: 12 }; // as it came with the points
///
/// use sled::Transactional;
/// let apply = || (&rows, applied.tree()).transaction(|(rows, marks)| {
///     let is_new = applied.apply_once_in_sled(marks, write, SystemTime::now())?;
///     if is_new {
///         rows.insert("cpu", "0.64")?;
///     }
///     Ok::<bool, sled::transaction::ConflictableTransactionError>(is_new)
/// });
/// assert!(apply()?);
/// make_durable(&db)?; // before it says that it has taken the write
/// assert!(!apply()?, "it came again, as a hint");
///
/// let week = Duration::from_secs(7 * 86_400);
/// assert_eq!(applied.forget_before_in_sled(SystemTime::now() - week)?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AppliedWrites {
    tree: Tree,
}

impl AppliedWrites {
    /// The ids in this database. Makes their tree if it is not there.
    ///
    /// # Errors
    /// What sled says.
    pub fn open(db: &sled::Db) -> Result<Self, StorageError> {
        let tree = db.open_tree(TREE);
        let tree =
            tree.map_err(|error| StorageError::new("open the tree of applied writes", error))?;
        Ok(AppliedWrites { tree })
    }

    /// The tree of the ids, to be named in transactions.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether the write is new; if it is, it is so no more once the transaction has come into
    /// effect. `marks` must be the rows of [`tree`](AppliedWrites::tree). Whoever gets false leaves
    /// everything as it is.
    ///
    /// # Errors
    /// [`TransactionError::Read`] if the row does not read or is damaged; as [`Rows::insert`].
    pub fn apply_once(
        &self,
        marks: &mut Rows<'_>,
        write: WriteId,
        now: SystemTime,
    ) -> Result<bool, TransactionError> {
        let key = key(write);
        if let Some(known) = marks.get(key)? {
            let applied = decode(&key, &known);
            applied.map_err(|error| TransactionError::Read(damaged(write, error)))?;
            return Ok(false);
        }
        marks.insert(key, row(&key, now))?;
        Ok(true)
    }

    /// [`apply_once`](AppliedWrites::apply_once) in a transaction of sled's.
    ///
    /// # Errors
    /// What sled says; [`sled::Error::ReportableBug`] if the row is damaged.
    pub fn apply_once_in_sled(
        &self,
        marks: &TransactionalTree,
        write: WriteId,
        now: SystemTime,
    ) -> Result<bool, UnabortableTransactionError> {
        let key = key(write);
        if let Some(known) = marks.get(key)? {
            decode(&key, &known).map_err(|error| {
                sled::Error::ReportableBug(format!("the row of applied write {write}: {error}"))
            })?;
            return Ok(false);
        }
        marks.insert(&key, row(&key, now))?;
        Ok(true)
    }

    /// Forgets writes that were applied before a moment, 100 of them at most; rows that are damaged
    /// go, too. `marks` must be the rows of [`tree`](AppliedWrites::tree).
    ///
    /// # Errors
    /// [`TransactionError::Read`] if the rows do not read; as [`Rows::remove`].
    pub fn forget_before(
        &self,
        marks: &mut Rows<'_>,
        moment: SystemTime,
    ) -> Result<(), TransactionError> {
        for key in self.applied_before(unix_ms(moment)).take(FORGOTTEN_AT_ONCE) {
            let read = |error| StorageError::new("read applied writes", error);
            marks.remove(key.map_err(|error| TransactionError::Read(read(error)))?)?;
        }
        Ok(())
    }

    /// [`forget_before`](AppliedWrites::forget_before) for a database that no store shares: at most
    /// 1,000 of them, outside of any transaction. Returns how many are gone; call
    /// [`make_durable`](crate::make_durable) before the next 1,000.
    ///
    /// # Errors
    /// What sled says.
    pub fn forget_before_in_sled(&self, moment: SystemTime) -> sled::Result<usize> {
        let mut gone = 0;
        let before = self.applied_before(unix_ms(moment));
        for key in before.take(FORGOTTEN_AT_ONCE_IN_SLED) {
            self.tree.remove(key?)?;
            gone += 1;
        }
        Ok(gone)
    }

    /// The keys of writes that were applied before a moment. Writes of one boot are applied about
    /// in the order of their counters, so each boot is read up to the first that is not old.
    fn applied_before(&self, unix_ms: u64) -> impl Iterator<Item = sled::Result<IVec>> + use<> {
        let tree = self.tree.clone();
        let mut from = Some([0; KEY_BYTES]);
        std::iter::from_fn(move || {
            loop {
                let (key, value) = match tree.range(from?..).next()? {
                    Ok(entry) => entry,
                    Err(error) => {
                        from = None;
                        return Some(Err(error));
                    }
                };
                let is_old = decode(&key, &value).map_or(true, |applied| applied < unix_ms);
                let (boot, counter) = split(&key);
                from = match is_old {
                    true => u128::from_be_bytes(joined(boot, counter)).checked_add(1),
                    // The next boot.
                    false => (u128::from(boot) + 1).checked_mul(1 << 64),
                }
                .map(u128::to_be_bytes);
                if is_old {
                    return Some(Ok(key));
                }
            }
        })
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn joined(boot: u64, counter: u64) -> [u8; KEY_BYTES] {
    (u128::from(boot) << 64 | u128::from(counter)).to_be_bytes()
}

fn key(write: WriteId) -> [u8; KEY_BYTES] {
    joined(write.boot, write.counter)
}

/// Boot and counter in a key. One that is too short is not ours, and read as if zeros followed.
fn split(key: &[u8]) -> (u64, u64) {
    let mut bytes = [0; KEY_BYTES];
    bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let number = u128::from_be_bytes(bytes);
    ((number >> 64) as u64, number as u64)
}

/// The value of a write that is applied now: as a mark of applied hints, with a time for its
/// number.
fn row(key: &[u8], now: SystemTime) -> Vec<u8> {
    with_checksum(key, encode(unix_ms(now)))
}

fn damaged(write: WriteId, error: DecodeError) -> StorageError {
    let text = format!("the row of applied write {write}: {error}");
    StorageError::new("read an applied write", text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn opened() -> (AppliedWrites, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        (AppliedWrites::open(&db).unwrap(), dir)
    }

    fn apply(applied: &AppliedWrites, boot: u64, counter: u64, second: u64) -> bool {
        let now = UNIX_EPOCH + Duration::from_secs(second);
        let write = WriteId { boot, counter };
        let once = |marks: &TransactionalTree| {
            let is_new = applied.apply_once_in_sled(marks, write, now)?;
            Ok::<_, sled::transaction::ConflictableTransactionError>(is_new)
        };
        applied.tree().transaction(once).unwrap()
    }

    #[test]
    fn a_row_is_the_documented_bytes_and_damage_anywhere_is_noticed() {
        let key = key(WriteId {
            boot: 0x0102,
            counter: 3,
        });
        assert_eq!(key, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        let row = row(&key, UNIX_EPOCH + Duration::from_millis(0x0405));
        assert_eq!(row[..9], [1, 0, 0, 0, 0, 0, 0, 4, 5]);
        assert_eq!(row.len(), 13);
        assert_eq!(decode(&key, &row), Ok(0x0405));
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &flipped).is_err(), "bit {bit}");
        }
        assert!(decode(&[0; KEY_BYTES], &row).is_err());
    }

    #[test]
    fn each_write_is_new_once_in_whatever_order_they_come() {
        let (applied, _dir) = opened();
        for (boot, counter) in [(1, 5), (1, 3), (2, 5), (u64::MAX, u64::MAX)] {
            assert!(apply(&applied, boot, counter, 1));
            assert!(!apply(&applied, boot, counter, 2));
        }
    }

    #[test]
    fn what_was_applied_before_a_moment_is_forgotten_boot_by_boot() {
        let (applied, _dir) = opened();
        for (boot, counter, second) in [
            (1, 1, 10),
            (1, 2, 20),
            (1, 3, 30),
            (2, 1, 15),
            (2, 2, 25),
            (u64::MAX, u64::MAX, 5),
        ] {
            assert!(apply(&applied, boot, counter, second));
        }
        let before = UNIX_EPOCH + Duration::from_secs(21);
        assert_eq!(applied.forget_before_in_sled(before), Ok(4));
        assert_eq!(applied.tree().len(), 2);
        assert!(!apply(&applied, 1, 3, 40) && !apply(&applied, 2, 2, 40));
        assert!(apply(&applied, 1, 1, 40), "it is new again");
    }

    #[test]
    fn a_damaged_row_is_an_error_and_goes_with_the_old_ones() {
        let (applied, _dir) = opened();
        let write = WriteId {
            boot: 1,
            counter: 1,
        };
        applied.tree().insert(key(write), b"nonsense").unwrap();
        let once = |marks: &TransactionalTree| {
            let is_new = applied.apply_once_in_sled(marks, write, UNIX_EPOCH)?;
            Ok::<_, sled::transaction::ConflictableTransactionError>(is_new)
        };
        assert!(applied.tree().transaction(once).is_err());
        assert_eq!(applied.forget_before_in_sled(UNIX_EPOCH), Ok(1));
        assert!(applied.tree().transaction(once).unwrap());
    }
}
