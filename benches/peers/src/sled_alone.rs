//! sled used naively: a key an entry.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use sled::{Batch, Db};

use crate::{
    common::{Outcome, entries::Entries},
    peer::{Peer, TAKEN_AT_A_TIME, Taken},
};

pub struct Sled {
    db: Db,
    next: AtomicU64,
    /// `flush` does not sync: this does, where it is wanted.
    log: Option<File>,
}

impl Sled {
    pub fn open(dir: &Path, syncs: bool) -> Outcome<Self> {
        let db = sled::open(dir)?;
        let log = match syncs {
            true => Some(File::open(dir.join("db"))?),
            false => None,
        };
        let last = db.last()?.and_then(|(key, _)| key.as_ref().try_into().ok());
        let next = last.map_or(0, |key| u64::from_be_bytes(key) + 1);
        Ok(Sled {
            db,
            next: AtomicU64::new(next),
            log,
        })
    }

    fn make_durable(&self) -> Outcome<()> {
        self.db.flush()?;
        if let Some(log) = &self.log {
            log.sync_data()?;
        }
        Ok(())
    }
}

impl Peer for Sled {
    fn append(&self, entry: &[u8]) -> Outcome<()> {
        let key = self.next.fetch_add(1, Relaxed).to_be_bytes();
        self.db.insert(key, entry)?;
        self.make_durable()
    }

    fn take(&self) -> Outcome<Taken> {
        let (mut taken, mut batch) = (Taken::default(), Batch::default());
        for found in self.db.iter().take(TAKEN_AT_A_TIME) {
            let (key, entry) = found?;
            taken.note(&entry);
            batch.remove(key);
        }
        if taken.entries > 0 {
            self.db.apply_batch(batch)?;
            self.make_durable()?;
        }
        Ok(taken)
    }

    fn fill(&self, entries: &Arc<Entries>, count: u64) -> Outcome<u64> {
        let mut bytes = 0;
        let mut left = count;
        while left > 0 {
            let mut batch = Batch::default();
            for _ in 0..left.min(64) {
                let entry = entries.next();
                bytes += entry.len() as u64;
                batch.insert(
                    &self.next.fetch_add(1, Relaxed).to_be_bytes(),
                    entry.as_ref(),
                );
            }
            left = left.saturating_sub(64);
            self.db.apply_batch(batch)?;
            self.db.flush()?;
        }
        self.make_durable()?;
        Ok(bytes)
    }
}
