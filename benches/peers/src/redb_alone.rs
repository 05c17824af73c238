//! redb: a transaction an entry, and one for 64 that are taken.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    common::{Outcome, entries::Entries},
    peer::{Peer, TAKEN_AT_A_TIME, Taken},
};

const QUEUE: TableDefinition<u64, &[u8]> = TableDefinition::new("queue");

pub struct Redb {
    db: Database,
    next: AtomicU64,
}

impl Redb {
    pub fn open(dir: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        let db = Database::create(dir.join("redb"))?;
        let creation = db.begin_write()?;
        let last = creation.open_table(QUEUE)?.last()?.map(|it| it.0.value());
        creation.commit()?;
        Ok(Redb {
            db,
            next: AtomicU64::new(last.map_or(0, |last| last + 1)),
        })
    }
}

impl Peer for Redb {
    fn append(&self, entry: &[u8]) -> Outcome<()> {
        let transaction = self.db.begin_write()?;
        // Numbered within: there is one writer at a time.
        let key = self.next.fetch_add(1, Relaxed);
        transaction.open_table(QUEUE)?.insert(key, entry)?;
        Ok(transaction.commit()?)
    }

    fn take(&self) -> Outcome<Taken> {
        let mut taken = Taken::default();
        // A look first, so that an idle consumer does not hold up the writers.
        if self.db.begin_read()?.open_table(QUEUE)?.first()?.is_none() {
            return Ok(taken);
        }
        let transaction = self.db.begin_write()?;
        {
            let mut table = transaction.open_table(QUEUE)?;
            while (taken.entries as usize) < TAKEN_AT_A_TIME {
                let Some((_, entry)) = table.pop_first()? else {
                    break;
                };
                taken.note(entry.value());
            }
        }
        transaction.commit()?;
        Ok(taken)
    }

    fn fill(&self, entries: &Arc<Entries>, count: u64) -> Outcome<u64> {
        let mut bytes = 0;
        let transaction = self.db.begin_write()?;
        {
            let mut table = transaction.open_table(QUEUE)?;
            for _ in 0..count {
                let entry = entries.next();
                bytes += entry.len() as u64;
                table.insert(self.next.fetch_add(1, Relaxed), entry.as_ref())?;
            }
        }
        transaction.commit()?;
        Ok(bytes)
    }
}
