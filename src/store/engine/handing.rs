//! Handing keys over to a database that nobody else writes to, as an open does, within the bounds
//! of SLED.md rules 2 and 4: plain inserts and removals, and an fsync whenever one is due.

use sled::{IVec, Tree};

use crate::{
    error::StorageError,
    store::{
        bounds::GROUP_BYTES,
        engine::{
            generation::Engine,
            rows::{self, RowMap},
        },
    },
};

pub struct Handing<'a> {
    engine: &'a Engine,
    /// What is done, for errors.
    what: &'static str,
    /// Handed over since the last fsync.
    bytes: usize,
}

impl<'a> Handing<'a> {
    pub fn new(engine: &'a Engine, what: &'static str) -> Self {
        let bytes = 0;
        Handing {
            engine,
            what,
            bytes,
        }
    }

    /// Returns whether all that was handed over before was made durable first.
    pub fn put(
        &mut self,
        tree: &Tree,
        key: &[u8],
        value: impl Into<IVec>,
    ) -> Result<bool, StorageError> {
        let value = value.into();
        let is_durable = self.make_room(key.len() + value.len())?;
        tree.insert(key, value)
            .map_err(|error| StorageError::new(self.what, error))?;
        Ok(is_durable)
    }

    pub fn remove(&mut self, tree: &Tree, key: &[u8]) -> Result<(), StorageError> {
        self.make_room(key.len())?;
        tree.remove(key)
            .map_err(|error| StorageError::new(self.what, error))?;
        Ok(())
    }

    /// Writes to several trees as one, with nothing unflushed before it.
    pub fn put_as_one(&mut self, writes: &[(&Tree, &RowMap)]) -> Result<(), StorageError> {
        if writes.iter().all(|(_, rows)| rows.is_empty()) {
            return Ok(());
        }
        self.finish()?;
        rows::apply(writes).map_err(|error| StorageError::new(self.what, error))?;
        self.engine.commit()
    }

    /// Makes all durable.
    pub fn finish(&mut self) -> Result<(), StorageError> {
        self.bytes = 0;
        self.engine.commit()
    }

    fn make_room(&mut self, bytes: usize) -> Result<bool, StorageError> {
        let is_due = self.engine.is_due();
        let is_due = is_due.map_err(|error| StorageError::new(self.what, error))?;
        let is_full = self.bytes > 0 && self.bytes + bytes > GROUP_BYTES;
        if is_due || is_full {
            self.finish()?;
        }
        self.bytes += bytes;
        Ok(is_due || is_full)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::bounds::SEGMENT_BYTES;

    /// sled writes whole leaves, many times what is handed over. Without asking it that is 8.9 MB
    /// here.
    #[test]
    fn rows_that_come_in_no_order_are_made_durable_long_before_a_segment_is_full() {
        const ROWS: u64 = 3000;
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Arc::default()).unwrap();
        engine.growth().take_most_bytes();
        let mut handing = Handing::new(&engine, "write a row");
        for number in (0..ROWS).map(|number| number * 7 % ROWS) {
            let row = vec![number as u8; 12_000];
            handing
                .put(&engine.hints, &number.to_be_bytes(), row)
                .unwrap();
        }
        handing.finish().unwrap();
        let most = engine.growth().take_most_bytes();
        assert!(most < SEGMENT_BYTES as u64 / 2, "{most}");
    }
}
