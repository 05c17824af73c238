//! What to be measured against: a file, one write and one fdatasync for all that wait, and nothing else, which is the limit; and
//! sled by itself, a transaction an entry.
//!
//! Callers, hand-over and answers are those of the store (tasks, a queue under a mutex, one thread, a oneshot each), so
//! that the ratio is about what is done with the bytes.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Write},
    mem,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use bytes::Bytes;
use hinted_handoff::{
    open_database,
    sled::{Transactional, transaction::TransactionResult},
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{Outcome, producers::Target};

type Told = Result<(), io::ErrorKind>;

#[derive(Default)]
struct Waiting {
    entries: Vec<(Bytes, oneshot::Sender<Told>)>,
    closed: bool,
}

#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

/// A thread that commits all that waits as one group, again and again.
pub struct Grouped {
    inbox: Arc<Inbox>,
    thread: JoinHandle<()>,
}

/// What a producer holds of it.
#[derive(Clone)]
pub struct GroupWriter(Arc<Inbox>);

impl Grouped {
    /// Appends to a new file.
    pub fn file(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)?;
        let mut group = Vec::new();
        Self::start(move |entries| {
            group.clear();
            for entry in entries {
                group.extend_from_slice(&(entry.len() as u32).to_be_bytes());
                group.extend_from_slice(entry);
            }
            file.write_all(&group)?;
            file.sync_data()
        })
    }

    /// Changes two trees of a new database of sled's for each entry: a row of `row_bytes` in one of `ranges` in turn, and
    /// the entry in a queue. A transaction an entry; one flush, and the fsync that it lacks, for all that wait.
    pub fn sled(dir: &Path, ranges: u64, row_bytes: usize) -> Outcome<Self> {
        let db = open_database(&hinted_handoff::database_config(dir))?;
        let (rows, queue) = (db.open_tree("rows")?, db.open_tree("queue")?);
        let log = File::open(dir.join("db"))?;
        let mut turn = 0u64;
        let mut transact = move |entry: &Bytes| {
            let row = row_key(turn % ranges, turn / ranges);
            let value = entry.get(..row_bytes).unwrap_or(entry);
            let done: TransactionResult<(), Infallible> =
                (&rows, &queue).transaction(|(rows, queue)| {
                    rows.insert(row.as_slice(), value)?;
                    queue.insert(turn.to_be_bytes().as_slice(), &**entry)?;
                    Ok(())
                });
            turn += 1;
            done.map_err(io::Error::other)
        };
        Ok(Self::start(move |entries| {
            for entry in entries {
                transact(entry)?;
            }
            db.flush()?;
            log.sync_data()
        })?)
    }

    fn start(
        mut commit: impl FnMut(&mut dyn Iterator<Item = &Bytes>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let inbox_there = Arc::clone(&inbox);
        let thread = std::thread::Builder::new()
            .name("raw-commit".to_owned())
            .spawn(move || {
                while let Some(taken) = inbox_there.take() {
                    let told = commit(&mut taken.iter().map(|(entry, _)| entry));
                    let told = told.map_err(|error| error.kind());
                    for (_, tell) in taken {
                        // Nobody gives up waiting here.
                        let _ = tell.send(told);
                    }
                }
            })?;
        Ok(Grouped { inbox, thread })
    }

    pub fn writer(&self) -> GroupWriter {
        GroupWriter(Arc::clone(&self.inbox))
    }

    pub fn close(self) -> Outcome<()> {
        self.inbox.waiting.lock().closed = true;
        self.inbox.filled.notify_one();
        self.thread
            .join()
            .map_err(|_| "the thread of a raw group commit panicked".into())
    }
}

/// The key of a row of the host's: the rows of a range are neighbours.
pub fn row_key(range: u64, number: u64) -> [u8; 16] {
    (u128::from(range) << 64 | u128::from(number)).to_be_bytes()
}

impl Inbox {
    /// All that waits, or `None` once it is closed and empty.
    fn take(&self) -> Option<Vec<(Bytes, oneshot::Sender<Told>)>> {
        let mut waiting = self.waiting.lock();
        while waiting.entries.is_empty() {
            if waiting.closed {
                return None;
            }
            self.filled.wait(&mut waiting);
        }
        Some(mem::take(&mut waiting.entries))
    }
}

impl Target for GroupWriter {
    async fn append(&self, entry: Bytes) -> Outcome<()> {
        let (tell, told) = oneshot::channel();
        self.0.waiting.lock().entries.push((entry, tell));
        self.0.filled.notify_one();
        told.await?.map_err(|kind| io::Error::from(kind).into())
    }
}
