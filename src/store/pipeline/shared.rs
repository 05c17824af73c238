//! What the commit thread, the watchdog and all callers of a store share.
//!
//! Locks, each held only for a few instructions and never while another is taken, but for that of
//! the inbox, which is taken under `registry` to mark a cursor that moves:
//! - `registry`: cursors, watermarks and depth of every queue.
//! - `engine`: the handles of the generation in use; taken out at close.
//! - `condition`: whether the store serves. Anybody may make it worse; only the commit thread,
//!   after a reopen, better, and the watchdog, when a thread comes back that hung.
//! - `holds`: which nodes are not replayed, and why.
//! - the inbox, `tickets`, `recent`, `memtable` and `not_stored` have their own.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};

use crate::{
    error::HandoffError,
    stats::{DurationCounts, Health, StoreStats},
    store::{
        engine::generation::Engine,
        failpoints::Faults,
        format::reasons::LossReason,
        pipeline::{
            asked::Refuse,
            busy::Busy,
            events::{OnDurable, OnEvent, OnLeave, OnLook, StoreEvent},
            inbox::Inbox,
            not_stored::NotStored,
            space::Space,
            ticket::Tickets,
        },
        state::{
            block_cache::Recent, holds::Holds, lock::Guarded, memtable::Memtable,
            registry::Registry,
        },
    },
    types::{Amount, StoreId},
};

pub struct Shared {
    pub store: StoreId,
    pub inbox: Inbox,
    pub registry: Arc<Guarded>,
    pub holds: Mutex<Holds>,
    /// Blocks just written, with a lock of its own.
    pub recent: Recent,
    /// Hints of WAL records, the same.
    pub memtable: Memtable,
    pub(super) engine: RwLock<Option<Arc<Engine>>>,
    pub tickets: Tickets,
    /// Refuses the request that the commit thread has taken out of the inbox; a lock of its own,
    /// which guards only this.
    pub in_hand: Mutex<Option<Refuse>>,
    /// Copies that the loss journal is to tell of, with a lock of its own.
    pub not_stored: NotStored,
    pub(super) condition: Mutex<Condition>,
    pub(super) serving: AtomicBool,
    pub busy: Busy,
    /// The same of the thread that compacts the store.
    pub compacting: Busy,
    /// Whether space of hints that are done with waits to be trimmed; written by the commit thread.
    pub trimming: AtomicBool,
    pub counters: Counters,
    pub on_durable: OnDurable,
    /// Set once, by whoever wants to know.
    pub on_leave: OnceLock<OnLeave>,
    /// The same.
    pub on_event: OnceLock<OnEvent>,
    /// The same.
    pub on_look: OnceLock<OnLook>,
    /// Where a damaged store was moved to; guards nothing else.
    pub moved_aside: Mutex<Option<PathBuf>>,
    /// Whether the commit thread can drop the database and open it again: it cannot if that is the
    /// host's.
    pub(super) reopens_itself: bool,
    pub space: Space,
    /// Switches of tests.
    pub faults: Arc<Faults>,
}

/// How the store is.
pub(super) struct Condition {
    pub(super) health: Health,
    /// It needs a restart only as long as a thread that hangs does not come back.
    pub(super) may_return: bool,
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
    pub compactions: AtomicU64,
    pub refused_when_full: AtomicU64,
    pub append_times: DurationCounts,
    pub group_times: DurationCounts,
    lost: [LostCount; LossReason::ALL.len()],
}

#[derive(Default)]
struct LostCount {
    hints: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// Something left undelivered, durably.
    pub fn note_lost(&self, reason: LossReason, lost: Amount) {
        let place = LossReason::ALL.iter().position(|it| *it == reason);
        if let Some(count) = place.and_then(|place| self.lost.get(place)) {
            count.hints.fetch_add(lost.hints, Relaxed);
            count.bytes.fetch_add(lost.bytes, Relaxed);
        }
    }

    /// By reason, but for those that took nothing.
    fn lost(&self) -> BTreeMap<LossReason, Amount> {
        let counts = LossReason::ALL.iter().copied().zip(&self.lost);
        let amounts = counts.map(|(reason, count)| {
            let amount = Amount {
                hints: count.hints.load(Relaxed),
                bytes: count.bytes.load(Relaxed),
            };
            (reason, amount)
        });
        amounts.filter(|(_, lost)| lost.hints > 0).collect()
    }
}

impl Shared {
    pub fn new(
        store: StoreId,
        engine: Arc<Engine>,
        registry: Registry,
        on_durable: OnDurable,
        reopens_itself: bool,
        space: Space,
    ) -> Self {
        Shared {
            faults: Arc::clone(&engine.faults),
            store,
            inbox: Inbox::default(),
            registry: Arc::new(Guarded::new(registry)),
            holds: Mutex::default(),
            recent: Recent::default(),
            memtable: Memtable::default(),
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
            compacting: Busy::default(),
            // Until the commit thread has looked.
            trimming: AtomicBool::new(true),
            counters: Counters::default(),
            on_durable,
            on_leave: OnceLock::new(),
            on_event: OnceLock::new(),
            on_look: OnceLock::new(),
            moved_aside: Mutex::default(),
            reopens_itself,
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
    pub fn tell_leave(&self) {
        if let Some(on_leave) = self.on_leave.get() {
            on_leave();
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
            compactions: counters.compactions.load(Relaxed),
            log_bytes,
            free_disk_bytes: self.space.available_bytes(),
            reserve_bytes: self.space.reserve_bytes,
            append_times: counters.append_times.seen(),
            group_times: counters.group_times.seen(),
            lost: counters.lost(),
            refused_for_space: counters.refused_for_space.load(Relaxed),
            refused_when_full: counters.refused_when_full.load(Relaxed),
            pending: registry.quota.pending,
            damage: registry.damage.clone(),
            damage_not_listed: registry.damage_not_listed,
            moved_aside,
        }
    }
}
