//! Opening: in a directory of its own, or in the host's database.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, Semaphore, watch},
    task::JoinHandle,
};

use super::{
    UNCOMMITTED_BYTES,
    door::Door,
    handoff::{HintedHandoff, Inner},
    purge::keep_house,
    writes_under_way::FanOut,
};
use crate::{
    admission::Admission,
    ageing::Ageing,
    blocking::block_on,
    clock::Clock,
    config::Config,
    error::{OpenError, ReplayTask, RuntimeProblem, StorageError},
    events::Events,
    limits::Housekeeper,
    links::Links,
    payload::Payload,
    replay::Replays,
    shard_writer::ShardWriter,
    store::{Db, OnDurable, Store},
    transaction::TURNS,
    types::NodeId,
};

impl<P: Payload> HintedHandoff<P> {
    /// Opens the store in `config.dir`, making it if there is none, and resumes the replay of every
    /// node found in it.
    ///
    /// Nothing here waits for the network. Replay runs on the runtime that this is called on, which
    /// must have timers and live as long as the handle does: [`health`](HintedHandoff::health) says
    /// if it does not run.
    ///
    /// # Errors
    /// [`OpenError`]: no runtime that replay can run on, a setting out of range, a directory that
    /// cannot be used or is locked, a store of a newer schema,
    /// or one that cannot be opened.
    pub async fn open<W: ShardWriter<P>>(config: Config, writer: W) -> Result<Self, OpenError> {
        let runtime = here()?;
        let on_runtime = runtime.clone();
        let work = move || Self::start(config, Clock::System, writer, on_runtime, Store::open);
        Self::opened(runtime.spawn_blocking(work)).await
    }

    /// [`open`](HintedHandoff::open) for a thread that does not drive a tokio runtime; replay runs
    /// on `runtime`. Blocks the thread.
    ///
    /// # Errors
    /// As `open`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `open` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn open_blocking<W: ShardWriter<P>>(
        config: Config,
        writer: W,
        runtime: Handle,
    ) -> Result<Self, OpenError> {
        block_on(async { Self::start(config, Clock::System, writer, runtime, Store::open) })
    }

    /// Opens a store in a database that the host keeps its own rows in, so that a hint can be
    /// enqueued in the same [`transaction`](HintedHandoff::transaction) as a row.
    ///
    /// The host opens `db` with [`open_database`] and [`database_config`]; `config.dir` must name
    /// its directory. The store adds the trees `hh/meta`, `hh/nodes` and `hh/hints` and the files
    /// `hh-LOCK`, `hh-STORE` and `hh-CLEAN`, and touches nothing else. After
    /// [`shutdown`](HintedHandoff::shutdown) the host's database is open as before, and the store
    /// can be opened in it again.
    ///
    /// All works as in a store of its own but for what needs the database closed. After a storage
    /// error it cannot open itself again: [`health`](HintedHandoff::health) says
    /// [`ReopenRequired`](crate::Health::ReopenRequired). It cannot rebuild damaged files at open,
    /// and [`Config::on_unopenable`] means nothing, since the host opens the database.
    ///
    /// The promise of durability holds only if all the host's writes go through
    /// [`transaction`](HintedHandoff::transaction) or [`apply`](HintedHandoff::apply): sled may
    /// destroy a database at a power cut whose log has grown too far between two fsyncs, whoever
    /// wrote to it.
    ///
    /// # Errors
    /// [`OpenError::Database`] for a database that cannot be shared, [`OpenError::Locked`] if there
    /// is a store open in it already, and as [`open`](HintedHandoff::open).
    ///
    /// [`open_database`]: crate::open_database
    /// [`database_config`]: crate::database_config
    pub async fn open_in<W: ShardWriter<P>>(
        db: &Db,
        config: Config,
        writer: W,
    ) -> Result<Self, OpenError> {
        let (runtime, db) = (here()?, db.clone());
        let on_runtime = runtime.clone();
        let work = move || {
            let open = |config: &Config, on_durable| Store::open_in(&db, config, on_durable);
            Self::start(config, Clock::System, writer, on_runtime, open)
        };
        Self::opened(runtime.spawn_blocking(work)).await
    }

    /// [`open_in`](HintedHandoff::open_in) for a thread that does not drive a tokio runtime; replay
    /// runs on `runtime`. Blocks the thread.
    ///
    /// # Errors
    /// As `open_in`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `open_in` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn open_in_blocking<W: ShardWriter<P>>(
        db: &Db,
        config: Config,
        writer: W,
        runtime: Handle,
    ) -> Result<Self, OpenError> {
        let open = |config: &Config, on_durable| Store::open_in(db, config, on_durable);
        block_on(async { Self::start(config, Clock::System, writer, runtime, open) })
    }

    /// [`open`](HintedHandoff::open) with a wall clock that a test can set.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub async fn open_by_clock<W: ShardWriter<P>>(
        config: Config,
        clock: crate::clock::WallClock,
        writer: W,
    ) -> Result<Self, OpenError> {
        let runtime = here()?;
        let (on_runtime, clock) = (runtime.clone(), Clock::Scripted(clock));
        let work = move || Self::start(config, clock, writer, on_runtime, Store::open);
        Self::opened(runtime.spawn_blocking(work)).await
    }

    async fn opened(opening: JoinHandle<Result<Self, OpenError>>) -> Result<Self, OpenError> {
        opening.await.unwrap_or_else(|error| {
            Err(StorageError::new("open: the runtime shut down or the open panicked", error).into())
        })
    }

    fn start<W: ShardWriter<P>>(
        config: Config,
        clock: Clock,
        writer: W,
        runtime: Handle,
        open: impl FnOnce(&Config, OnDurable) -> Result<Store, OpenError>,
    ) -> Result<Self, OpenError> {
        let fan_out = FanOut::new()?;
        let events = Events::new();
        let replays = Replays::new(&config.manual_nodes, runtime.clone(), events.clone());
        let replays = Arc::new(replays.map_err(OpenError::Runtime)?);
        let woken = Arc::clone(&replays);
        let on_durable = move |nodes: &BTreeSet<NodeId>| woken.wake(nodes);
        let store = Arc::new(open(&config, Box::new(on_durable))?);
        if config.start_paused {
            store.begin_paused();
        }
        let leave_bell = watch::Sender::new(());
        let rung = leave_bell.clone();
        store.on_leave(Box::new(move || rung.send_modify(|()| {})));
        let told = events.clone();
        store.on_event(Box::new(move |event| told.tell(event.into())));
        let pulse = Arc::clone(replays.pulse());
        store.on_look(Box::new(move || pulse.look()));
        let admission = Admission::of(config.ordering);
        if let Some(admission) = &admission {
            admission.look(&store);
        }
        let corrections = store
            .corrections()
            .map_err(|error| StorageError::new("open: what is known of clocks", error))?;
        let ageing = Arc::new(Ageing::new(&config, clock.clone(), corrections));
        let has_lifetimes = store
            .has_lifetimes()
            .map_err(|error| StorageError::new("open: what is known of lifetimes", error))?;
        if has_lifetimes {
            ageing.expect_lifetimes();
        }
        let links = Links::new(&config, Arc::clone(&ageing), events.clone());
        let links = Arc::new(links);
        replays.begin(
            &config,
            &store,
            writer,
            admission.clone(),
            Arc::clone(&links),
        );
        let door = Door::new(&config, &store);
        let (kept, aged) = (Arc::clone(&store), Arc::clone(&ageing));
        let (on, stop) = (runtime.clone(), replays.stop().clone());
        replays.spawn(ReplayTask::Expiry, move || {
            let keeper = Housekeeper::new(&kept, Arc::clone(&aged), on.clone());
            let stop = stop.clone();
            async move {
                keeper.run(stop).await;
                Ok(())
            }
        });
        let inner = Arc::new(Inner {
            store,
            replays,
            admission,
            links,
            door,
            clock,
            ageing,
            events,
            leave_bell,
            runtime,
            room: Arc::new(Semaphore::new(UNCOMMITTED_BYTES as usize)),
            turns: Arc::new(Semaphore::new(TURNS as usize)),
            changes: Arc::new(Semaphore::new(1)),
            waiting: Mutex::default(),
            house: Arc::default(),
            hinting: RwLock::default(),
            fan_out,
            config: RwLock::new(Arc::new(config.clone())),
            shutdown: OnceCell::new(),
        });
        let (weak, stop) = (Arc::downgrade(&inner), inner.replays.stop().clone());
        let leave_bell = inner.leave_bell.subscribe();
        inner.replays.spawn(ReplayTask::Membership, move || {
            let leave_bell = leave_bell.clone();
            keep_house(weak.clone(), leave_bell, stop.clone(), config.purge_after)
        });
        Ok(HintedHandoff {
            inner,
            reopens_told: AtomicU64::new(0),
            payload: PhantomData,
        })
    }
}

/// The runtime that this is polled on.
fn here() -> Result<Handle, OpenError> {
    Handle::try_current().map_err(|_| OpenError::Runtime(RuntimeProblem::None))
}
