//! How far sled's log has come since the last fsync, whatever made it grow.
//!
//! sled writes whole leaves: the tenth change to one, and each half of one that is split, so what
//! it is handed says little of what it writes. It takes a segment that is done with for new records
//! two segments behind those that replaced what was in it. So if less than two segments are ever
//! written between two fsyncs, what is written over was replaced durably (docs/sled.md rule 2).
//!
//! Only a message of its own tells where the log ends, so that is asked after some keys. A batch of
//! sled's cannot be interrupted, and need not be: nothing of one counts as written, for what may be
//! written over, before all of it is.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::store::bounds::SEGMENT_BYTES;

/// With more than this an fsync is due.
pub const DUE_BYTES: u64 = SEGMENT_BYTES as u64 / 4;
/// Keys that are written before it is asked again. One of ours costs a leaf of 17 chunks at most,
/// as a rule.
const KEYS_UNASKED: u32 = 4;

/// What is known of it. Whoever writes to a database is one at a time, so there is no order to keep
/// between these.
pub struct Growth {
    /// The log is durable up to here.
    durable: AtomicI64,
    /// Keys since it was asked last.
    unasked: AtomicU32,
    /// The most between two fsyncs, for tests.
    most_bytes: AtomicU64,
}

impl Growth {
    pub fn of(db: &sled::Db) -> Growth {
        Growth {
            durable: AtomicI64::new(written(db)),
            unasked: AtomicU32::new(0),
            most_bytes: AtomicU64::new(0),
        }
    }

    /// To be asked before each key that is written or removed: whether all so far is to be made
    /// durable first.
    pub fn is_due(&self, db: &sled::Db) -> sled::Result<bool> {
        if self.unasked.fetch_add(1, Relaxed) < KEYS_UNASKED {
            return Ok(false);
        }
        self.unasked.store(0, Relaxed);
        Ok(self.bytes(db)? > DUE_BYTES)
    }

    /// To be asked before a batch: whether all so far is to be made durable first. sled may take
    /// back a segment for the end of a batch that was replaced by what stands before the one in
    /// which the batch begins.
    pub fn is_due_before_batch(&self, db: &sled::Db) -> sled::Result<bool> {
        let segment = |at: i64| at / SEGMENT_BYTES as i64;
        Ok(segment(end(db)?) != segment(self.durable.load(Relaxed)))
    }

    /// What the log has grown by since the last fsync.
    pub fn bytes(&self, db: &sled::Db) -> sled::Result<u64> {
        Ok(self.bytes_until(end(db)?))
    }

    /// All that was handed over is flushed: how far that is.
    pub fn flushed(&self, db: &sled::Db) -> i64 {
        let flushed = written(db);
        self.most_bytes
            .fetch_max(self.bytes_until(flushed), Relaxed);
        flushed
    }

    /// The log up to there is fsynced.
    pub fn synced(&self, flushed: i64) {
        self.durable.store(flushed, Relaxed);
        self.unasked.store(0, Relaxed);
    }

    /// The most that was between two fsyncs since this was asked last.
    #[cfg(feature = "internals")]
    pub fn take_most_bytes(&self) -> u64 {
        self.most_bytes.swap(0, Relaxed)
    }

    fn bytes_until(&self, end: i64) -> u64 {
        u64::try_from(end - self.durable.load(Relaxed)).unwrap_or(0)
    }
}

/// Where what sled has written ends, all before it included.
fn written(db: &sled::Db) -> i64 {
    db.context.pagecache.log.stable_offset() + 1
}

/// Where the next message would stand: that of one which is called off, as sled does with some of
/// its own.
fn end(db: &sled::Db) -> sled::Result<i64> {
    let log = &db.context.pagecache.log;
    let message = log.reserve(sled::LogKind::Free, 0, &(), &sled::pin())?;
    message.abort().map(|(end, _)| end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::engine::generation::Engine;

    const ROWS: u64 = 2400;

    /// Rows as large as any of ours, and more for each leaf than sled adds to it before it writes
    /// it anew.
    fn rows() -> impl Iterator<Item = ([u8; 8], Vec<u8>)> {
        // Not in order, so that leaves are written again and again.
        let numbers = (0..ROWS).map(|number| number * 7 % ROWS);
        numbers.map(|number| (number.to_be_bytes(), vec![number as u8; 16_000]))
    }

    /// What sled wrote, and the length of its log.
    fn written(write: impl FnOnce(&Engine)) -> (u64, u64) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Arc::default()).unwrap();
        engine.commit().unwrap();
        write(&engine);
        let bytes = engine.unsynced_bytes().unwrap();
        engine.db().flush().unwrap();
        (bytes, engine.log_bytes())
    }

    #[test]
    fn a_batch_writes_over_nothing_of_its_own_where_plain_inserts_do() {
        let (bytes, log) = written(|engine| {
            for (key, value) in rows() {
                engine.hints.0.insert(key, value).unwrap();
                engine.db().flush().unwrap();
            }
        });
        assert!(log < bytes, "{log} of {bytes}");
        let (bytes, log) = written(|engine| {
            let mut batch = sled::Batch::default();
            rows().for_each(|(key, value)| batch.insert(&key, value));
            engine.hints.0.apply_batch(batch).unwrap();
        });
        assert!(log >= bytes, "{log} of {bytes}");
        assert!(bytes > 4 * SEGMENT_BYTES as u64, "{bytes}");
    }

    #[test]
    fn what_is_written_for_a_key_is_counted_until_it_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Arc::default()).unwrap();
        engine.commit().unwrap();
        let mut due = 0;
        for (key, value) in rows() {
            if engine.is_due().unwrap() {
                due += 1;
                engine.commit().unwrap();
                assert_eq!(engine.unsynced_bytes().unwrap(), 0);
            }
            engine.hints.0.insert(key, value).unwrap();
            assert!(engine.unsynced_bytes().unwrap() < SEGMENT_BYTES as u64);
        }
        assert!(due > 15, "{due}");
    }
}
