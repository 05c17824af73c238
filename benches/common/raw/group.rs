//! Group commit by a thread.
//!
//! Callers, hand-over and answers are those of the store (tasks, a queue under a mutex, one thread,
//! a oneshot each), so that the ratio is about what is done with the bytes.

use std::{io, mem, sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::super::{Outcome, producers::Target};

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
    /// `commit` makes the entries durable that it is given.
    pub fn start(
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
