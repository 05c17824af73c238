//! What a transaction's closure sees of the host's trees: the rows as they are, under what it has
//! written itself.
//!
//! Nothing it writes reaches the database before the commit thread has found that all it read is
//! still so.

use std::cell::{Cell, RefCell};

use sled::{IVec, Tree};

use super::{
    block::CHUNK_BYTES,
    bounds::GROUP_BYTES,
    cursor::CURSOR_BYTES,
    inbox::APPEND_OVERHEAD_BYTES,
    keys::{CHUNK_KEY_BYTES, CURSOR_KEY_BYTES},
    proposal::{Draft, same_database},
    rows::{RowMap, read_row},
};
use crate::error::{StorageError, TransactionError};

/// SLED.md rule 3: 16 of them, with their keys, stay below a quarter of a segment.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// An index page holds up to 256 keys; these stay below a quarter of a segment too.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// The commit thread looks at every row that was read, while everybody else waits.
pub const READS_MAX: usize = 10_000;
/// They are kept until the transaction is answered.
pub const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a transaction read and would write of one tree.
#[derive(Debug, Clone)]
pub struct TreeChanges {
    pub tree: Tree,
    /// As they were when they were read.
    pub reads: RowMap,
    pub writes: RowMap,
}

/// What one transaction may still take, over all its trees and hints.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: Cell<usize>,
    /// Of these, bytes of values that are removed.
    removed_bytes: Cell<usize>,
    reads: Cell<usize>,
    read_bytes: Cell<usize>,
    /// The first read of a row that failed: then it counts for nothing what the closure says.
    failed: RefCell<Option<StorageError>>,
}

impl Budget {
    /// Bytes that will be handed to the engine. As in trimming, a removal counts as its key and the
    /// value that it removes: sled rewrites the pages around it.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub fn removed_bytes(&self) -> usize {
        self.removed_bytes.get()
    }

    pub fn read_bytes(&self) -> usize {
        self.read_bytes.get()
    }

    pub fn take_failure(&self) -> Option<StorageError> {
        self.failed.borrow_mut().take()
    }

    /// Counts a hint, as if it were a block of its own that does not compress.
    pub fn add_hint(&self, raw_bytes: usize) -> Result<(), TransactionError> {
        let keys = raw_bytes / CHUNK_BYTES * CHUNK_KEY_BYTES;
        self.replace(0, raw_bytes + keys + APPEND_OVERHEAD_BYTES)
    }

    /// Counts a cursor that moves.
    pub fn add_ack(&self) -> Result<(), TransactionError> {
        self.replace(0, CURSOR_KEY_BYTES + CURSOR_BYTES)
    }

    fn replace(&self, old: usize, new: usize) -> Result<(), TransactionError> {
        let bytes = self.bytes.get() - old + new;
        within("rows and hints", bytes, GROUP_BYTES)?;
        self.bytes.set(bytes);
        Ok(())
    }

    fn add_read(&self, bytes: usize) -> Result<(), TransactionError> {
        let (reads, bytes) = (self.reads.get() + 1, self.read_bytes.get() + bytes);
        within("rows that were read", reads, READS_MAX)?;
        within("bytes that were read", bytes, READ_BYTES_MAX)?;
        self.reads.set(reads);
        self.read_bytes.set(bytes);
        Ok(())
    }

    /// A row is to be written, perhaps not for the first time.
    fn add_write(
        &self,
        tree: &Tree,
        writes: Option<&RowMap>,
        key: &[u8],
        value: &Option<IVec>,
    ) -> Result<(), TransactionError> {
        within("a key", key.len(), KEY_BYTES_MAX)?;
        within(
            "a value",
            value.as_ref().map_or(0, |it| it.len()),
            VALUE_BYTES_MAX,
        )?;
        let before = writes.and_then(|writes| writes.get(key));
        // Counted once, and not taken off again if the row is written after all.
        let removed = match (value, before) {
            (None, None | Some(Some(_))) => {
                let row = read_row(tree, key).map_err(|cause| self.fail(cause))?;
                row.map_or(0, |row| row.len())
            }
            _ => 0,
        };
        let before = before.map_or(0, |before| row_bytes(key, before));
        self.replace(before, row_bytes(key, value) + removed)?;
        self.removed_bytes.set(self.removed_bytes.get() + removed);
        Ok(())
    }

    fn fail(&self, cause: StorageError) -> TransactionError {
        *self.failed.borrow_mut() = Some(cause.clone());
        TransactionError::Read(cause)
    }
}

fn within(what: &'static str, size: usize, max: usize) -> Result<(), TransactionError> {
    match size <= max {
        true => Ok(()),
        false => Err(TransactionError::TransactionTooLarge {
            what,
            size: size as u64,
            max: max as u64,
        }),
    }
}

/// One of the host's trees, within a transaction.
///
/// It shows the rows as they are under what this transaction has written. That other transactions
/// change rows between two reads is found out before anything is committed, and then the closure is
/// run again; until then it may see rows that do not fit together.
#[derive(Debug)]
pub struct Rows<'a> {
    tree: &'a Tree,
    budget: &'a Budget,
    reads: RowMap,
    writes: RowMap,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(tree: &'a Tree, budget: &'a Budget) -> Self {
        Rows {
            tree,
            budget,
            reads: RowMap::new(),
            writes: RowMap::new(),
        }
    }

    pub(crate) fn into_changes(self) -> TreeChanges {
        TreeChanges {
            tree: self.tree.clone(),
            reads: self.reads,
            writes: self.writes,
        }
    }

    /// The row's value, `None` if there is no such row.
    ///
    /// # Errors
    /// [`TransactionError::TransactionTooLarge`] when more than 10,000 rows or 16 MiB are read,
    /// [`TransactionError::Read`] if the database fails; the transaction cannot be committed then.
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, TransactionError> {
        let key = key.as_ref();
        if let Some(known) = self.writes.get(key).or_else(|| self.reads.get(key)) {
            return Ok(known.clone());
        }
        let value = read_row(self.tree, key).map_err(|cause| self.budget.fail(cause))?;
        self.budget.add_read(row_bytes(key, &value))?;
        self.reads.insert(key.into(), value.clone());
        Ok(value)
    }

    /// Makes `value` the row's value. A blind write: rows that are only written conflict with
    /// nobody.
    ///
    /// # Errors
    /// [`TransactionError::TransactionTooLarge`] for a key over 4 KiB, a value over 64 KiB, or when
    /// all rows and hints together come to more than 1 MiB. The row is then as it was.
    pub fn insert(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl Into<IVec>,
    ) -> Result<(), TransactionError> {
        self.write(key.as_ref(), Some(value.into()))
    }

    /// Makes the row go, if there is one. It counts as its key and the value that goes.
    ///
    /// # Errors
    /// As [`insert`](Rows::insert), and [`TransactionError::Read`] if the database fails.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<(), TransactionError> {
        self.write(key.as_ref(), None)
    }

    fn write(&mut self, key: &[u8], value: Option<IVec>) -> Result<(), TransactionError> {
        self.budget
            .add_write(self.tree, Some(&self.writes), key, &value)?;
        self.writes.insert(key.into(), value);
        Ok(())
    }
}

fn row_bytes(key: &[u8], value: &Option<IVec>) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len())
}

/// Rows to be written and removed as one, without having read anything: what a [`sled::Batch`] is
/// for one tree, over any number of trees of a shared database. See
/// [`HintedHandoff::apply`](crate::HintedHandoff::apply).
#[derive(Debug, Default)]
pub struct RowBatch {
    changes: Vec<(IVec, TreeChanges)>,
    budget: Budget,
}

impl RowBatch {
    /// An empty batch.
    pub fn new() -> Self {
        RowBatch::default()
    }

    /// Makes `value` the value of the row `key` of `tree`.
    ///
    /// # Errors
    /// [`TransactionError::TransactionTooLarge`] for a key over 4 KiB, a value over 64 KiB, or more
    /// than 1 MiB in all. The batch is then as it was.
    pub fn insert(
        &mut self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
        value: impl Into<IVec>,
    ) -> Result<&mut Self, TransactionError> {
        self.write(tree, key.as_ref(), Some(value.into()))
    }

    /// Makes the row `key` of `tree` go, if there is one.
    ///
    /// # Errors
    /// As [`insert`](RowBatch::insert).
    pub fn remove(
        &mut self,
        tree: &Tree,
        key: impl AsRef<[u8]>,
    ) -> Result<&mut Self, TransactionError> {
        self.write(tree, key.as_ref(), None)
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn write(
        &mut self,
        tree: &Tree,
        key: &[u8],
        value: Option<IVec>,
    ) -> Result<&mut Self, TransactionError> {
        let name = tree.name();
        let is_it = |(known, changes): &&mut (IVec, TreeChanges)| {
            *known == name && same_database(&changes.tree, tree)
        };
        let known = self.changes.iter_mut().find(is_it);
        let writes = known.as_ref().map(|(_, known)| &known.writes);
        self.budget.add_write(tree, writes, key, &value)?;
        match known {
            Some((_, known)) => {
                known.writes.insert(key.into(), value);
            }
            None => {
                let changes = TreeChanges {
                    tree: tree.clone(),
                    reads: RowMap::new(),
                    writes: RowMap::from([(key.into(), value)]),
                };
                self.changes.push((name, changes));
            }
        }
        Ok(self)
    }

    pub(crate) fn into_draft(self) -> Draft {
        let changes = self.changes.into_iter().map(|(_, changes)| changes);
        Draft::new(changes.collect(), Vec::new(), Vec::new(), &self.budget)
    }
}
