//! The handle, and what all clones of it share.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OnceCell, Semaphore, oneshot, watch};

use super::{door::Door, unhinted::Hinting, writes_under_way::FanOut};
use crate::{
    admission::Admission,
    ageing::Ageing,
    clock::Clock,
    config::Config,
    error::{EnqueueError, HandoffError, StorageError, with_causes},
    events::Events,
    links::Links,
    payload::Payload,
    replay::Replays,
    store::Store,
    types::NodeId,
};

/// A hinted handoff queue: keeps the writes that nodes missed and delivers them when the nodes are
/// back.
///
/// Cloning is cheap; all clones are the same service. When the last one is dropped, and the last
/// write of a [`PointsWriter`](crate::PointsWriter) has ended that was under way, the service stops
/// as by [`shutdown`](HintedHandoff::shutdown), except that sends of replay are abandoned at once
/// (they are sent again after the next open); nothing that was answered is lost. That closes the
/// store, which waits for the last commit, on the thread that drops the handle. Prefer `shutdown`:
/// it waits for those writes, within bounds.
///
/// A [`ShardWriter`](crate::ShardWriter) belongs to the service. One that keeps a handle of it
/// keeps it alive for ever; let it keep a [`WeakHandoff`].
///
/// ```
/// # use hinted_handoff::*;
/// struct Away;
///
/// impl ShardWriter<String> for Away {
///     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
///         Err(WriteError::retry("connection refused"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let config = Config::new(dir.path().join("hints"));
/// let handoff = HintedHandoff::open(config.clone(), Away).await?;
/// let hint = handoff.write_shard(NodeId(2), ShardId(7), &"cpu v=1".to_owned()).await?;
/// assert!(matches!(hint, Accepted::Durable(_)));
/// handoff.shutdown().await?;
///
/// let again = HintedHandoff::<String>::open(config, Away).await?;
/// assert_eq!(again.stats().nodes[0].pending.hints, 1);
/// # again.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct HintedHandoff<P: Payload> {
    pub(super) inner: Arc<Inner>,
    /// Reopens of the store that a sync of this handle has told of.
    pub(super) reopens_told: AtomicU64,
    pub(super) payload: PhantomData<fn(P)>,
}

impl<P: Payload> Clone for HintedHandoff<P> {
    fn clone(&self) -> Self {
        HintedHandoff {
            inner: Arc::clone(&self.inner),
            reopens_told: AtomicU64::new(self.reopens_told.load(Relaxed)),
            payload: PhantomData,
        }
    }
}

impl<P: Payload> fmt::Debug for HintedHandoff<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HintedHandoff")
            .field("dir", &self.config().dir)
            .field("store", &self.inner.store.id())
            .finish_non_exhaustive()
    }
}

impl<P: Payload> HintedHandoff<P> {
    /// A handle that does not keep the service alive.
    pub fn downgrade(&self) -> WeakHandoff<P> {
        WeakHandoff {
            inner: Arc::downgrade(&self.inner),
            payload: PhantomData,
        }
    }
}

/// A handle of a [`HintedHandoff`] that does not keep it alive: for a
/// [`ShardWriter`](crate::ShardWriter) that writes hints itself, or looks at the service it belongs
/// to. Made by [`downgrade`](HintedHandoff::downgrade).
///
/// ```
/// # use hinted_handoff::*;
/// use std::sync::{Arc, OnceLock};
///
/// /// Forwards to node 9 what node 2 took.
/// #[derive(Default)]
/// struct Forwards {
///     own: OnceLock<WeakHandoff<String>>,
/// }
///
/// impl ShardWriter<String> for Forwards {
///     async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
///         if write.node == NodeId(2) {
///             let own = self.own.get().and_then(WeakHandoff::upgrade);
///             let own = own.ok_or_else(|| WriteError::retry("it is being opened or closed"))?;
///             for batch in &write.batches {
///                 let hinted = own.write_shard(NodeId(9), write.shard, &batch.points).await;
///                 hinted.map_err(WriteError::retry)?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::new(dir.path().join("hints"));
/// let writer = Arc::new(Forwards::default());
/// let handoff = HintedHandoff::open(config, Arc::clone(&writer)).await?;
/// writer.own.get_or_init(|| handoff.downgrade());
/// # handoff.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct WeakHandoff<P: Payload> {
    inner: Weak<Inner>,
    payload: PhantomData<fn(P)>,
}

impl<P: Payload> WeakHandoff<P> {
    /// The service, unless its last handle was dropped and no write of a
    /// [`PointsWriter`](crate::PointsWriter) is under way: then it has stopped, or is about to. One
    /// that was shut down is given as long as there is a handle of it.
    ///
    /// What this returns is a handle like any other. If it is the last one when it is dropped, the
    /// service stops there; so keep it no longer than it is needed.
    pub fn upgrade(&self) -> Option<HintedHandoff<P>> {
        let inner = self.inner.upgrade()?;
        Some(HintedHandoff {
            reopens_told: AtomicU64::new(inner.store.reopens()),
            inner,
            payload: PhantomData,
        })
    }
}

impl<P: Payload> Clone for WeakHandoff<P> {
    fn clone(&self) -> Self {
        WeakHandoff {
            inner: Weak::clone(&self.inner),
            payload: PhantomData,
        }
    }
}

impl<P: Payload> fmt::Debug for WeakHandoff<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakHandoff").finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) store: Arc<Store>,
    pub(super) replays: Arc<Replays>,
    /// With [`WriteOrdering::Strict`](crate::WriteOrdering::Strict) alone.
    pub(super) admission: Option<Arc<Admission>>,
    /// How each node is reached, as far as that is known.
    pub(super) links: Arc<Links>,
    /// The settings in effect. The lock guards only this.
    pub(super) config: RwLock<Arc<Config>>,
    pub(super) runtime: tokio::runtime::Handle,
    /// One permit a payload byte: bounds what waits for the disk.
    pub(super) room: Arc<Semaphore>,
    /// One permit a transaction, all of them for one that runs alone.
    pub(super) turns: Arc<Semaphore>,
    /// A permit for whoever changes settings or the queues of nodes, since their tasks must not be
    /// started meanwhile.
    pub(super) changes: Arc<Semaphore>,
    /// For which nodes' removal callers wait, and how many. Nothing else is taken while it is held.
    pub(super) waiting: Mutex<BTreeMap<NodeId, usize>>,
    /// Rung when the housekeeping is to look at nodes that leave.
    pub(super) house: Arc<Notify>,
    /// What bounds the queues, and what becomes of a hint that does not fit.
    pub(super) door: Door,
    pub(super) clock: Clock,
    /// What hints are stamped by.
    pub(super) ageing: Arc<Ageing>,
    pub(super) events: Events,
    /// Changes whenever hints may have left, or the store stopped or began to serve.
    pub(super) leave_bell: watch::Sender<()>,
    /// Which nodes get no hints. The lock guards only this.
    pub(super) hinting: RwLock<Hinting>,
    /// The tasks of fan-out writes.
    pub(super) fan_out: FanOut,
    pub(super) shutdown: OnceCell<Result<(), HandoffError>>,
}

/// What becomes of something that was handed in.
pub(crate) type Told<T> = oneshot::Receiver<Result<T, EnqueueError>>;

impl Drop for Inner {
    fn drop(&mut self) {
        self.replays.stop_all();
        if let Err(error) = self.store.close() {
            tracing::error!(
                error = %with_causes(&error),
                "the last handle was dropped and the store did not close cleanly"
            );
        }
        self.events.close();
    }
}

/// The commit thread died of a panic before it could say more.
pub(crate) fn no_answer() -> EnqueueError {
    let text = "the commit thread gave no answer";
    EnqueueError::Unknown(StorageError::new("commit", text))
}
