//! The only door through which a store writes to sled. It keeps the rules that this takes, whoever
//! writes.
//!
//! - docs/sled.md rule 2: no more than a group's bytes are handed over between two fsyncs, nor what
//!   makes the log grow by more than a part of a segment.
//! - Rule 4: single inserts and removals, and one transaction between two commits, since each of
//!   these seals a buffer of its own.
//! - Rule 9: after an error nobody knows what was written, so nothing more is.
//!
//! A database has one writer at a time.

use std::sync::Arc;

use crate::{
    error::StorageError,
    store::{
        bounds::GROUP_BYTES,
        engine::{
            generation::Engine,
            growth::DUE_BYTES,
            rows::{self, RowMap},
            table::{self, IVec, Table},
        },
        failpoints::{Safeguard, is_off},
    },
};

/// What whoever writes does around each commit, the writer's own ones included.
pub trait AroundCommit: Send {
    fn before(&self);

    /// So many bytes are durable.
    ///
    /// # Errors
    /// They are not, in a file that the next open will find.
    fn after(&self, bytes: usize) -> Result<(), StorageError>;
}

/// What a transaction wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct Transacted {
    /// Keys, values and removals.
    pub bytes: usize,
    /// What the log has grown by.
    pub log_bytes: u64,
}

pub struct Writer {
    engine: Arc<Engine>,
    /// What is done, for errors.
    action: &'static str,
    /// The one that makes it commit by itself.
    safeguard: Safeguard,
    /// Keys, values and removals since the last commit.
    handed_bytes: usize,
    /// There was a transaction since the last commit.
    has_transaction: bool,
    has_failed: bool,
    around: Option<Box<dyn AroundCommit>>,
}

impl Writer {
    pub fn new(engine: Arc<Engine>, action: &'static str, safeguard: Safeguard) -> Writer {
        Writer {
            engine,
            action,
            safeguard,
            handed_bytes: 0,
            has_transaction: false,
            has_failed: false,
            around: None,
        }
    }

    pub fn around_commits(mut self, around: impl AroundCommit + 'static) -> Writer {
        self.around = Some(Box::new(around));
        self
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Gives the engine back, to be closed.
    pub fn into_engine(self) -> Arc<Engine> {
        self.engine
    }

    /// What becomes durable with the next commit.
    pub fn handed_bytes(&self) -> usize {
        self.handed_bytes
    }

    /// Writes a key, and makes all before it durable first where that is due.
    pub fn put(
        &mut self,
        table: &Table,
        key: &[u8],
        value: impl Into<IVec>,
    ) -> Result<(), StorageError> {
        let value = value.into();
        let bytes = key.len() + value.len();
        let is_full = self.handed_bytes > 0 && self.handed_bytes + bytes > GROUP_BYTES;
        self.make_room(bytes, is_full)?;
        let written = table.0.insert(key, value).map(drop);
        self.checked(written)
    }

    /// Removes a key with a value of so many bytes. Removing writes little, so their bytes alone
    /// make no commit due; what it does write is counted by the length of the log.
    pub fn remove(
        &mut self,
        table: &Table,
        key: &[u8],
        value_bytes: usize,
    ) -> Result<(), StorageError> {
        self.make_room(key.len() + value_bytes, false)?;
        let removed = table.0.remove(key).map(drop);
        self.checked(removed)
    }

    /// Writes to several tables as one. `removed_bytes` is what the removals among it remove.
    pub fn transact(
        &mut self,
        writes: &[(&Table, &RowMap)],
        removed_bytes: usize,
    ) -> Result<Transacted, StorageError> {
        let rows = || writes.iter().flat_map(|(_, rows)| rows.iter());
        if rows().next().is_none() {
            return Ok(Transacted::default());
        }
        let row_bytes = |(key, value): (&IVec, &Option<IVec>)| {
            key.len() + value.as_ref().map_or(0, |it| it.len())
        };
        let bytes = removed_bytes + rows().map(row_bytes).sum::<usize>();
        let is_full = self.handed_bytes > 0 && self.handed_bytes + bytes > GROUP_BYTES;
        let is_due = self.engine.is_due_before_batch();
        if self.has_transaction || is_full || self.checked(is_due)? {
            self.commit()?;
        }
        let before = self.unsynced_bytes()?;
        self.has_transaction = true;
        self.handed_bytes += bytes;
        let applied = rows::apply(writes);
        self.checked(applied)?;
        let after = self.unsynced_bytes()?;
        // What comes behind it may have segments of it written over.
        if after > DUE_BYTES {
            self.commit()?;
        }
        let log_bytes = after.saturating_sub(before);
        Ok(Transacted { bytes, log_bytes })
    }

    /// Makes all that was handed over durable.
    pub fn commit(&mut self) -> Result<(), StorageError> {
        if self.has_failed {
            return Err(StorageError::new(self.action, "an earlier write failed"));
        }
        if let Some(around) = &self.around {
            around.before();
        }
        let bytes = std::mem::take(&mut self.handed_bytes);
        self.has_transaction = false;
        let committed = self.engine.commit();
        self.has_failed = committed.is_err();
        committed?;
        self.around.as_ref().map_or(Ok(()), |it| it.after(bytes))
    }

    /// While nothing is written: whether the disk still takes what was. In a shared database the
    /// host writes, and sled's own thread moves pages about and only logs what an fsync of its
    /// says; so what is not on the disk there may come to more than it should, too.
    pub fn look(&mut self) -> Result<(), StorageError> {
        let is_due = self.engine.is_due_before_batch();
        match self.checked(is_due)? {
            true => self.commit(),
            false => self.engine.fsync(),
        }
    }

    fn make_room(&mut self, bytes: usize, is_full: bool) -> Result<(), StorageError> {
        let is_due = self.engine.is_due();
        if (self.checked(is_due)? || is_full) && !is_off(self.safeguard) {
            self.commit()?;
        }
        self.handed_bytes += bytes;
        Ok(())
    }

    fn unsynced_bytes(&mut self) -> Result<u64, StorageError> {
        let bytes = self.engine.unsynced_bytes();
        self.checked(bytes)
    }

    fn checked<T>(&mut self, result: table::Result<T>) -> Result<T, StorageError> {
        if self.has_failed {
            return Err(StorageError::new(self.action, "an earlier write failed"));
        }
        result.map_err(|error| {
            // A page that does not read was not written to.
            self.has_failed = !matches!(error, table::Error::Corruption { .. });
            StorageError::new(self.action, error)
        })
    }
}

#[cfg(all(test, feature = "internals"))]
mod tests {
    use super::*;
    use crate::store::{bounds::SEGMENT_BYTES, failpoints::CommitFault};

    fn writer() -> (tempfile::TempDir, Arc<Engine>, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Engine::open(dir.path(), Arc::default()).unwrap());
        let writer = Writer::new(Arc::clone(&engine), "write", Safeguard::GroupCommits);
        (dir, engine, writer)
    }

    fn row(key: u8) -> RowMap {
        [(IVec::from(&[key]), Some(IVec::from(b"a row")))].into()
    }

    #[test]
    fn of_two_transactions_the_first_is_durable_before_the_second_is_begun() {
        let (_dir, engine, mut writer) = writer();
        let before = engine.fsyncs();
        let transact = |writer: &mut Writer, key| {
            writer.transact(&[(&engine.hints, &row(key))], 0).unwrap();
            engine.fsyncs() - before
        };
        assert_eq!(transact(&mut writer, 1), 0);
        assert_eq!(transact(&mut writer, 2), 1);
        writer.commit().unwrap();
        assert_eq!(
            transact(&mut writer, 3),
            2,
            "one after a commit needs no other"
        );
    }

    #[test]
    fn nothing_is_written_after_a_commit_that_failed() {
        let (_dir, engine, mut writer) = writer();
        writer
            .put(&engine.hints, &[1], b"before".as_slice())
            .unwrap();
        engine.faults.on_commit(CommitFault::Fail);
        writer.commit().unwrap_err();
        engine.faults.on_commit(CommitFault::None);
        writer
            .put(&engine.hints, &[2], b"after".as_slice())
            .unwrap_err();
        writer.remove(&engine.hints, &[1], 6).unwrap_err();
        writer.transact(&[(&engine.hints, &row(3))], 0).unwrap_err();
        writer.look().unwrap_err();
        writer.commit().unwrap_err();
        let keys: Vec<_> = engine.hints.iter().map(|it| it.unwrap().0).collect();
        assert_eq!(keys, [[1]]);
    }

    /// sled writes whole leaves, many times what is handed over. Without asking it that is 8.9 MB
    /// here.
    #[test]
    fn rows_that_come_in_no_order_are_made_durable_long_before_a_segment_is_full() {
        const ROWS: u64 = 3000;
        let (_dir, engine, mut writer) = writer();
        engine.growth().take_most_bytes();
        for number in (0..ROWS).map(|number| number * 7 % ROWS) {
            let row = vec![number as u8; 12_000];
            writer
                .put(&engine.hints, &number.to_be_bytes(), row)
                .unwrap();
        }
        writer.commit().unwrap();
        let most = engine.growth().take_most_bytes();
        assert!(most < SEGMENT_BYTES as u64 / 2, "{most}");
    }
}
