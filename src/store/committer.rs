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

use super::{
    backoff::Healing,
    bounds::GROUP_BYTES,
    clean::{self, CleanLetters},
    encoding::Encoding,
    engine::{Engine, panic_text},
    entry::{Control, Dirty, Entry},
    faults::{Safeguard, is_off, point},
    home::Home,
    inbox::Work,
    keys::QueueRef,
    letter_tally::LetterTally,
    losses::Journal,
    node_record::NodeRecord,
    redrive::Redriven,
    shared::{Shared, StoreEvent},
    sorting::Sorting,
    spacers::Spacing,
    trim::Trimmer,
};
use crate::{
    config::Config,
    error::{HandoffError, StorageError},
    stats::Health,
    types::{NodeId, Sequence},
};

/// How often an idle store looks whether its directory is there still.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    /// Works until it is told to close.
    pub fn run(mut self) {
        loop {
            let trims = self.trimmer.has_work();
            self.shared.trimming.store(trims, Relaxed);
            let by = match self.shared.health() {
                Health::Failed(_) => Some(self.heal()),
                Health::Serving if self.has_work() => Some(Instant::now()),
                Health::Serving => Some(Instant::now() + LOOK_EVERY),
                // What cannot be mended here is not tried again and again either.
                _ => None,
            };
            let Work {
                entries,
                control,
                dirty,
                statuses,
                ends,
            } = self.shared.inbox.take(by);
            if ends {
                return self.end();
            }
            self.dirty.extend(dirty);
            self.statuses.extend(statuses);
            if entries.is_empty() && control.is_none() && !self.has_work() {
                // If its directory is gone, that is told by `fail`.
                let _ = self.guarded(|committer| committer.look());
                continue;
            }
            // Before the group: the control waits for that, too.
            let control = control.map(|control| {
                let (control, refuse) = control.in_hand();
                *self.shared.in_hand.lock() = refuse;
                control
            });
            self.turn(entries);
            match control {
                None => {}
                Some(Control::Sync(done)) => done(self.guarded(Self::settle)),
                Some(Control::CloseEntries(done)) => done(self.guarded(|committer| {
                    committer.settle()?;
                    Ok(committer.journal.close_entries())
                })),
                Some(Control::Nodes(request)) => self.about_nodes(request),
                Some(Control::JudgeDamage(node, at, done)) => {
                    done(self.guarded(|committer| committer.judge_damage(node, at)));
                }
                Some(Control::Sort(done)) => done(self.guarded(Self::sort_all)),
                Some(Control::Switch(copy, done)) => done(self.switch(&copy)),
                Some(Control::Close(done)) => return done(self.close()),
            }
            // It is answered; what is dropped here tells nobody.
            drop(self.shared.in_hand.lock().take());
        }
    }

    /// Somebody closed the store while this thread hung, and was told so: the engine and the lock
    /// go, without `CLEAN`.
    fn end(mut self) {
        if let Err(error) = self.let_go_of_engine() {
            tracing::warn!(%error, source = %error.source, "a store that hung did not close cleanly");
        }
    }

    /// Whether anything is to be done that nobody waits for.
    fn has_work(&self) -> bool {
        self.trimmer.has_work() || self.sorting.has_work() || self.has_unwritten()
    }

    /// Whether a group would write anything that waits for company.
    fn has_unwritten(&self) -> bool {
        !self.dirty.is_empty() || !self.statuses.is_empty() || self.shared.not_stored.has_any()
    }

    fn turn(&mut self, entries: Vec<Entry>) {
        if let Err(error) = self.shared.check_serving() {
            for entry in entries {
                entry.refuse(error.clone().into());
            }
            return;
        }
        // Whoever waits for the group is told by `fail`.
        let _ = self.guarded(|committer| committer.group(entries));
    }

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

    /// While nothing is to be done: whether the disk still takes what is written. In a shared
    /// database the host writes, and sled's own thread moves pages about and only logs what an
    /// fsync of its says; so what is not on the disk there may come to more than it should, too.
    fn look(&mut self) -> Result<(), StorageError> {
        let engine = self.engine()?;
        let is_due = engine.is_due_before_batch();
        match is_due.map_err(|error| StorageError::new("look at the log", error))? {
            true => self.commit(),
            false => {
                engine.fsync()?;
                self.check_in_place()
            }
        }
    }

    /// Whether the files that are written are those that the next open will find: two system calls.
    fn check_in_place(&self) -> Result<(), StorageError> {
        self.home.anchor().check()?;
        self.engine()?.anchor().check()
    }

    /// Leaves everything durable and `CLEAN` behind, and lets the engine and the lock go.
    fn close(mut self) -> Result<(), HandoffError> {
        let settled = self.guarded(|committer| {
            committer.sort_all()?;
            committer.settle()
        });
        self.shared.busy.start();
        self.shared.set_shut_down();
        let shared = Arc::clone(&self.shared);
        let closed = self.close_engine(settled);
        shared.busy.stop();
        closed
    }

    fn close_engine(mut self, settled: Result<(), HandoffError>) -> Result<(), HandoffError> {
        let letters = self.clean_letters();
        let summary = clean::Summary {
            store: Some(self.shared.store),
            next_queue: self.next_queue,
            queues: self.shared.registry.lock().clean_queues(),
            letters,
        };
        point("close: settled")?;
        self.let_go_of_engine()?;
        settled?;
        point("close: engine closed")?;
        self.home
            .write_clean_summary(&summary)
            .map_err(|error| StorageError::new("write the CLEAN summary", error))?;
        Ok(())
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
