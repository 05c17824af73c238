//! What the fan-out needs of the service: ids for its writes, hints that are held or leave at once,
//! and a shutdown that waits for it.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    handoff::{HintedHandoff, Inner, Told, no_answer},
    writes_under_way::{FanOut, WRITES_KIB, WriteCounters},
};
use crate::{
    admission::HeldInLane,
    error::{EnqueueError, HandoffError, ReplayStopped},
    payload::Payload,
    store::{Fate, Hint},
    types::{Durability, HintId, NodeId, WriteId},
};

/// Beyond the time that sends have to finish at a shutdown, for their hints to become durable.
const WRITES_END_WITHIN: Duration = Duration::from_secs(5);

impl<P: Payload> HintedHandoff<P> {
    /// Hands in a hint that is held, and says when it is durable. For writes that began before a
    /// shutdown, and are waited for by it.
    pub(crate) async fn hand_in_held(
        &self,
        node: NodeId,
        hint: Hint,
    ) -> Result<(HeldInLane, Told<HintId>), EnqueueError> {
        self.check_hinted(node)?;
        let reserved = self.admit_hint(node, hint.payload.len()).await?;
        let permit = self.permit(hint.payload.len()).await?;
        // The host may have said so while this waited.
        self.check_hinted(node)?;
        let store = &self.inner.store;
        // Buffered, it counts as stored from here on.
        let answered = self.config().durability == Durability::Buffered;
        if answered && let Some(shortage) = store.disk_shortage() {
            return Err(shortage);
        }
        let on_its_way = self.on_its_way(node, hint.shard);
        let (tell, told) = oneshot::channel();
        let done = move |result| {
            drop(permit);
            let _ = tell.send(result);
        };
        let held = store.append_held(reserved, node, hint, answered, Box::new(done));
        Ok((HeldInLane::new(held, on_its_way), told))
    }

    /// Stores a hint and lets it leave undelivered at once. Waits until that is durable.
    pub(crate) async fn append_undelivered(
        &self,
        node: NodeId,
        hint: Hint,
        fate: Fate,
    ) -> Result<HintId, EnqueueError> {
        let told = self.hand_in_undelivered(node, hint, fate).await?;
        told.await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// The same without the wait.
    pub(super) async fn hand_in_undelivered(
        &self,
        node: NodeId,
        hint: Hint,
        fate: Fate,
    ) -> Result<Told<HintId>, EnqueueError> {
        let permit = self.permit(hint.payload.len()).await?;
        let (tell, told) = oneshot::channel();
        let done = move |result| {
            drop(permit);
            let _ = tell.send(result);
        };
        let store = &self.inner.store;
        store.append_undelivered(node, hint, fate, Box::new(done));
        Ok(told)
    }

    /// Counts a fan-out write as under way until the token is dropped; `None` once the service
    /// stops.
    pub(crate) fn begin_write(&self) -> Option<TaskTrackerToken> {
        // Counted before it looks: a shutdown that it does not see waits for it.
        let counted = self.inner.fan_out.tasks.token();
        (!self.inner.is_closing()).then_some(counted)
    }

    /// Waits for room for one more fan-out write of so many bytes, in the order of the calls, for
    /// `write_timeout` at most.
    pub(crate) async fn room_for_write(&self, bytes: u64) -> Result<OwnedSemaphorePermit, NoRoom> {
        let wanted = u32::try_from(bytes / 1024 + 1).unwrap_or(WRITES_KIB);
        let wanted = wanted.min(WRITES_KIB);
        let room = &self.inner.fan_out.room;
        // Mostly there is some: then the write begins with the first poll, and no timer is needed.
        if let Ok(permit) = Arc::clone(room).try_acquire_many_owned(wanted) {
            return Ok(permit);
        }
        let asking = Arc::clone(room).acquire_many_owned(wanted);
        let pulse = self.inner.replays.pulse();
        tokio::select! {
            biased;
            permit = asking => permit.map_err(|_| NoRoom::ShutDown),
            () = self.inner.closing().cancelled() => Err(NoRoom::ShutDown),
            over = pulse.sleep(self.config().write_timeout) => match over {
                Ok(()) => Err(NoRoom::Full {
                    bytes: u64::from(WRITES_KIB) * 1024,
                }),
                Err(why) => Err(NoRoom::Stopped(why)),
            },
        }
    }

    /// Names the next fan-out write.
    pub(crate) fn next_write_id(&self) -> WriteId {
        let fan_out = &self.inner.fan_out;
        WriteId {
            boot: fan_out.boot,
            counter: fan_out.counter.fetch_add(1, Relaxed),
        }
    }

    /// Cancelled when fan-out writes are to come to their end: as soon as a shutdown begins.
    pub(crate) fn closing(&self) -> &CancellationToken {
        self.inner.closing()
    }

    /// Whether replay finds out that a node answers again: where something waits for it, and is
    /// sent.
    pub(crate) fn is_replayed(&self, node: NodeId) -> bool {
        let store = &self.inner.store;
        let is_manual = self.inner.replays.manual(node).is_some();
        let is_sent = !is_manual && !store.hold(node).is_held();
        let runs = is_sent && self.inner.replays.runs(node);
        runs && store.has_pending(node) && store.check_serving().is_ok()
    }

    pub(crate) fn write_counters(&self) -> &WriteCounters {
        &self.inner.fan_out.counters
    }
}

/// Why a fan-out write does not begin.
#[derive(Debug)]
pub enum NoRoom {
    /// Writes of so many bytes were under way for all of `write_timeout`.
    Full { bytes: u64 },
    /// The service stops.
    ShutDown,
    /// Nothing ends, since the runtime does not run.
    Stopped(ReplayStopped),
}

impl Inner {
    /// Cancelled as soon as a shutdown begins: nobody waits for room any more.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.fan_out.stop
    }

    pub(super) fn is_closing(&self) -> bool {
        self.fan_out.stop.is_cancelled()
    }

    /// Says how many fan-out writes are under way that nobody waits for.
    pub(super) fn abandon_writes(&self) -> usize {
        let FanOut { tasks, stop, .. } = &self.fan_out;
        stop.cancel();
        tasks.close();
        tasks.len()
    }

    /// Has all fan-out writes make their hints, and waits for them: as long as sends may take to
    /// finish, and a little for what aborted ones leave behind.
    pub(super) async fn end_writes(&self) -> Result<(), HandoffError> {
        let FanOut { tasks, stop, .. } = &self.fan_out;
        stop.cancel();
        tasks.close();
        let limit = self.config.read().shutdown_grace + WRITES_END_WITHIN;
        match tokio::time::timeout(limit, tasks.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let writes = tasks.len();
                tracing::error!(
                    writes,
                    "writes are under way that a shutdown cannot wait for"
                );
                Err(HandoffError::WritesUnderWay { writes })
            }
        }
    }
}
