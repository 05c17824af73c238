//! The commit pipeline: one thread a store takes everything that waits, stores it as one group, and
//! answers everybody.
//!
//! This file is the loop, its guard and the requests between groups; what a group does is in
//! `group.rs`.

use std::{
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use sled::IVec;

use crate::{
    config::Config,
    error::{HandoffError, StorageError},
    stats::Health,
    store::{
        bounds::GROUP_BYTES,
        commit::{
            backoff::Healing, encode_pool::Encoding, flush_pass::Sorting, loss_journal::Journal,
            trim::Trimmer,
        },
        engine::{
            generation::{Engine, panic_text},
            leaf_padding::Spacing,
        },
        failpoints::{Safeguard, is_off},
        format::{
            dead_letter_count::LetterTally, keys::QueueRef, node_record::NodeRecord,
            shutdown_summary::CleanLetters,
        },
        home::location::Home,
        pipeline::{
            entry::Dirty,
            shared::{Shared, StoreEvent},
        },
        state::forwarding::Redriven,
    },
    types::{NodeId, Sequence},
};

/// How long a close waits for reads that are under way.
const READERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node's next hint goes.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    pub queue: QueueRef,
    pub next: Sequence,
    pub bytes: u64,
    pub spacing: Spacing,
}

/// All that only the commit thread touches.
pub struct Committer {
    pub shared: Arc<Shared>,
    /// Taken out while it is reopened.
    pub engine: Option<Arc<Engine>>,
    pub config: Config,
    pub home: Home,
    pub encoding: Encoding,
    pub records: HashMap<NodeId, NodeRecord>,
    pub tails: HashMap<NodeId, Tail>,
    pub next_queue: u64,
    pub trimmer: Trimmer,
    pub sorting: Sorting,
    pub journal: Journal,
    /// Hints that became dead letters, to be told of once that is durable.
    pub buried: Vec<StoreEvent>,
    /// By where they are now, where hints stood that were dead letters and are not done with.
    pub redriven: Redriven,
    /// Cursors that moved and are not written yet.
    pub dirty: BTreeSet<Dirty>,
    /// Nodes whose status changed and is not written yet.
    pub statuses: BTreeSet<NodeId>,
    /// Bytes handed to sled since the last fsync.
    pub handed_bytes: usize,
    pub healing: Healing,
    /// Queues whose missing blocks were looked for in the log itself, since it was opened.
    pub searched: BTreeSet<QueueRef>,
    /// It stands in the log that some hint has a lifetime of its own.
    pub lifetimes_are_noted: bool,
}

impl Committer {
    /// Runs `work` under the watchdog. An error or a panic fails the store: SLED.md rule 9, the
    /// outcome of what was handed over is unknown; rule 10, a damaged file may make the engine
    /// panic.
    pub fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, HandoffError> {
        let shared = Arc::clone(&self.shared);
        shared.check_serving()?;
        shared.busy.start();
        let result = catch_unwind(AssertUnwindSafe(|| work(self)));
        if !matches!(result, Ok(Ok(_))) {
            self.look_at_log();
        }
        shared.busy.stop();
        let (health, cause) = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(cause)) => (Health::Failed(cause.clone()), cause),
            Err(panic) => {
                let cause = StorageError::new("commit", panic_text(panic.as_ref()));
                (Health::RestartRequired(cause.clone()), cause)
            }
        };
        shared.fail(health);
        Err(HandoffError::Storage(cause))
    }

    /// Something failed: whoever opens the log next, this process or another, must know whether all
    /// that reads of it is on the disk.
    fn look_at_log(&self) {
        if let Some(Err(error)) = self.engine.as_ref().map(|engine| engine.fsync()) {
            tracing::warn!(%error, source = %error.source, "what reads of the log may not be on the disk");
        }
    }

    /// The engine, which is there unless a reopen has failed.
    pub fn engine(&self) -> Result<Arc<Engine>, StorageError> {
        let closed = || StorageError::new("commit", "the engine is closed");
        self.engine.clone().ok_or_else(closed)
    }

    /// Flushes and fsyncs what was handed over.
    pub fn commit(&mut self) -> Result<(), StorageError> {
        // The watchdog counts from one fsync to the next, so a large hint with many of them is not
        // taken for a hang.
        self.shared.busy.start();
        self.engine()?.commit()?;
        // Nobody is told that something is durable in a file which the next open will not find.
        self.check_in_place()?;
        let counters = &self.shared.counters;
        counters.groups.fetch_add(1, Relaxed);
        let handed = std::mem::take(&mut self.handed_bytes);
        counters.engine_bytes.fetch_add(handed as u64, Relaxed);
        Ok(())
    }

    /// Hands a key over. SLED.md rule 2: never more than a group's bytes between two fsyncs, nor
    /// what makes the log grow by more than a part of a segment, whoever asks. Rule 4: a plain
    /// insert, since a batch or a transaction would seal a buffer of its own.
    pub fn insert(
        &mut self,
        tree: &sled::Tree,
        key: &[u8],
        value: impl Into<IVec>,
    ) -> Result<(), StorageError> {
        let value = value.into();
        let bytes = key.len() + value.len();
        self.make_room(bytes)?;
        tree.insert(key, value)
            .map_err(|error| StorageError::new("write to the engine", error))?;
        Ok(())
    }

    /// To be called before a key is handed over that comes to so many bytes.
    pub fn make_room(&mut self, bytes: usize) -> Result<(), StorageError> {
        let is_due = self.engine()?.is_due();
        let is_due = is_due.map_err(|error| StorageError::new("write to the engine", error))?;
        let is_full = self.handed_bytes + bytes > GROUP_BYTES;
        if (is_due || is_full) && !is_off(Safeguard::GroupCommits) {
            self.commit()?;
        }
        self.handed_bytes += bytes;
        Ok(())
    }

    /// Tells what was lost and buried, now that it is durable.
    pub fn tell_what_left(&mut self) {
        let lost = self.journal.untold().into_iter().map(StoreEvent::Lost);
        for event in self.buried.drain(..).chain(lost) {
            self.shared.tell(event);
        }
    }

    /// Makes everything durable, acks too.
    pub fn settle(&mut self) -> Result<(), StorageError> {
        while self.has_unwritten() {
            self.group(Vec::new())?;
        }
        if self.handed_bytes > 0 {
            self.commit()?;
        }
        self.check_in_place()
    }

    /// Whether the files that are written are those that the next open will find: two system calls.
    pub fn check_in_place(&self) -> Result<(), StorageError> {
        self.home.anchor().check()?;
        self.engine()?.anchor().check()
    }

    /// What `CLEAN` says of dead letters: of every queue that a node lists for them.
    pub fn clean_letters(&self) -> Vec<CleanLetters> {
        let registry = self.shared.registry.lock();
        let listed = self.records.iter();
        let listed = listed.flat_map(|(node, record)| record.dead.iter().map(|at| (*node, *at)));
        let letters = listed.map(|(node, queue)| {
            let known = registry.nodes.get(&node);
            let tally = known.and_then(|queues| queues.letters.get(&queue));
            CleanLetters {
                queue,
                node,
                tally: tally.copied().unwrap_or_else(LetterTally::none),
            }
        });
        let mut letters: Vec<_> = letters.collect();
        letters.sort_unstable_by_key(|it| it.queue);
        letters
    }

    /// Closes the engine once no read holds it any more. Kept, to be tried again, if one still does
    /// after a while.
    pub fn let_go_of_engine(&mut self) -> Result<(), StorageError> {
        drop(self.shared.take_engine());
        let Some(mut engine) = self.engine.take() else {
            return Ok(());
        };
        let started = Instant::now();
        loop {
            match Arc::try_unwrap(engine) {
                Ok(sole) => return sole.close(),
                Err(held) if started.elapsed() > READERS_TIMEOUT => {
                    self.engine = Some(held);
                    return Err(StorageError::new("close", "a read is still under way"));
                }
                Err(held) => engine = held,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
