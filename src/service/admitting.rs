//! Room for hints before they enter the pipeline: what is there, what is waited for, and what is
//! dropped for it.

use super::handoff::HintedHandoff;
use crate::{
    config::WhenFull,
    error::{EnqueueError, HandoffError, Limit},
    limits::read_unclaimed,
    payload::Payload,
    replay::lose,
    store::{Full, LossReason, PeekedHint, Reader, Reservation},
    types::{Amount, NodeId},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How often a write that waits for the disk looks again: no bell is rung for that.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(250);

impl<P: Payload> HintedHandoff<P> {
    /// Whether anything can keep a hint from the pipeline.
    pub(crate) fn has_door(&self) -> bool {
        self.inner.store.is_limited() || self.inner.door.awaits_disk
    }

    /// Room that is there already.
    pub(crate) fn admit_now(&self, wanted: &[(NodeId, Amount)]) -> Option<Reservation> {
        let inner = &self.inner;
        if inner.door.awaits_disk && inner.store.disk_shortage().is_some() {
            return None;
        }
        inner.store.reserve(wanted.to_vec()).ok()
    }

    /// Room for one hint.
    pub(super) async fn admit_hint(
        &self,
        node: NodeId,
        bytes: usize,
    ) -> Result<Reservation, EnqueueError> {
        if !self.has_door() {
            return Ok(Reservation::default());
        }
        let amount = Amount {
            hints: 1,
            bytes: bytes as u64,
        };
        self.admit(vec![(node, amount)]).await
    }

    /// Room for hints, each node once, all of them or none; waited for, or made, as the
    /// configuration says.
    pub(crate) async fn admit(
        &self,
        wanted: Vec<(NodeId, Amount)>,
    ) -> Result<Reservation, EnqueueError> {
        let inner = &self.inner;
        let admitted = match inner.door.when_full {
            WhenFull::Reject => {
                let reserved = inner.store.reserve(wanted.clone());
                reserved.map_err(|full| self.refusal(full, None))
            }
            WhenFull::DropOldest => self.admit_by_dropping(&wanted).await,
            WhenFull::Block => self.admit_by_waiting(&wanted).await,
        };
        if let Err(EnqueueError::QueueFull { .. } | EnqueueError::OverLimit { .. }) = &admitted {
            for (node, amount) in wanted {
                inner.store.note_refused(node, amount.hints);
            }
        }
        admitted
    }

    pub(super) fn refusal(&self, full: Full, waited: Option<Duration>) -> EnqueueError {
        let Full {
            node,
            limit,
            max,
            pending,
            wanted,
        } = full;
        if full.is_for_ever() {
            return EnqueueError::OverLimit {
                node,
                limit,
                max,
                wanted,
            };
        }
        let inner = &self.inner;
        let oldest = match limit {
            Limit::NodeHints | Limit::NodeBytes => inner.store.oldest(node),
            Limit::StoreHints | Limit::StoreBytes | Limit::Disk => inner.store.oldest_of_all(),
        };
        EnqueueError::QueueFull {
            node,
            limit,
            max,
            pending,
            wanted,
            oldest_age: oldest.map(|unix_ms| inner.ageing.since(unix_ms)),
            waited,
        }
    }

    /// Waits for room; so does whoever finds too little space on the disk.
    async fn admit_by_waiting(
        &self,
        wanted: &[(NodeId, Amount)],
    ) -> Result<Reservation, EnqueueError> {
        let inner = &self.inner;
        let door = &inner.door;
        let pulse = inner.replays.pulse();
        let mut wait = None;
        let mut is_vain = false;
        loop {
            // Listening begins before looking, so that no ring is missed in between.
            let mut rung = std::pin::pin!(door.room.notified());
            rung.as_mut().enable();
            if inner.is_closing() {
                return Err(EnqueueError::ShutDown);
            }
            inner.store.check_serving()?;
            let shortage = match door.awaits_disk {
                true => inner.store.disk_shortage(),
                false => None,
            };
            let full = match shortage {
                None => match inner.store.reserve(wanted.to_vec()) {
                    Ok(reserved) => return Ok(reserved),
                    Err(full) => Some(full),
                },
                Some(_) => None,
            };
            if let Some(full) = full.filter(Full::is_for_ever) {
                return Err(self.refusal(full, None));
            }
            let (started, wait) = wait.get_or_insert_with(|| self.timer(door.block_timeout));
            if is_vain || wait.is_elapsed() {
                let waited = Some(started.elapsed());
                return Err(match (full, shortage) {
                    (Some(full), _) => self.refusal(full, waited),
                    (None, Some(shortage)) => shortage,
                    (None, None) => EnqueueError::ShutDown,
                });
            }
            let (_, look) = self.timer(DISK_LOOK_EVERY);
            tokio::pin!(look);
            tokio::select! {
                biased;
                // Nothing makes room then, and timers of that runtime are not to be polled.
                _ = pulse.stopped() => is_vain = true,
                () = &mut rung => {}
                () = wait.as_mut() => {}
                () = look, if full.is_none_or(|full| full.limit == Limit::Disk) => {}
                () = inner.closing().cancelled() => {}
            }
        }
    }

    /// A sleep that may be awaited on a thread without a runtime, too.
    fn timer(&self, length: Duration) -> (Instant, std::pin::Pin<Box<tokio::time::Sleep>>) {
        let _entered = self.inner.runtime.enter();
        (Instant::now(), Box::pin(tokio::time::sleep(length)))
    }

    /// Has the oldest hints leave until there is room: never more than what is missing at that
    /// moment.
    async fn admit_by_dropping(
        &self,
        wanted: &[(NodeId, Amount)],
    ) -> Result<Reservation, EnqueueError> {
        let inner = &self.inner;
        let door = &inner.door;
        if let Ok(reserved) = inner.store.reserve(wanted.to_vec()) {
            return Ok(reserved);
        }
        // Dropped after what follows: nobody else looks while it counts as waiting and has its room
        // already.
        let mut _turn = None;
        let mut dropper = (door.dropping).begin(wanted, || door.room.notify_waiters());
        // Nodes all of whose hints are being sent.
        let mut untouchable = BTreeSet::new();
        loop {
            let mut rung = std::pin::pin!(door.room.notified());
            rung.as_mut().enable();
            if inner.is_closing() {
                return Err(EnqueueError::ShutDown);
            }
            inner.store.check_serving()?;
            // One at a time looks for what to drop; what is dropped is waited for by all of them
            // together.
            let looking = door.looking.acquire().await;
            _turn = Some(looking.map_err(|_| EnqueueError::ShutDown)?);
            let full = match inner.store.reserve(wanted.to_vec()) {
                Ok(reserved) => return Ok(reserved),
                Err(full) => full,
            };
            let missing = dropper.missing(&full);
            if full.is_for_ever() || !full.ends_when_hints_leave() {
                return Err(self.refusal(full, None));
            }
            if missing == 0 {
                _turn = None;
                // Enough is on its way out; whoever has it leave rings.
                tokio::select! {
                    () = &mut rung => {}
                    () = inner.closing().cancelled() => {}
                }
                continue;
            }
            let node = match full.is_of_node() {
                true => Some(full.node).filter(|node| !untouchable.contains(node)),
                false => inner.store.oldest_node(&untouchable),
            };
            let Some(node) = node else {
                return Err(self.refusal(full, None));
            };
            let hints = match self.claim_oldest(node, &full, missing).await {
                Ok(hints) => hints,
                // What cannot be read is not dropped either.
                Err(HandoffError::ReplayStopped(_)) => return Err(self.refusal(full, None)),
                Err(error) => return Err(error.into()),
            };
            if hints.is_empty() {
                untouchable.insert(node);
                _turn = None;
                continue;
            }
            // From the claim to the loss nothing is awaited: whoever gives up here leaves nothing
            // claimed behind.
            dropper.leaving(node, amount_of(&hints));
            _turn = None;
            let lost = lose(&inner.store, node, hints, LossReason::Quota).await;
            dropper.left();
            lost.map_err(EnqueueError::from)?;
        }
    }

    /// Claims as many of a node's oldest hints as are missing, fewer if there are not so many
    /// within one read.
    async fn claim_oldest(
        &self,
        node: NodeId,
        full: &Full,
        mut missing: u64,
    ) -> Result<Vec<PeekedHint>, HandoffError> {
        let inner = &self.inner;
        let kept = inner.door.reader.lock().take();
        let kept = kept.filter(|(of, _)| *of == node);
        let mut reader = kept.map_or_else(Reader::default, |(_, reader)| reader);
        let mut from = None;
        let claimed = loop {
            let reading = read_unclaimed(&inner.runtime, &inner.store, node, from, reader);
            let mut hints;
            (reader, hints) = reading.await?;
            let Some(last) = hints.last() else {
                break Vec::new();
            };
            from = Some(last.mark.place().next());
            inner.store.claim(node, &mut hints);
            let enough = hints.iter().position(|hint| {
                missing = missing.saturating_sub(full.count(amount_of([hint])));
                missing == 0
            });
            let spare = hints.split_off(enough.map_or(hints.len(), |last| last + 1));
            inner.store.release(node, &spare);
            if !hints.is_empty() {
                break hints;
            }
        };
        *inner.door.reader.lock() = Some((node, reader));
        Ok(claimed)
    }
}

fn amount_of<'a>(hints: impl IntoIterator<Item = &'a PeekedHint>) -> Amount {
    let amounts = hints.into_iter().map(|hint| Amount {
        hints: 1,
        bytes: hint.hint.payload_bytes(),
    });
    amounts.fold(Amount::default(), Amount::plus)
}
