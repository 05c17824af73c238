//! The store: hints in sled, durable, numbered and checked. Synchronous; the only layer that names
//! sled.
//!
//! A [`Store`] is one directory. Writers hand appends to the commit thread (`committer`, `group`)
//! and are answered by a callback; readers peek at what is durable (`reader`); acknowledging moves
//! a cursor in memory at once and on disk with the next group.

mod api;
mod bounds;
mod commit;
mod engine;
mod failpoints;
mod format;
mod home;
mod maintain;
mod pipeline;
mod read;
mod recover;
mod run;
mod state;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use api::{applied::AppliedHints, applied_writes::AppliedWrites, limits::Due};
#[cfg(feature = "internals")]
pub use engine::migrate::SCHEMA_VERSION;
pub use engine::{generation::panic_text, meta::MEMBERS_MAX};
#[cfg(feature = "internals")]
pub use failpoints::{CommitFault, POINTS};
pub use failpoints::{Safeguard, is_off};
#[cfg(feature = "internals")]
pub use format::cursor::Leave;
pub use format::{
    barrier::{Barrier, BarrierLosses, BarrierQueue, BarrierState},
    block::Hint,
    correction::Correction,
    dead_letter::Dead,
    keys::{Place, QueueRef},
    loss::{Loss, Losses, LostOfQueue, LostRange, NotStoredOfNode},
    node_status::{HEADS_MAX, HeadStatus, Status},
    peeked::{Mark, PeekedHint},
    reasons::{Burial, DeadReason, Fate, LossReason},
};
pub use home::host_database::{database_config, make_durable, mend_database, open_database};
pub use pipeline::{
    batch::{Ack, HintKind, Leaving, NewHint, RowChanges, WriteBatch},
    changes::Budget,
    done::AppendDone,
    events::{OnDeparted, OnDurable, OnEvent, OnLook, StoreEvent},
    held::Held,
    node_request::{Members, Retained},
    overlay::{RowBatch, Rows},
    ticket::{BatchDone, Refusal, Written},
};
pub use read::reader::{Peek, PeekLimits, Reader};
pub use recover::salvage::salvage;
pub use sled::{Db, Tree};
pub use state::{
    holds::{Hold, Parked},
    limits::Full,
    lock::Reservation,
    queue::NodeQueues,
};

/// How records are read and written, for the fuzz targets.
#[cfg(feature = "internals")]
pub(crate) mod formats {
    pub use super::{
        api::applied::{decode as decode_mark, encode as encode_mark},
        commit::loss_journal::encode_again as encode_loss_again,
        engine::{
            log_scan::{Prefixes, carve_segment, message},
            meta::decode as decode_meta,
        },
        format::{
            block::{CHUNK_BYTES, Header, body_of_chunk0, split_hints, verify},
            checksum::{checksum, seal},
            cursor::Cursor,
            dead_letter::Letter,
            encoder::{EncodedBlock, Encoder},
            keys::{MIXED, Shelf},
            node_record::NodeRecord,
            shutdown_summary::{decode as decode_clean, encode as encode_clean},
            wal_record::{MixedDraft, split_runs},
        },
    };
}

use crate::{
    config::Config,
    error::{EnqueueError, HandoffError, OpenError, StorageError, TransactionError},
    stats::{Health, StoreStats},
    types::{Amount, NodeId, QueueId, Sequence, StoreId},
};
use commit::committer::Committer;
use maintain::compact::thread::Rewriter;
use pipeline::{
    asked::Asked,
    control::Control,
    done::ControlDone,
    shared::Shared,
    ticket::{Entry, told_id},
    watchdog::StopSignal,
};
use state::limits::Limits;

/// One open store.
pub struct Store {
    shared: Arc<Shared>,
    stop_watchdog: Arc<StopSignal>,
    stop_rewriter: Arc<StopSignal>,
    /// Taken by whoever closes first, who holds the lock until all is done; only closers take it.
    threads: Mutex<Option<Threads>>,
    commit_timeout: Duration,
    /// Whether there is a limit; does not change.
    limited: bool,
    /// Whether one of them is of the disk.
    bounds_disk: bool,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("id", &self.shared.store)
            .finish_non_exhaustive()
    }
}

struct Threads {
    committer: JoinHandle<()>,
    watchdog: JoinHandle<()>,
    /// None in a shared database, which is never written anew.
    rewriter: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `config.dir`, and makes it if there is none.
    ///
    /// `on_durable` is called with the nodes that have new durable hints, or in which one is held
    /// no longer: on any thread, so it must not block.
    pub fn open(config: &Config, on_durable: OnDurable) -> Result<Store, OpenError> {
        config.validate()?;
        Store::start(config, recover::open::open(config, on_durable)?)
    }

    /// Opens the store in the host's database, whose directory `config.dir` must name, and makes it
    /// if there is none.
    pub fn open_in(
        db: &sled::Db,
        config: &Config,
        on_durable: OnDurable,
    ) -> Result<Store, OpenError> {
        config.validate()?;
        Store::start(config, recover::open::open_in(db, config, on_durable)?)
    }

    /// Starts the threads.
    fn start(
        config: &Config,
        (shared, committer): (Arc<Shared>, Committer),
    ) -> Result<Store, OpenError> {
        let stop_watchdog = Arc::new(StopSignal::default());
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|source| OpenError::Io {
                    action: "start a thread for",
                    path: config.dir.clone(),
                    source,
                })
        };
        let watchdog = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop_watchdog));
            let timeout = config.commit_timeout;
            spawn(
                "hh-watchdog",
                Box::new(move || pipeline::watchdog::run(&shared, &stop, timeout)),
            )?
        };
        let stop_rewriter = Arc::new(StopSignal::default());
        let rewriter = match committer.home.directory() {
            Some(directory) => {
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop_rewriter));
                let rewriter = Rewriter::new(shared, directory, stop);
                Some(spawn("hh-rewrite", Box::new(move || rewriter.run()))?)
            }
            None => None,
        };
        let committer = {
            let shared = Arc::clone(&shared);
            let work = move || {
                if catch_unwind(AssertUnwindSafe(|| committer.run())).is_err() {
                    let text = "the commit thread panicked";
                    shared.abandon(StorageError::new("commit", text));
                }
            };
            spawn("hh-commit", Box::new(work))?
        };
        Ok(Store {
            shared,
            stop_watchdog,
            stop_rewriter,
            threads: Mutex::new(Some(Threads {
                committer,
                watchdog,
                rewriter,
            })),
            commit_timeout: config.commit_timeout,
            limited: Limits::of(config).is_any() || config.max_disk_bytes.is_some(),
            bounds_disk: config.max_disk_bytes.is_some(),
        })
    }

    /// Has this called when hints may have left a queue or dead letters changed, and when the store
    /// stops or begins to serve: on any thread, so it must not block. Only the first call counts.
    pub fn on_departed(&self, on_departed: OnDeparted) {
        let _ = self.shared.on_departed.set(on_departed);
    }

    /// Has this called when something happens to hints or to the store: on any thread, so it must
    /// not block. Only the first call counts.
    pub fn on_event(&self, on_event: OnEvent) {
        let _ = self.shared.on_event.set(on_event);
    }

    /// Has this called once a second or more often, while the store is open: on a thread of the
    /// store's, so it must not block. Only the first call counts.
    pub fn on_look(&self, on_look: OnLook) {
        let _ = self.shared.on_look.set(on_look);
    }

    /// The store's identity.
    pub fn id(&self) -> StoreId {
        self.shared.store
    }

    /// Hands a hint to the pipeline. `done` is called once, with its id as soon as it is durable,
    /// on the commit thread or on this one; it must not block.
    ///
    /// No limit is asked: see [`reserve`](Store::reserve) and
    /// [`append_within`](Store::append_within).
    #[cfg(feature = "internals")]
    pub fn append(&self, node: NodeId, hint: Hint, done: AppendDone) {
        self.append_within(Reservation::default(), node, hint, done);
    }

    /// The same for a hint that room was reserved for.
    pub fn append_within(&self, reserved: Reservation, node: NodeId, hint: Hint, done: AppendDone) {
        let batch = WriteBatch::of_hint(node, hint, HintKind::Pending);
        self.hand_in_checked(Entry::new(batch, reserved, told_id(done)));
    }

    /// Hands in what is to come into effect as one. `done` is called once, on the commit thread or
    /// on this one, as soon as it is durable, or as it is seen by all; it must not block.
    pub fn write(
        &self,
        batch: WriteBatch,
        reserved: Reservation,
        answer_early: bool,
        done: BatchDone,
    ) {
        let (shared, only_asks) = (Arc::clone(&self.shared), batch.only_asks());
        let counted: BatchDone = Box::new(move |outcome| {
            if outcome.is_ok() && !only_asks {
                shared.counters.transactions.fetch_add(1, Relaxed);
            }
            done(outcome);
        });
        let entry = Entry::new(batch, reserved, counted);
        self.hand_in_checked(match answer_early {
            true => entry.answered_early(),
            false => entry,
        });
    }

    fn hand_in_checked(&self, entry: Entry) {
        match self.shared.check_serving() {
            Ok(()) => self.hand_in(entry),
            Err(error) => entry.refuse(error.into()),
        }
    }

    fn hand_in(&self, entry: Entry) {
        if let Err(entry) = self.shared.inbox.hand_in(entry) {
            entry.refuse(self.why_closed().into());
        }
    }

    /// Checks that `trees` can take part in a transaction: the host's own, in the database that
    /// this store shares.
    pub fn check_trees(&self, trees: &[Tree]) -> Result<(), TransactionError> {
        let engine = self.shared.engine().map_err(EnqueueError::from)?;
        pipeline::trees::check_trees(&engine, trees)
    }

    /// Hands a hint to the pipeline and returns: it will be durable with its group, unless the
    /// store fails before. `done` is called as by [`append`](Store::append), unless this refuses
    /// the hint.
    #[cfg(feature = "internals")]
    pub fn append_buffered(
        &self,
        node: NodeId,
        hint: Hint,
        done: AppendDone,
    ) -> Result<(), EnqueueError> {
        self.append_buffered_within(Reservation::default(), node, hint, done)
    }

    /// The same for a hint that room was reserved for.
    pub fn append_buffered_within(
        &self,
        reserved: Reservation,
        node: NodeId,
        hint: Hint,
        done: AppendDone,
    ) -> Result<(), EnqueueError> {
        self.shared.check_serving()?;
        if let Some(shortage) = self.shared.space.shortage() {
            let refused = &self.shared.counters.refused_for_space;
            refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Err(shortage.refusal());
        }
        let batch = WriteBatch {
            is_promised: true,
            ..WriteBatch::of_hint(node, hint, HintKind::Pending)
        };
        self.shared
            .inbox
            .hand_in(Entry::new(batch, reserved, told_id(done)))
            .map_err(|_| self.why_closed().into())
    }

    /// Why the inbox takes nothing more.
    fn why_closed(&self) -> HandoffError {
        let serving = self.shared.check_serving();
        serving.err().unwrap_or(HandoffError::ShutDown)
    }

    /// Whether anything durable waits for the node; reads nothing.
    pub fn has_pending(&self, node: NodeId) -> bool {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node);
        queues.is_some_and(NodeQueues::has_pending)
    }

    /// Whether a hint that became durable has left its queue, in whatever way, and every older one
    /// of its shard there; one of a node that was removed has. Where a limit took it, this may be
    /// said late, but not too early.
    pub fn is_gone_in_order(&self, node: NodeId, queue: QueueId, sequence: Sequence) -> bool {
        let registry = self.shared.registry.lock();
        registry.is_gone_in_order(node, queue, sequence)
    }

    /// Whether every hint of a queue up to this one has.
    pub fn is_gone_through(&self, node: NodeId, queue: QueueId, sequence: Sequence) -> bool {
        let registry = self.shared.registry.lock();
        registry.is_gone_through(node, queue, sequence)
    }

    /// What is durable and waits for the node; reads nothing.
    pub fn pending(&self, node: NodeId) -> Amount {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node);
        queues.map(NodeQueues::pending).unwrap_or_default()
    }

    /// Whether the node has queues, or had some and was not removed.
    pub fn knows(&self, node: NodeId) -> bool {
        self.shared.registry.lock().nodes.contains_key(&node)
    }

    /// All queues below this one are retired, durably and for good; `None` if there is no queue.
    pub fn retired_below(&self) -> Option<QueueId> {
        self.shared.registry.lock().lowest_queue()
    }

    /// What is at the head of the node's queue, as far as it is durable, and up to the first hint
    /// that is held: for those who take hints in order.
    pub fn peek(
        &self,
        reader: &mut Reader,
        node: NodeId,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let stretch = self.shared.registry.lock().stretch_in_order(node);
        reader.peek(&self.shared, node, stretch, limits)
    }

    /// What is pending from a place on: in the queue that this names, or, with nothing left to read
    /// there, in the ones behind it. What is held is pending, too.
    pub fn peek_from(
        &self,
        reader: &mut Reader,
        node: NodeId,
        from: Option<Place>,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let stretch = {
            let registry = self.shared.registry.lock();
            let queues = registry.nodes.get(&node);
            queues.and_then(|it| it.stretch(from))
        };
        reader.peek(&self.shared, node, stretch, limits)
    }

    /// Claims those hints that are pending and nobody else's, and keeps only them in the list:
    /// until they are released, delivered, or buried or lost, no limit takes them. Returns how
    /// often the store was opened again before this claim; the next time forgets it.
    pub fn claim(&self, node: NodeId, hints: &mut Vec<PeekedHint>) -> u64 {
        let mut registry = self.shared.registry.lock();
        registry.claim(node, hints);
        registry.reopens
    }

    /// Gives hints back that were claimed when the store had been opened again so often, unless it
    /// was since: then what is claimed is somebody else's.
    pub fn release_claimed(&self, node: NodeId, hints: &[PeekedHint], reopens: u64) {
        let mut registry = self.shared.registry.lock();
        if registry.reopens == reopens {
            registry.release(node, hints);
        }
    }

    /// Gives hints back that were claimed; they stay where they are.
    pub fn release(&self, node: NodeId, hints: &[PeekedHint]) {
        self.shared.registry.lock().release(node, hints);
    }

    /// Asks the commit thread to judge what a peek found damaged, and to skip it if it is.
    pub fn judge_damage(
        &self,
        node: NodeId,
        queue: QueueRef,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        self.control(done, |done| Control::JudgeDamage(node, queue, done));
    }

    /// Tells when everything handed in so far is durable, acks too.
    pub fn sync(&self, done: impl FnOnce(Result<(), HandoffError>) + Send + 'static) {
        self.control(done, Control::Sync);
    }

    fn control<T: Send + 'static>(
        &self,
        done: impl FnOnce(Result<T, HandoffError>) + Send + 'static,
        request: impl FnOnce(ControlDone<T>) -> Control,
    ) {
        if let Err(error) = self.shared.check_serving() {
            return done(Err(error));
        }
        if let Err(refused) = self.shared.inbox.control(Asked::new(done, request)) {
            refused.refuse(self.why_closed());
        }
    }

    /// Remembers how delivery to a node goes, over restarts too: it is durable with the next group.
    /// A node without queues has none.
    pub fn set_status(&self, node: NodeId, status: Status) {
        let mut registry = self.shared.registry.lock();
        let Some(queues) = registry.nodes.get_mut(&node) else {
            return;
        };
        if queues.status != status {
            queues.status = status;
            drop(registry);
            self.shared.inbox.mark_status(node);
        }
    }

    /// How delivery to a node went lately.
    pub fn status(&self, node: NodeId) -> Status {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node);
        queues
            .map(|queues| queues.status.clone())
            .unwrap_or_default()
    }

    /// Depth and counters of every node that has queues.
    pub fn nodes(&self) -> Vec<(NodeId, NodeQueues)> {
        let registry = self.shared.registry.lock();
        let nodes = registry.nodes.iter();
        nodes
            .map(|(node, queues)| (*node, queues.clone()))
            .collect()
    }

    /// How often the store failed and was opened again. Counted before it serves again.
    pub fn reopens(&self) -> u64 {
        let reopened = &self.shared.counters.reopened;
        reopened.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Counters of the store itself.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// Whether it serves.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// `Ok` while the store serves, else why it does not.
    pub fn check_serving(&self) -> Result<(), HandoffError> {
        self.shared.check_serving()
    }

    /// Commits what was handed in, leaves `CLEAN` behind and lets go of the directory; then another
    /// open succeeds.
    ///
    /// Blocks until that is done, or until the watchdog finds the commit thread hung. A second call
    /// waits for the first and has nothing to tell.
    pub fn close(&self) -> Result<(), HandoffError> {
        // Held until all is done: a second closer waits for the first.
        let mut threads = self.threads.lock();
        let Some(threads) = threads.take() else {
            return Ok(());
        };
        self.stop_rewriter.stop();
        let (tell, told) = mpsc::channel();
        let done = move |result| {
            // Nobody listens any more if the wait below gave up.
            let _ = tell.send(result);
        };
        if let Err(refused) = self.shared.inbox.control(Asked::new(done, Control::Close)) {
            refused.refuse(self.why_closed());
        }
        let result = loop {
            match told.recv_timeout(self.commit_timeout / 4) {
                Ok(result) => break result,
                Err(mpsc::RecvTimeoutError::Disconnected) => break Err(self.why_closed()),
                // A thread that hangs in closing itself cannot be told apart from here; the
                // watchdog does.
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Health::RestartRequired(cause) = self.health() {
                        break Err(cause.into());
                    }
                }
            }
        };
        if let Some(rewriter) = threads.rewriter {
            self.await_rewriter(rewriter);
        }
        self.stop_watchdog.stop();
        // A hung thread cannot be joined. It keeps the lock, as it should: its writes may yet land.
        if !matches!(self.health(), Health::RestartRequired(_)) || threads.committer.is_finished() {
            // Panics were caught inside; there is nothing to pass on.
            let _ = threads.committer.join();
            let _ = threads.watchdog.join();
        }
        result
    }

    /// Has the store written anew all the time, or no longer.
    #[cfg(feature = "internals")]
    pub fn rewrite_eagerly(&self, eager: bool) {
        self.shared.faults.on_rewrites(eager);
    }

    /// Waits until the directory is left as it is, but not for one that hangs: that keeps the
    /// directory's lock.
    fn await_rewriter(&self, rewriter: JoinHandle<()>) {
        let started = Instant::now();
        while !rewriter.is_finished() {
            if started.elapsed() > self.commit_timeout {
                tracing::error!("writing the store anew hangs; it keeps the directory's lock");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // What panics inside was caught there.
        let _ = rewriter.join();
    }

    /// The most that the log grew by between two fsyncs, in bytes, since this was asked last or it
    /// was opened.
    #[cfg(feature = "internals")]
    pub fn take_most_between_fsyncs(&self) -> u64 {
        let engine = self.shared.engine();
        engine.map_or(0, |engine| engine.growth().take_most_bytes())
    }

    /// What the log has grown by since the last fsync, in bytes.
    #[cfg(feature = "internals")]
    pub fn unsynced_bytes(&self) -> u64 {
        let engine = self.shared.engine().ok();
        let bytes = engine.and_then(|engine| engine.unsynced_bytes().ok());
        bytes.unwrap_or(0)
    }

    /// Makes the next commits fail in the given way.
    #[cfg(feature = "internals")]
    pub fn inject(&self, fault: CommitFault) {
        self.shared.faults.on_commit(fault);
    }
}

impl Drop for Store {
    /// Nothing that was answered is lost with the last handle, `Buffered` answers included.
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was dropped and did not close cleanly");
        }
    }
}
