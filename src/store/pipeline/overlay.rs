//! What a transaction's closure sees of the host's trees: the rows as they are, under what it has
//! written itself.
//!
//! Nothing it writes reaches the database before the commit thread has found that all it read is
//! still so.

use sled::{IVec, Tree};

use crate::{
    error::TransactionError,
    store::{
        engine::{
            rows::{RowMap, read_row},
            table::same_database,
        },
        pipeline::{
            batch::RowChanges,
            changes::{Budget, TreeChanges, row_bytes},
        },
    },
};

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

    pub(crate) fn into_changes(self) -> RowChanges {
        let changes = self.changes.into_iter().map(|(_, changes)| changes);
        RowChanges::new(changes.collect(), &self.budget)
    }
}
