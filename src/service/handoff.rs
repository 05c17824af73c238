//! The handle, and what all clones of it share.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore, oneshot, watch};

use super::{door::Door, writes_under_way::FanOut};
use crate::{
    admission::Admission,
    ageing::Ageing,
    clock::Clock,
    config::Config,
    error::{EnqueueError, HandoffError, StorageError},
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
/// (they are sent again after the next open); nothing that was answered is lost. Prefer `shutdown`:
/// it waits for those writes, within bounds.
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
            .field("dir", &self.inner.config.dir)
            .field("store", &self.inner.store.id())
            .finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) store: Arc<Store>,
    pub(super) replays: Arc<Replays>,
    /// With [`WriteOrdering::Strict`](crate::WriteOrdering::Strict) alone.
    pub(super) admission: Option<Arc<Admission>>,
    /// How each node is reached, as far as that is known.
    pub(super) links: Arc<Links>,
    pub(super) config: Config,
    pub(super) runtime: tokio::runtime::Handle,
    /// One permit a payload byte: bounds what waits for the disk.
    pub(super) room: Arc<Semaphore>,
    /// One permit a transaction, all of them for one that runs alone.
    pub(super) turns: Arc<Semaphore>,
    /// A permit for whoever changes the queues of nodes, since their tasks must not be started
    /// meanwhile.
    pub(super) changes: Semaphore,
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
    pub(super) departures: watch::Sender<()>,
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
            tracing::error!(%error, "the last handle was dropped and the store did not close cleanly");
        }
        self.events.close();
    }
}

/// The commit thread died of a panic before it could say more.
pub(crate) fn no_answer() -> EnqueueError {
    let text = "the commit thread gave no answer";
    EnqueueError::Unknown(StorageError::new("commit", text))
}
