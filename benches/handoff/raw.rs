//! The limit to be measured against: a file, one write and one fdatasync for all that wait, and nothing else.
//!
//! Callers, hand-over and answers are those of the store (tasks, a queue under a mutex, one thread, a oneshot each), so
//! that the ratio is about what is done with the bytes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    mem,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use bytes::Bytes;
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

pub struct RawFile {
    inbox: Arc<Inbox>,
    thread: JoinHandle<()>,
}

/// What a producer holds of it.
#[derive(Clone)]
pub struct RawWriter(Arc<Inbox>);

impl RawFile {
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)?;
        let inbox = Arc::new(Inbox::default());
        let inbox_there = Arc::clone(&inbox);
        let thread = std::thread::Builder::new()
            .name("raw-commit".to_owned())
            .spawn(move || commit_until_closed(&file, &inbox_there))?;
        Ok(RawFile { inbox, thread })
    }

    pub fn writer(&self) -> RawWriter {
        RawWriter(Arc::clone(&self.inbox))
    }

    pub fn close(self) -> Outcome<()> {
        self.inbox.waiting.lock().closed = true;
        self.inbox.filled.notify_one();
        self.thread
            .join()
            .map_err(|_| "the raw file's thread panicked".into())
    }
}

fn commit_until_closed(mut file: &File, inbox: &Inbox) {
    let mut group = Vec::new();
    loop {
        let taken = {
            let mut waiting = inbox.waiting.lock();
            while waiting.entries.is_empty() {
                if waiting.closed {
                    return;
                }
                inbox.filled.wait(&mut waiting);
            }
            mem::take(&mut waiting.entries)
        };
        group.clear();
        for (entry, _) in &taken {
            group.extend_from_slice(&(entry.len() as u32).to_be_bytes());
            group.extend_from_slice(entry);
        }
        let told = file
            .write_all(&group)
            .and_then(|()| file.sync_data())
            .map_err(|error| error.kind());
        for (_, tell) in taken {
            // Nobody gives up waiting here.
            let _ = tell.send(told);
        }
    }
}

impl Target for RawWriter {
    async fn append(&self, entry: Bytes) -> Outcome<()> {
        let (tell, told) = oneshot::channel();
        self.0.waiting.lock().entries.push((entry, tell));
        self.0.filled.notify_one();
        told.await?.map_err(|kind| io::Error::from(kind).into())
    }
}
