//! The crates that write files of their own: queue-file and yaque.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use queue_file::QueueFile;
use yaque::{Receiver, Sender, TryRecvError};

use crate::{
    common::{Outcome, entries::Entries},
    peer::{Peer, TAKEN_AT_A_TIME, Taken},
};

/// queue-file, whose methods ask for a lock.
pub struct InQueueFile(Mutex<QueueFile>);

impl InQueueFile {
    pub fn open(dir: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(InQueueFile(Mutex::new(QueueFile::open(dir.join("queue"))?)))
    }
}

impl Peer for InQueueFile {
    fn append(&self, entry: &[u8]) -> Outcome<()> {
        Ok(self.0.lock().add(entry)?)
    }

    fn take(&self) -> Outcome<Taken> {
        let mut queue = self.0.lock();
        let mut taken = Taken::default();
        let mut entries = queue.iter();
        while (taken.entries as usize) < TAKEN_AT_A_TIME {
            let Some(entry) = entries.borrowed_next() else {
                break;
            };
            taken.note(entry);
        }
        if taken.entries > 0 {
            queue.remove_n(taken.entries as usize)?;
        }
        Ok(taken)
    }

    fn fill(&self, entries: &Arc<Entries>, count: u64) -> Outcome<u64> {
        let mut bytes = 0;
        let mut left = count;
        while left > 0 {
            let group: Vec<_> = (0..left.min(1000)).map(|_| entries.next()).collect();
            bytes += group.iter().map(|entry| entry.len() as u64).sum::<u64>();
            left -= group.len() as u64;
            self.0.lock().add_n(group)?;
        }
        Ok(bytes)
    }
}

/// yaque, whose two ends are one each.
pub struct Yaque {
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
}

impl Yaque {
    pub fn open(dir: &Path) -> Outcome<Self> {
        let (sender, receiver) = yaque::channel(dir)?;
        Ok(Yaque {
            sender: Mutex::new(sender),
            receiver: Mutex::new(receiver),
        })
    }
}

impl Peer for Yaque {
    fn append(&self, entry: &[u8]) -> Outcome<()> {
        let sent = self.sender.lock().try_send(entry);
        sent.map_err(|error| error.to_string().into())
    }

    fn take(&self) -> Outcome<Taken> {
        let mut receiver = self.receiver.lock();
        let mut taken = Taken::default();
        match receiver.try_recv_batch_up_to(TAKEN_AT_A_TIME) {
            Ok(entries) => {
                for entry in entries.iter() {
                    taken.note(entry);
                }
                entries.commit()?;
            }
            Err(TryRecvError::QueueEmpty) => {}
            Err(error) => return Err(format!("{error:?}").into()),
        }
        Ok(taken)
    }

    fn fill(&self, entries: &Arc<Entries>, count: u64) -> Outcome<u64> {
        let mut bytes = 0;
        for _ in 0..count {
            let entry = entries.next();
            bytes += entry.len() as u64;
            self.append(&entry)?;
        }
        Ok(bytes)
    }
}
