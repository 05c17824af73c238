//! Making barriers and waiting for them.

use std::{pin::pin, time::Duration};

use tokio::sync::oneshot;

use super::handoff::HintedHandoff;
use crate::{
    blocking::block_on,
    error::HandoffError,
    payload::Payload,
    store::{Barrier, BarrierState},
    types::NodeId,
};

/// Hints leave in batches, one after the other: what a barrier has become of is looked up this far
/// apart at least.
const LOOKS_APART: Duration = Duration::from_millis(10);

impl<P: Payload> HintedHandoff<P> {
    /// Marks this moment in the queues of some nodes: everything that was answered before the call,
    /// [`Buffered`] answers included, and has not left yet. [`wait`](HintedHandoff::wait) tells
    /// what has become of that, after a restart of the process too.
    ///
    /// Dead letters are part of it if they stand behind the first hint of their queue that waits;
    /// older ones are not.
    ///
    /// Nothing waits for a node that was never hinted, or was removed: it can be named, and as far
    /// as it goes the barrier is [`Delivered`](BarrierState::Delivered), unless copies for it are
    /// not stored from then on.
    ///
    /// # Errors
    /// [`HandoffError::NoNodes`] for an empty list, or why the store does not serve.
    ///
    /// [`Buffered`]: crate::Durability::Buffered
    pub async fn barrier(&self, nodes: &[NodeId]) -> Result<Barrier, HandoffError> {
        if nodes.is_empty() {
            return Err(HandoffError::NoNodes);
        }
        let (tell, told) = oneshot::channel();
        let nodes = nodes.iter().copied().collect();
        self.inner.store.barrier(nodes, move |made| {
            // Nobody listens if the caller gave up.
            let _ = tell.send(made);
        });
        told.await.unwrap_or(Err(HandoffError::ShutDown))
    }

    /// [`barrier`](HintedHandoff::barrier) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `barrier`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `barrier` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn barrier_blocking(&self, nodes: &[NodeId]) -> Result<Barrier, HandoffError> {
        block_on(self.barrier(nodes))
    }

    /// Waits until every hint of a barrier is delivered, or some are lost, for at most `timeout`;
    /// with none it only looks.
    ///
    /// - [`Delivered`](BarrierState::Delivered): every one was taken by its node. What was a dead
    ///   letter and was sent on counts as what it became.
    /// - [`Waiting`](BarrierState::Waiting): the time is over. Dead letters do not move by
    ///   themselves.
    /// - [`Lost`](BarrierState::Lost): told at once, however much still waits, since it is final.
    ///   Where the journal has folded the entries in question into ranges, or a dead letter older
    ///   than the barrier and one younger were discarded, this may be said though all of the
    ///   barrier's own hints were delivered; never the other way round.
    ///
    /// `Delivered` and `Lost` are durable when they are told: no crash takes them back. After an
    /// unclean stop what was acknowledged a moment before it, and not told of here, is delivered
    /// again, so a barrier may wait for more than it did.
    ///
    /// # Errors
    /// [`HandoffError::BarrierDamaged`] for one of which anything was changed;
    /// [`HandoffError::BarrierOfAnotherStore`], [`HandoffError::BarrierVersion`] or
    /// [`HandoffError::BarrierAhead`] for a barrier that this store cannot know; why the store does
    /// not serve, also if it stops serving meanwhile.
    pub async fn wait(
        &self,
        barrier: &Barrier,
        timeout: Duration,
    ) -> Result<BarrierState, HandoffError> {
        let inner = &self.inner;
        let mut leave_bell = inner.leave_bell.subscribe();
        let pulse = inner.replays.pulse();
        let mut deadline = pin!(pulse.sleep(timeout));
        let stop = inner.replays.stop();
        let mut is_over = timeout.is_zero();
        loop {
            // Whatever leaves from here on rings.
            leave_bell.mark_unchanged();
            let state = self.look_at(barrier).await?;
            if is_over || !matches!(state, BarrierState::Waiting { .. }) {
                return Ok(state);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(HandoffError::ShutDown),
                over = &mut deadline => return Ok(over.map(|()| state)?),
                // The sender is in the service, so it does not end.
                _ = leave_bell.changed() => {}
            }
            tokio::select! {
                biased;
                over = &mut deadline => is_over = over.map(|()| true)?,
                looks = pulse.sleep(LOOKS_APART) => looks?,
            }
        }
    }

    /// [`wait`](HintedHandoff::wait) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `wait`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `wait` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn wait_blocking(
        &self,
        barrier: &Barrier,
        timeout: Duration,
    ) -> Result<BarrierState, HandoffError> {
        block_on(self.wait(barrier, timeout))
    }

    /// Waits until everything that waits for a node now is delivered: a
    /// [`barrier`](HintedHandoff::barrier) of it, and the [`wait`](HintedHandoff::wait) for that.
    /// For a node that was never hinted that is at once.
    ///
    /// # Errors
    /// As these.
    pub async fn drain(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<BarrierState, HandoffError> {
        let barrier = self.barrier(&[node]).await?;
        self.wait(&barrier, timeout).await
    }

    /// [`drain`](HintedHandoff::drain) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `drain`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `drain` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn drain_blocking(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<BarrierState, HandoffError> {
        block_on(self.drain(node, timeout))
    }

    /// What has become of a barrier, durably if that is final.
    async fn look_at(&self, barrier: &Barrier) -> Result<BarrierState, HandoffError> {
        let store = &self.inner.store;
        loop {
            let reopens = store.reopens();
            let looked_at = barrier.clone();
            let state = self.read(move |store| store.look_at(&looked_at)).await?;
            if matches!(state, BarrierState::Waiting { .. }) {
                return Ok(state);
            }
            let (tell, told) = oneshot::channel();
            store.sync(move |synced| {
                let _ = tell.send(synced);
            });
            told.await.unwrap_or(Err(HandoffError::ShutDown))?;
            // One that failed and reopened itself in between may have undone what was seen.
            if store.reopens() == reopens {
                return Ok(state);
            }
        }
    }
}
