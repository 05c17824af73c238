//! What a transaction read and would write, and how much of that it may.

use std::cell::{Cell, RefCell};

use sled::{IVec, Tree};

use crate::{
    error::{StorageError, TransactionError},
    store::{
        bounds::{APPEND_OVERHEAD_BYTES, GROUP_BYTES},
        engine::rows::{RowMap, read_row},
        format::{
            block::CHUNK_BYTES,
            cursor::CURSOR_BYTES,
            keys::{CHUNK_KEY_BYTES, CURSOR_KEY_BYTES},
        },
    },
};

/// docs/sled.md rule 3: 16 of them, with their keys, stay below a quarter of a segment.
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
    /// Of these, rows that are written and removed.
    row_bytes: Cell<usize>,
    /// Of these, values that are removed.
    removed_bytes: Cell<usize>,
    reads: Cell<usize>,
    read_bytes: Cell<usize>,
    /// The first read of a row that failed: then it counts for nothing what the closure says.
    failed: RefCell<Option<StorageError>>,
}

impl Budget {
    /// Bytes that will be handed to the engine for rows. As in trimming, a removal counts as its
    /// key and the value that it removes: sled rewrites the pages around it.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes.get()
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

    pub fn add_read(&self, bytes: usize) -> Result<(), TransactionError> {
        let (reads, bytes) = (self.reads.get() + 1, self.read_bytes.get() + bytes);
        within("rows that were read", reads, READS_MAX)?;
        within("bytes that were read", bytes, READ_BYTES_MAX)?;
        self.reads.set(reads);
        self.read_bytes.set(bytes);
        Ok(())
    }

    /// A row is to be written, perhaps not for the first time.
    pub fn add_write(
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
        let bytes = row_bytes(key, value) + removed;
        self.replace(before, bytes)?;
        self.row_bytes.set(self.row_bytes.get() - before + bytes);
        self.removed_bytes.set(self.removed_bytes.get() + removed);
        Ok(())
    }

    pub fn fail(&self, cause: StorageError) -> TransactionError {
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

pub fn row_bytes(key: &[u8], value: &Option<IVec>) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len())
}
