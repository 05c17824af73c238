//! The crate persistent-queue, with its group commit, over sled or redb.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use persistent_queue::{Builder, Consumer, Durability, Producer, RedbStore, SledStore, Store};

use crate::{
    common::{Outcome, entries::Entries, producers::Until},
    peer::{Peer, TAKEN_AT_A_TIME, Taken, produce},
};

pub struct Persistent<S> {
    producer: Producer<S>,
    /// One at a time, which the crate's type asks for.
    consumer: Mutex<Consumer<S>>,
}

pub fn over_sled(dir: &Path, syncs_acks: bool) -> Outcome<Persistent<SledStore>> {
    Persistent::open(SledStore::open(dir)?, syncs_acks)
}

pub fn over_redb(dir: &Path, syncs_acks: bool) -> Outcome<Persistent<RedbStore>> {
    std::fs::create_dir_all(dir)?;
    Persistent::open(RedbStore::open(dir.join("redb"))?, syncs_acks)
}

impl<S: Store> Persistent<S> {
    fn open(store: S, syncs_acks: bool) -> Outcome<Self> {
        let (producer, consumer) = Builder::new(store)
            .capacity(usize::MAX)
            .durability(Durability::Group)
            .durable_acks(syncs_acks)
            .open()?;
        Ok(Persistent {
            producer,
            consumer: Mutex::new(consumer),
        })
    }
}

impl<S: Store> Peer for Persistent<S> {
    fn append(&self, entry: &[u8]) -> Outcome<()> {
        Ok(self.producer.push(entry)?)
    }

    fn take(&self) -> Outcome<Taken> {
        let consumer = self.consumer.lock();
        let mut taken = Taken::default();
        // It has no acknowledgement of several.
        while (taken.entries as usize) < TAKEN_AT_A_TIME {
            let Some(entry) = consumer.reserve()? else {
                break;
            };
            taken.note(&entry);
            entry.ack()?;
        }
        Ok(taken)
    }

    fn fill(&self, entries: &Arc<Entries>, count: u64) -> Outcome<u64> {
        Ok(produce(self, entries, 64, Until::Entries(count))?.bytes)
    }
}
