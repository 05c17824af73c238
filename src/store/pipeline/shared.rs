//! What the commit thread, the watchdog and all callers of a store share.
//!
//! Locks, each held only for a few instructions and never while another is taken, but for that of
//! the inbox, which is taken under `registry` to mark a cursor that moves:
//! - `registry`: cursors, watermarks and depth of every queue.
//! - `engine`: the handles of the generation in use; taken out at close.
//! - `condition`: whether the store serves. Anybody may make it worse; only the commit thread,
//!   after a reopen, better, and the watchdog, when a thread comes back that hung.
//! - `holds`: which nodes are not replayed, and why.
//! - the inbox, `tickets`, `recent`, `unsorted` and `not_stored` have their own.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use parking_lot::{Mutex, RwLock};

use crate::{
    error::{EnqueueError, HandoffError, StorageError},
    stats::{Health, StoreStats},
    store::{
        engine::generation::Engine,
        failpoints::Faults,
        format::{loss::Loss, reasons::Burial},
        pipeline::{asked::Refuse, inbox::Inbox, not_stored::NotStored, ticket::Tickets},
        state::{
            block_cache::Recent, holds::Holds, lock::Guarded, memtable::Unsorted,
            registry::Registry,
        },
    },
    types::{Amount, HintId, NodeId, ShardId, StoreId},
};

/// Called, on any thread, with the nodes that have new durable hints, or in which one is held no
/// longer.
pub type OnDurable = Box<dyn Fn(&BTreeSet<NodeId>) + Send + Sync>;

/// Called, on any thread, when hints may have left a queue or dead letters changed, and when the
/// store stops or begins to serve.
pub type OnDeparted = Box<dyn Fn() + Send + Sync>;

/// Something happened to hints, or to the store.
#[derive(Debug)]
pub enum StoreEvent {
    /// Hints left undelivered, durably.
    Lost(Loss),
    /// A hint became a dead letter, durably.
    Buried {
        node: NodeId,
        hint: HintId,
        shard: ShardId,
        burial: Burial,
    },
    /// Copies of a write were neither sent nor stored. It is not recorded yet.
    NotStored {
        node: NodeId,
        shard: ShardId,
        copies: Amount,
    },
    /// It serves no more.
    Failed(StorageError),
    /// It serves again.
    Reopened,
}

/// Called by the watchdog whenever it looks, once a second or more often; it must not block.
pub type OnLook = Box<dyn Fn() + Send + Sync>;

/// Called, on any thread, when something happens; it must not block.
pub type OnEvent = Box<dyn Fn(StoreEvent) + Send + Sync>;

pub struct Shared {
    pub store: StoreId,
    pub inbox: Inbox,
    pub registry: Arc<Guarded>,
    pub holds: Mutex<Holds>,
    /// Blocks just written, with a lock of its own.
    pub recent: Recent,
    /// Hints of mixed groups, the same.
    pub unsorted: Unsorted,
    engine: RwLock<Option<Arc<Engine>>>,
    pub tickets: Tickets,
    /// Refuses the request that the commit thread has taken out of the inbox; a lock of its own,
    /// which guards only this.
    pub in_hand: Mutex<Option<Refuse>>,
    /// Copies that the loss journal is to tell of, with a lock of its own.
    pub not_stored: NotStored,
    condition: Mutex<Condition>,
    serving: AtomicBool,
    pub busy: Busy,
    /// The same of the thread that writes the store anew.
    pub rewriting: Busy,
    /// Whether space of hints that are done with waits to be trimmed; written by the commit thread.
    pub trimming: AtomicBool,
    pub counters: Counters,
    pub on_durable: OnDurable,
    /// Set once, by whoever wants to know.
    pub on_departed: OnceLock<OnDeparted>,
    /// The same.
    pub on_event: OnceLock<OnEvent>,
    /// The same.
    pub on_look: OnceLock<OnLook>,
    /// Where a damaged store was moved to; guards nothing else.
    pub moved_aside: Mutex<Option<PathBuf>>,
    /// Whether the commit thread can drop the database and open it again: it cannot if that is the
    /// host's.
    mends_itself: bool,
    pub space: Space,
    /// Switches of tests.
    pub faults: Arc<Faults>,
}

/// The free-space reserve.
pub struct Space {
    pub dir: PathBuf,
    /// 0 turns it off.
    pub reserve_bytes: u64,
}

/// How the store is.
struct Condition {
    health: Health,
    /// It needs a restart only as long as a thread that hangs does not come back.
    may_return: bool,
}

/// Whether a thread is busy, and whether it is with the same turn still, for the watchdog. Only
/// that thread writes it.
#[derive(Default)]
pub struct Busy {
    turns: AtomicU64,
    /// Which turn it is; 0 when idle.
    turn: AtomicU64,
}

#[derive(Default)]
pub struct Counters {
    pub groups: AtomicU64,
    pub enqueued_hints: AtomicU64,
    pub enqueued_bytes: AtomicU64,
    pub transactions: AtomicU64,
    pub conflicts: AtomicU64,
    pub engine_bytes: AtomicU64,
    pub refused_for_space: AtomicU64,
    pub fsyncs_of_closed_engines: AtomicU64,
    pub reopened: AtomicU64,
    pub rewritten: AtomicU64,
    pub refused_when_full: AtomicU64,
}

/// Less is free than the reserve.
pub struct Shortage {
    available_bytes: u64,
    reserve_bytes: u64,
}

impl Shortage {
    /// Whether half of the reserve is there still.
    pub fn is_half(&self) -> bool {
        self.available_bytes >= self.reserve_bytes / 2
    }

    pub fn refusal(&self) -> EnqueueError {
        EnqueueError::DiskReserve {
            available_bytes: self.available_bytes,
            reserve_bytes: self.reserve_bytes,
        }
    }
}

impl Space {
    /// SLED.md rule 8: after ENOSPC sled cannot even delete, so hints are refused while there is
    /// still room to drain.
    pub fn shortage(&self) -> Option<Shortage> {
        if self.reserve_bytes == 0 {
            return None;
        }
        // A file system that does not answer is no reason to refuse; if it is broken the commit
        // will tell.
        let available_bytes = self.available_bytes()?;
        (available_bytes < self.reserve_bytes).then_some(Shortage {
            available_bytes,
            reserve_bytes: self.reserve_bytes,
        })
    }

    /// Whether there is room for something that will give space back: it may use half of the
    /// reserve.
    pub fn has_for(&self, bytes: u64) -> bool {
        let available = self.available_bytes();
        available.is_none_or(|available| available >= self.reserve_bytes / 2 + bytes)
    }

    fn available_bytes(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.dir).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl Busy {
    pub fn start(&self) {
        let turn = self.turns.fetch_add(1, Relaxed) + 1;
        self.turn.store(turn, Release);
    }

    pub fn stop(&self) {
        self.turn.store(0, Release);
    }

    /// Which turn it is busy with, `None` if it is idle.
    pub fn turn(&self) -> Option<u64> {
        Some(self.turn.load(Acquire)).filter(|turn| *turn != 0)
    }
}

impl Shared {
    pub fn new(
        store: StoreId,
        engine: Arc<Engine>,
        registry: Registry,
        on_durable: OnDurable,
        mends_itself: bool,
        space: Space,
    ) -> Self {
        Shared {
            faults: Arc::clone(&engine.faults),
            store,
            inbox: Inbox::default(),
            registry: Arc::new(Guarded::new(registry)),
            holds: Mutex::default(),
            recent: Recent::default(),
            unsorted: Unsorted::default(),
            engine: RwLock::new(Some(engine)),
            tickets: Tickets::default(),
            in_hand: Mutex::default(),
            not_stored: NotStored::default(),
            condition: Mutex::new(Condition {
                health: Health::Serving,
                may_return: false,
            }),
            serving: AtomicBool::new(true),
            busy: Busy::default(),
            rewriting: Busy::default(),
            // Until the commit thread has looked.
            trimming: AtomicBool::new(true),
            counters: Counters::default(),
            on_durable,
            on_departed: OnceLock::new(),
            on_event: OnceLock::new(),
            on_look: OnceLock::new(),
            moved_aside: Mutex::default(),
            mends_itself,
            space,
        }
    }

    /// The engine, for a read. Held only as long as the read takes, since a close or a reopen waits
    /// for it.
    pub fn engine(&self) -> Result<Arc<Engine>, HandoffError> {
        let engine = self.engine.read().clone();
        match engine {
            Some(engine) => Ok(engine),
            None => {
                self.check_serving()?;
                Err(HandoffError::ShutDown)
            }
        }
    }

    /// To be called with no lock held.
    pub fn tell(&self, event: StoreEvent) {
        if let Some(on_event) = self.on_event.get() {
            on_event(event);
        }
    }

    /// To be called with no lock held, and after what it tells of can be seen.
    pub fn tell_departed(&self) {
        if let Some(on_departed) = self.on_departed.get() {
            on_departed();
        }
    }

    /// After a reopen: reads and writes go on with this engine and what was found in it.
    pub fn heal(&self, engine: Arc<Engine>) {
        *self.engine.write() = Some(engine);
        let gave_up = {
            let mut condition = self.condition.lock();
            // The watchdog may have given up meanwhile: then this is the thread that it waits for.
            let gave_up =
                condition.may_return && matches!(condition.health, Health::RestartRequired(_));
            if gave_up || matches!(condition.health, Health::Failed(_)) {
                condition.health = Health::Serving;
                condition.may_return = false;
                self.serving.store(true, Release);
            }
            gave_up
        };
        if gave_up {
            self.not_stored.begin_again();
            self.inbox.open_again();
        }
    }

    /// Reads go on with this engine; those under way end with the old one.
    pub fn swap_engine(&self, engine: Arc<Engine>) {
        *self.engine.write() = Some(engine);
    }

    /// Takes the shared handle away, so that no new read starts.
    pub fn take_engine(&self) -> Option<Arc<Engine>> {
        self.engine.write().take()
    }

    pub fn health(&self) -> Health {
        self.condition.lock().health.clone()
    }

    pub fn is_serving(&self) -> bool {
        self.serving.load(Acquire)
    }

    /// `Ok` while the store serves, else why it does not.
    pub fn check_serving(&self) -> Result<(), HandoffError> {
        if self.is_serving() {
            return Ok(());
        }
        match self.health() {
            Health::Serving | Health::ReplayStopped(_) => Ok(()),
            Health::Failed(cause)
            | Health::ReopenRequired(cause)
            | Health::DirectoryGone(cause)
            | Health::RestartRequired(cause) => Err(HandoffError::Storage(cause)),
            Health::ShutDown => Err(HandoffError::ShutDown),
        }
    }

    /// SLED.md rules 8 and 9: after a storage error nothing more is accepted, and whoever waits
    /// learns that the outcome is unknown. The first cause stays; only steps from "failed" to
    /// "directory gone" and to "restart required" are taken after it.
    pub fn fail(&self, health: Health) {
        self.fail_as(health, false);
    }

    /// The same for a thread that hangs, and may come back: see
    /// [`has_returned`](Shared::has_returned).
    pub fn fail_for_now(&self, cause: StorageError) {
        self.fail_as(Health::RestartRequired(cause), true);
    }

    fn fail_as(&self, health: Health, may_return: bool) {
        let (health, cause) = match health {
            Health::Failed(cause) if cause.is_directory_gone() => {
                (Health::DirectoryGone(cause.clone()), cause)
            }
            Health::Failed(cause) if !self.mends_itself => {
                (Health::ReopenRequired(cause.clone()), cause)
            }
            Health::Failed(ref cause)
            | Health::ReopenRequired(ref cause)
            | Health::DirectoryGone(ref cause)
            | Health::RestartRequired(ref cause) => {
                let cause = cause.clone();
                (health, cause)
            }
            Health::Serving | Health::ReplayStopped(_) | Health::ShutDown => return,
        };
        let is_worse = {
            let mut condition = self.condition.lock();
            let worse = match condition.health {
                Health::Serving | Health::ReplayStopped(_) => true,
                Health::Failed(_) | Health::ReopenRequired(_) => matches!(
                    health,
                    Health::DirectoryGone(_) | Health::RestartRequired(_)
                ),
                Health::DirectoryGone(_) | Health::ShutDown => {
                    matches!(health, Health::RestartRequired(_))
                }
                // Nor does one that hung have to come back.
                Health::RestartRequired(_) => {
                    condition.may_return
                        && !may_return
                        && matches!(health, Health::RestartRequired(_))
                }
            };
            if worse {
                let mends_itself = matches!(health, Health::Failed(_));
                tracing::error!(
                    error = %cause, source = %cause.source, mends_itself,
                    "the store failed; it accepts nothing until it is mended"
                );
                condition.health = health;
                condition.may_return = may_return;
                self.serving.store(false, Release);
            }
            worse
        };
        if is_worse {
            self.tell(StoreEvent::Failed(cause.clone()));
        }
        self.tickets.take().fail(&cause);
        // One that mends itself records them when it serves again.
        if !matches!(self.health(), Health::Serving | Health::Failed(_)) {
            self.not_stored.end(&cause.into());
        }
        // Nobody waits for room in a store that failed.
        self.registry.ring();
        self.tell_departed();
        // The commit thread mends what can be mended.
        self.inbox.nudge();
    }

    /// For a commit thread that will not come back: nobody is left waiting, and nobody can begin
    /// to.
    pub fn abandon(&self, cause: StorageError) {
        self.abandon_as(cause, false);
    }

    /// For one that hangs: the same, until it comes back.
    pub fn abandon_for_now(&self, cause: StorageError) {
        self.abandon_as(cause, true);
    }

    /// No thread hangs any more: what it did is a commit that failed.
    pub fn has_returned(&self) {
        {
            let mut condition = self.condition.lock();
            let Health::RestartRequired(cause) = &condition.health else {
                return;
            };
            if !condition.may_return {
                return;
            }
            let cause = cause.clone();
            tracing::warn!(error = %cause, source = %cause.source, "what hung has come back");
            condition.may_return = false;
            condition.health = match self.mends_itself {
                true => Health::Failed(cause),
                false => Health::ReopenRequired(cause),
            };
        }
        if self.mends_itself {
            self.not_stored.begin_again();
        }
        self.inbox.open_again();
    }

    fn abandon_as(&self, cause: StorageError, may_return: bool) {
        let (entries, controls) = self.inbox.shut();
        self.fail_as(Health::RestartRequired(cause.clone()), may_return);
        for entry in entries {
            entry.refuse(EnqueueError::StoreFailed(cause.clone()));
        }
        for control in controls {
            control.refuse(HandoffError::Storage(cause.clone()));
        }
        let in_hand = self.in_hand.lock().take();
        if let Some(refuse) = in_hand {
            refuse(HandoffError::Storage(cause));
        }
    }

    pub fn set_shut_down(&self) {
        let mut condition = self.condition.lock();
        if matches!(condition.health, Health::Serving) {
            condition.health = Health::ShutDown;
        }
        drop(condition);
        self.serving.store(false, Release);
        let why = self.check_serving().err();
        self.not_stored.end(&why.unwrap_or(HandoffError::ShutDown));
        self.registry.ring();
        self.tell_departed();
    }

    pub fn stats(&self) -> StoreStats {
        let counters = &self.counters;
        let engine = self.engine.read().clone();
        let (fsyncs, log_bytes) = engine.map_or((0, 0), |it| (it.fsyncs(), it.log_bytes()));
        let fsyncs = fsyncs + counters.fsyncs_of_closed_engines.load(Relaxed);
        let moved_aside = self.moved_aside.lock().clone();
        let registry = self.registry.lock();
        StoreStats {
            store: self.store,
            groups: counters.groups.load(Relaxed),
            fsyncs,
            enqueued: Amount {
                hints: counters.enqueued_hints.load(Relaxed),
                bytes: counters.enqueued_bytes.load(Relaxed),
            },
            transactions: counters.transactions.load(Relaxed),
            conflicts: counters.conflicts.load(Relaxed),
            engine_bytes: counters.engine_bytes.load(Relaxed),
            reopened: counters.reopened.load(Relaxed),
            rewritten: counters.rewritten.load(Relaxed),
            log_bytes,
            refused_for_space: counters.refused_for_space.load(Relaxed),
            refused_when_full: counters.refused_when_full.load(Relaxed),
            pending: registry.quota.pending,
            damage: registry.damage.clone(),
            damage_not_listed: registry.damage_not_listed,
            moved_aside,
        }
    }
}
