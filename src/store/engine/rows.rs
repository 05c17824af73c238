//! Rows of trees: reading one, and writing several as one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use sled::{
    Tree,
    transaction::{TransactionError, Transactional},
};

use crate::{
    error::StorageError,
    store::engine::{
        generation::panic_text,
        table::{self, IVec, Table},
    },
};

/// Rows of one tree: by key, the value or that there is none.
pub type RowMap = BTreeMap<IVec, Option<IVec>>;

/// docs/sled.md rule 10: a damaged file may make a read panic. That is not the end of the store:
/// the row is the host's.
pub fn read_row(tree: &Tree, key: &[u8]) -> Result<Option<IVec>, StorageError> {
    match catch_unwind(AssertUnwindSafe(|| tree.get(key))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StorageError::new("read a row", error)),
        Err(panic) => Err(StorageError::new("read a row", panic_text(panic.as_ref()))),
    }
}

/// Writes to several trees as one, and nothing if there is nothing.
pub(super) fn apply(writes: &[(&Table, &RowMap)]) -> table::Result<()> {
    let writes: Vec<_> = writes.iter().filter(|(_, rows)| !rows.is_empty()).collect();
    let trees: Vec<&Tree> = writes.iter().map(|(table, _)| &table.0).collect();
    if trees.is_empty() {
        return Ok(());
    }
    let applied = trees.as_slice().transaction(|views| {
        for (view, (_, rows)) in views.iter().zip(&writes) {
            for (key, value) in rows.iter() {
                match value {
                    Some(value) => view.insert(key, value)?,
                    None => view.remove(key)?,
                };
            }
        }
        Ok(())
    });
    applied.map_err(|error| match error {
        TransactionError::Storage(error) => error,
        // Nothing above aborts.
        TransactionError::Abort(()) => sled::Error::ReportableBug("it was aborted".to_owned()),
    })
}
