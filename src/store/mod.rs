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
mod offline;
mod pipeline;
mod read;
mod recover;
mod run;
mod state;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicBool, mpsc},
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
    reasons::{DeadCause, DeadReason, Fate, LossReason},
};
pub use home::host_database::{database_config, make_durable, open_database, repair_database};
pub use offline::{
    ClosedHint, ClosedHints, ClosedInfo, ClosedLetter, ClosedLetters, ClosedNode, ClosedStore,
    Finding, HeldStore, Selection, Severity, Verified, verify,
};
#[cfg(feature = "internals")]
pub use pipeline::done::AppendDone;
pub use pipeline::{
    batch::{Ack, Leaving, NewHint, RowChanges, WriteBatch},
    changes::Budget,
    events::{OnDurable, OnEvent, OnLeave, OnLook, StoreEvent},
    held::Held,
    node_request::{Members, Retained},
    overlay::{RowBatch, Rows},
    ticket::{Refusal, Written},
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
            log_scan::{Prefixes, message, scan_segment},
            meta::decode as decode_meta,
        },
        format::{
            block::{CHUNK_BYTES, Header, body_of_chunk0, split_hints, verify},
            checksum::{checksum, with_checksum},
            cursor::Cursor,
            dead_letter::Letter,
            encoder::{EncodedBlock, Encoder},
            keys::{Keyspace, WAL},
            node_record::NodeRecord,
            shutdown_summary::{decode as decode_clean, encode as encode_clean},
            wal_record::{WalDraft, split_runs},
        },
    };
}

use crate::{
    config::Config,
    error::{HandoffError, OpenError, StorageError, with_causes},
    stats::{Health, StoreStats},
    types::StoreId,
};
use commit::committer::Committer;
use maintain::compact::thread::Compactor;
use pipeline::{
    asked::Asked, control::Control, done::ControlDone, shared::Shared, watchdog::StopSignal,
};
use state::limits::Limits;

/// One open store.
pub struct Store {
    shared: Arc<Shared>,
    stop_watchdog: Arc<StopSignal>,
    stop_compactor: Arc<StopSignal>,
    /// Taken by whoever closes first, who holds the lock until all is done; only closers take it.
    threads: Mutex<Option<Threads>>,
    commit_timeout: Duration,
    /// Whether there is a limit; does not change.
    limited: AtomicBool,
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
    /// None in a shared database, which is never compacted.
    compactor: Option<JoinHandle<()>>,
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
        let stop_compactor = Arc::new(StopSignal::default());
        let compactor = match committer.home.directory() {
            Some(directory) => {
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop_compactor));
                let compactor = Compactor::new(shared, directory, stop);
                Some(spawn("hh-compact", Box::new(move || compactor.run()))?)
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
            stop_compactor,
            threads: Mutex::new(Some(Threads {
                committer,
                watchdog,
                compactor,
            })),
            commit_timeout: config.commit_timeout,
            limited: AtomicBool::new(Limits::are_set(config)),
            bounds_disk: config.max_disk_bytes.is_some(),
        })
    }

    /// Has this called when hints may have left a queue or dead letters changed, and when the store
    /// stops or begins to serve: on any thread, so it must not block. Only the first call counts.
    pub fn on_leave(&self, on_leave: OnLeave) {
        let _ = self.shared.on_leave.set(on_leave);
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

    /// Tells when everything handed in so far is durable, acks too.
    pub fn sync(&self, done: impl FnOnce(Result<(), HandoffError>) + Send + 'static) {
        self.control(done, Control::Sync);
    }

    pub(in crate::store) fn control<T: Send + 'static>(
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
        self.stop_compactor.stop();
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
        if let Some(compactor) = threads.compactor {
            self.await_compactor(compactor);
        }
        self.stop_watchdog.stop();
        // A hung thread cannot be joined. It keeps the lock, as it should: its writes may yet land.
        if !matches!(self.health(), Health::RestartRequired(_)) || threads.committer.is_finished() {
            // Panics were caught inside; there is nothing to pass on.
            let _ = threads.committer.join();
            let _ = threads.watchdog.join();
        }
        if result.is_ok() {
            tracing::info!(store = %self.id(), "store closed");
        }
        result
    }

    /// Waits until the directory is left as it is, but not for one that hangs: that keeps the
    /// directory's lock.
    fn await_compactor(&self, compactor: JoinHandle<()>) {
        let started = Instant::now();
        while !compactor.is_finished() {
            if started.elapsed() > self.commit_timeout {
                tracing::error!("compacting the store hangs; it keeps the directory's lock");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // What panics inside was caught there.
        let _ = compactor.join();
    }
}

impl Drop for Store {
    /// Nothing that was answered is lost with the last handle, `Buffered` answers included.
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(error = %with_causes(&error), "the store was dropped and did not close cleanly");
        }
    }
}
