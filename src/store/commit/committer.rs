//! The commit thread's state, and what guards its work. One thread a store takes everything that
//! waits (`run.rs`), stores it as one group (`group.rs`), and answers everybody.

use std::{
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    error::{HandoffError, StorageError, with_causes},
    stats::Health,
    store::{
        commit::{
            backoff::Reopening, encode_pool::Encoding, flush_pass::Flushing, loss_journal::Journal,
            trim::Trimmer,
        },
        engine::{
            anchor::Anchor,
            generation::{Engine, panic_text},
            leaf_padding::LeafPadding,
            writer::{AroundCommit, Writer},
        },
        failpoints::Safeguard,
        format::{
            dead_letter_count::LetterTally, keys::QueueRef, node_record::NodeRecord,
            shutdown_summary::CleanLetters,
        },
        home::location::Home,
        pipeline::{events::StoreEvent, inbox::Dirty, shared::Shared},
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
    pub padding: LeafPadding,
}

/// All that only the commit thread touches.
pub struct Committer {
    pub shared: Arc<Shared>,
    /// Taken out while the store is opened again.
    pub writer: Option<Writer>,
    pub config: Config,
    pub home: Home,
    pub encoding: Encoding,
    pub records: HashMap<NodeId, NodeRecord>,
    pub tails: HashMap<NodeId, Tail>,
    pub next_queue: u64,
    pub trimmer: Trimmer,
    pub flushing: Flushing,
    pub journal: Journal,
    /// Hints that became dead letters, to be told of once that is durable.
    pub dead_lettered: Vec<StoreEvent>,
    /// By where they are now, where hints stood that were dead letters and are not done with.
    pub redriven: Redriven,
    /// Cursors that moved and are not written yet.
    pub dirty: BTreeSet<Dirty>,
    /// Nodes whose status changed and is not written yet.
    pub statuses: BTreeSet<NodeId>,
    pub reopening: Reopening,
    /// Queues whose missing blocks were looked for in the log itself, since it was opened.
    pub searched: BTreeSet<QueueRef>,
    /// It stands in the log that some hint has a lifetime of its own.
    pub lifetimes_are_noted: bool,
}

impl Committer {
    /// Runs `work` under the watchdog. An error or a panic fails the store: docs/sled.md rule 9,
    /// the outcome of what was handed over is unknown; rule 10, a damaged file may make the engine
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
        if let Some(Err(error)) = self.writer.as_ref().map(|writer| writer.engine().fsync()) {
            tracing::warn!(error = %with_causes(&error), "what reads of the log may not be on the disk");
        }
    }

    /// The engine, which is there unless a reopen has failed.
    pub fn engine(&self) -> Result<Arc<Engine>, StorageError> {
        let writer = self.writer.as_ref().ok_or_else(closed)?;
        Ok(Arc::clone(writer.engine()))
    }

    pub fn writer(&mut self) -> Result<&mut Writer, StorageError> {
        self.writer.as_mut().ok_or_else(closed)
    }

    /// Tells what was lost and dead-lettered, now that it is durable.
    pub fn tell_what_left(&mut self) {
        let lost = self.journal.untold().into_iter().map(|loss| {
            self.shared.counters.note_lost(loss.reason, loss.amount);
            StoreEvent::Lost(loss)
        });
        for event in self.dead_lettered.drain(..).chain(lost) {
            self.shared.tell(event);
        }
    }

    /// Makes everything durable, acks too.
    pub fn settle(&mut self) -> Result<(), StorageError> {
        while self.has_unwritten() {
            self.group(Vec::new())?;
        }
        let writer = self.writer()?;
        if writer.handed_bytes() > 0 {
            writer.commit()?;
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
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let mut engine = writer.into_engine();
        let started = Instant::now();
        loop {
            match Arc::try_unwrap(engine) {
                Ok(sole) => return sole.close(),
                Err(held) if started.elapsed() > READERS_TIMEOUT => {
                    self.writer = Some(group_writer(held, &self.shared, &self.home));
                    return Err(StorageError::new("close", "a read is still under way"));
                }
                Err(held) => engine = held,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub fn closed() -> StorageError {
    StorageError::new("commit", "the engine is closed")
}

/// The commit thread's writer to an engine.
pub fn group_writer(engine: Arc<Engine>, shared: &Arc<Shared>, home: &Home) -> Writer {
    let around = AroundGroup {
        shared: Arc::clone(shared),
        anchors: [home.anchor().clone(), engine.anchor().clone()],
    };
    Writer::new(engine, "write to the engine", Safeguard::GroupCommits).around_commits(around)
}

struct AroundGroup {
    shared: Arc<Shared>,
    anchors: [Anchor; 2],
}

impl AroundCommit for AroundGroup {
    /// The watchdog counts from one fsync to the next, so a large hint with many of them is not
    /// taken for a hang.
    fn before(&self) {
        self.shared.busy.start();
    }

    /// Nobody is told that something is durable in a file which the next open will not find.
    fn after(&self, bytes: usize) -> Result<(), StorageError> {
        self.anchors.iter().try_for_each(Anchor::check)?;
        let counters = &self.shared.counters;
        counters.groups.fetch_add(1, Relaxed);
        counters.engine_bytes.fetch_add(bytes as u64, Relaxed);
        Ok(())
    }
}
