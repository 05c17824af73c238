//! A tree of sled's, to be read. It is written to through a [`Writer`](super::writer::Writer)
//! alone.

use std::ops::RangeBounds;

use crate::error::StorageError;

use sled::transaction::Transactional;
pub use sled::{Error, IVec};

pub type Result<T> = sled::Result<T>;

#[derive(Debug, Clone)]
pub struct Table(pub(super) sled::Tree);

impl Table {
    /// A tree of the host's.
    pub fn of_host(tree: sled::Tree) -> Table {
        Table(tree)
    }

    /// Whether a tree of the host's is in the same database.
    pub fn is_beside(&self, tree: &sled::Tree) -> bool {
        same_database(&self.0, tree)
    }

    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>> {
        self.0.get(key)
    }

    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.0.contains_key(key)
    }

    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.0.first()?.is_none())
    }

    /// docs/sled.md rule 11: not a snapshot.
    pub fn iter(&self) -> sled::Iter {
        self.0.iter()
    }

    /// docs/sled.md rule 11: not a snapshot.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> sled::Iter {
        self.0.range(range)
    }
}

/// Whether two trees are in the same database: sled compares their directories.
pub fn same_database(one: &sled::Tree, other: &sled::Tree) -> bool {
    let pair: [&sled::Tree; 2] = [one, other];
    Transactional::<()>::make_overlay(pair.as_slice()).is_ok()
}

/// Whether sled met what does not pass its checksum: opening the database again would not help.
pub fn is_damage(error: &StorageError) -> bool {
    let error = error.source.downcast_ref::<Error>();
    matches!(error, Some(Error::Corruption { .. }))
}

/// For tests that make what is found.
#[cfg(test)]
impl Table {
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl Into<IVec>) {
        self.0.insert(key, value).unwrap();
    }

    /// Whether it was there.
    pub fn remove(&self, key: impl AsRef<[u8]>) -> bool {
        self.0.remove(key).unwrap().is_some()
    }
}
