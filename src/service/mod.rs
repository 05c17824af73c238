//! The service: a store, the replay of every node, and the handle that the host holds.

mod admitting;
mod barrier;
mod dead_letters;
mod discarding;
mod door;
mod dropping;
mod durable_hints;
mod encoding;
mod fan_out;
pub(crate) mod handoff;
mod hinting;
mod importing;
mod losses;
mod nodes;
mod open;
mod peek;
mod purge;
mod rehinting;
mod settings;
mod shutdown;
mod stats;
mod unhinted;
mod writes_under_way;

pub use handoff::HintedHandoff;
use handoff::{Told, no_answer};

use std::sync::{Arc, atomic::Ordering::Relaxed};

pub use dead_letters::{DeadLetter, DeadLetterContent, Redriven};
pub use discarding::HintsMeant;
pub(crate) use fan_out::NoRoom;
pub use peek::PendingHint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot};

use crate::{
    admission::{OnItsWay, Place},
    ageing::Ageing,
    blocking::block_on,
    clock::Clock,
    error::{EnqueueError, HandoffError, with_causes},
    events::Event,
    links::Links,
    payload::Payload,
    replay::Replays,
    stats::Health,
    store::{Hint, Reservation, Store},
    types::{Durability, HintId, NodeId, ShardId},
};

/// Payload bytes that may be in the pipeline at a time; more wait for room before they enter it.
const UNCOMMITTED_BYTES: u32 = 32 * 1024 * 1024;

/// What the answer to a hinted write means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepted {
    /// It is on disk ([`Durability::Sync`]).
    Durable(HintId),
    /// It is in the commit pipeline ([`Durability::Buffered`]).
    Buffered,
}

/// Room for a hint: below the limits and in the pipeline, and its note for direct writes.
struct Admitted {
    reserved: Reservation,
    permit: OwnedSemaphorePermit,
    on_its_way: Option<OnItsWay>,
}

/// Says of a hint on its way that it is durable, or that it is not known to be.
fn note_durable(on_its_way: Option<OnItsWay>, result: &Result<HintId, EnqueueError>) {
    if let (Some(hint), Ok(id)) = (on_its_way, result) {
        hint.durable(*id);
    }
}

impl<P: Payload> HintedHandoff<P> {
    /// Queues `points` for `node`, to be delivered in order with all other hints of (`node`,
    /// `shard`).
    ///
    /// Returns when [`Config::durability`](crate::Config::durability) is met. Dropping the future
    /// after it was polled once does not withdraw the hint, unless it still waited for room: below
    /// a limit, or in a pipeline that was full.
    ///
    /// # Errors
    /// [`EnqueueError`], whose [`outcome`](EnqueueError::outcome) says whether the hint is refused
    /// or its fate unknown.
    pub async fn write_shard(
        &self,
        node: NodeId,
        shard: ShardId,
        points: &P,
    ) -> Result<Accepted, EnqueueError> {
        let hint = self.encode(shard, points)?;
        if self.config().durability == Durability::Buffered {
            self.hand_in_buffered(node, hint).await?;
            return Ok(Accepted::Buffered);
        }
        let told = self.hand_in(node, hint).await?;
        let durable = told.await.unwrap_or_else(|_| Err(no_answer()));
        durable.map(Accepted::Durable)
    }

    /// Waits for room, and hands a hint to the pipeline. Its id is told once it is durable.
    async fn hand_in(&self, node: NodeId, hint: Hint) -> Result<Told<HintId>, EnqueueError> {
        let admitted = self.admit_to_pipeline(node, &hint).await?;
        let (tell, told) = oneshot::channel();
        let done = move |result| {
            drop(admitted.permit);
            note_durable(admitted.on_its_way, &result);
            // Nobody listens if the caller gave up; the hint stays.
            let _ = tell.send(result);
        };
        let store = &self.inner.store;
        store.append_within(admitted.reserved, node, hint, Box::new(done));
        Ok(told)
    }

    /// The same of one that is answered by then.
    async fn hand_in_buffered(&self, node: NodeId, hint: Hint) -> Result<(), EnqueueError> {
        let (admitted, shard) = (self.admit_to_pipeline(node, &hint).await?, hint.shard);
        let done = move |result: Result<HintId, EnqueueError>| {
            drop(admitted.permit);
            note_durable(admitted.on_its_way, &result);
            if let Err(error) = result {
                tracing::error!(
                    node = node.0, shard = shard.0, error = %with_causes(&error),
                    "a buffered hint was lost"
                );
            }
        };
        let store = &self.inner.store;
        store.append_buffered_within(admitted.reserved, node, hint, Box::new(done))
    }

    async fn admit_to_pipeline(&self, node: NodeId, hint: &Hint) -> Result<Admitted, EnqueueError> {
        self.check_hinted(node)?;
        let reserved = self.admit_hint(node, hint.payload.len()).await?;
        let permit = self.room(hint.payload.len()).await?;
        // The host may have said so while this waited.
        self.check_hinted(node)?;
        Ok(Admitted {
            reserved,
            permit,
            on_its_way: self.on_its_way(node, hint.shard),
        })
    }

    /// To be noted before a hint is handed in, if direct writes keep behind it.
    pub(crate) fn on_its_way(&self, node: NodeId, shard: ShardId) -> Option<OnItsWay> {
        let admission = self.inner.admission.as_ref()?;
        Some(admission.hint(&self.inner.store, node, shard))
    }

    /// Takes the next place in the line of those who write to this shard of the node, if they keep
    /// in order.
    pub(crate) fn line_up(&self, node: NodeId, shard: ShardId) -> Option<Place> {
        let admission = self.inner.admission.as_ref()?;
        Some(admission.line_up(node, shard))
    }

    /// Waits for room for so many bytes in the pipeline, unless the service stops.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, EnqueueError> {
        let permit = self.permit(bytes).await?;
        match self.inner.is_closing() {
            true => Err(EnqueueError::ShutDown),
            false => Ok(permit),
        }
    }

    async fn permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, EnqueueError> {
        let wanted = u32::try_from(bytes).unwrap_or(UNCOMMITTED_BYTES);
        let room = Arc::clone(&self.inner.room).acquire_many_owned(wanted.min(UNCOMMITTED_BYTES));
        room.await.map_err(|_| EnqueueError::ShutDown)
    }

    /// [`write_shard`](HintedHandoff::write_shard) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `write_shard`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `write_shard` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn write_shard_blocking(
        &self,
        node: NodeId,
        shard: ShardId,
        points: &P,
    ) -> Result<Accepted, EnqueueError> {
        block_on(self.write_shard(node, shard, points))
    }

    /// Waits until everything answered so far is durable, `Buffered` answers and acknowledgements
    /// included.
    ///
    /// If the store failed and reopened itself since this handle was made or last told of such,
    /// that is an error once: what was answered as buffered before may be lost, and what was
    /// delivered may come again. As with `fsync` and file descriptors, each handle tells of it by
    /// itself: give a task that relies on its own syncs a clone of its own.
    ///
    /// # Errors
    /// [`HandoffError`] if the store has failed, or did meanwhile, or is shut down.
    pub async fn sync(&self) -> Result<(), HandoffError> {
        let (tell, told) = oneshot::channel();
        self.inner.store.sync(move |result| {
            let _ = tell.send(result);
        });
        told.await.unwrap_or(Err(HandoffError::ShutDown))?;
        let reopens = self.inner.store.reopens();
        match self.reopens_told.swap(reopens, Relaxed) == reopens {
            true => Ok(()),
            false => Err(HandoffError::FailedMeanwhile),
        }
    }

    /// [`sync`](HintedHandoff::sync) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `sync`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `sync` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn sync_blocking(&self) -> Result<(), HandoffError> {
        block_on(self.sync())
    }

    /// What happens from now on. A listener that is slow misses the oldest of more than 1,024
    /// events, and is told how many. The last one is [`Event::ShutDown`]; then the channel is
    /// closed, whoever holds a handle still.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.listen()
    }

    /// Whether the store serves and replay runs, and if not, why.
    ///
    /// A runtime that was dropped is seen at once, one that nobody drives or whose threads are
    /// blocked after some ten seconds.
    pub fn health(&self) -> Health {
        match self.inner.store.health() {
            Health::Serving => {
                let stopped = self.inner.replays.why_stopped();
                stopped.map_or(Health::Serving, Health::ReplayStopped)
            }
            health => health,
        }
    }

    /// Stops replay, commits what was handed in, and lets go of the directory: a second open right
    /// after it succeeds.
    ///
    /// Writes of a [`PointsWriter`](crate::PointsWriter) that began before have their hints made at
    /// once, whatever is outstanding. Sends in flight may finish within
    /// [`Config::shutdown_grace`](crate::Config::shutdown_grace) and are then abandoned; what is
    /// abandoned is sent again after the next open. Writes that come after the call are refused.
    /// Every later call returns the same. If the runtime that the store was opened on does not run,
    /// the store is closed all the same, and what is under way is abandoned.
    ///
    /// # Errors
    /// [`HandoffError`] if the store had failed, or could not be closed cleanly.
    pub async fn shutdown(&self) -> Result<(), HandoffError> {
        let inner = &self.inner;
        let once = (inner.shutdown).get_or_init(|| Arc::clone(inner).shut_down());
        once.await.clone()
    }

    /// [`shutdown`](HintedHandoff::shutdown) for a thread that does not drive a tokio runtime.
    /// Blocks it.
    ///
    /// # Errors
    /// As `shutdown`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `shutdown` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn shutdown_blocking(&self) -> Result<(), HandoffError> {
        block_on(self.shutdown())
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn replays(&self) -> &Replays {
        &self.inner.replays
    }

    pub(crate) fn all_turns(&self) -> &Arc<Semaphore> {
        &self.inner.turns
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn ageing(&self) -> &Ageing {
        &self.inner.ageing
    }

    pub(crate) fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.runtime
    }

    /// The store by itself, for tests that claim hints or look at what is pending.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn store_below(&self) -> Arc<Store> {
        Arc::clone(&self.inner.store)
    }

    /// Makes the next commits of the store fail.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn inject(&self, fault: crate::store::CommitFault) {
        self.inner.store.inject(fault);
    }

    /// Hands in a hint that is held, past limits and admission; told its id once it is durable.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn append_held(
        &self,
        node: NodeId,
        shard: ShardId,
        points: &P,
    ) -> Result<
        (
            crate::store::Held,
            oneshot::Receiver<Result<HintId, EnqueueError>>,
        ),
        EnqueueError,
    > {
        let hint = self.encode(shard, points)?;
        let (tell, told) = oneshot::channel();
        let done = move |result| drop(tell.send(result));
        let reserved = crate::store::Reservation::default();
        let held = self
            .inner
            .store
            .append_held(reserved, node, hint, false, Box::new(done));
        Ok((held, told))
    }

    /// Has the store compacted all the time, or no longer.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn compact_eagerly(&self, eager: bool) {
        self.inner.store.compact_eagerly(eager);
    }

    /// Makes the commits of the store work again.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn disk_works_again(&self) {
        self.inject(crate::store::CommitFault::None);
    }
}
