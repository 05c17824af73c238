//! What a write has the store keep of its copies, each waited for by a task of its own that tells
//! how it ended.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    error::OwnerError,
    replica::{Direct, Kept},
    write::{Heard, Write},
};
use crate::{
    error::with_causes,
    payload::Payload,
    service::handoff::no_answer,
    shard_writer::{ShardWriter, WriteError},
    store::{DeadCause, DeadReason, Fate, LossReason},
    types::{Amount, Durability},
};

/// What becomes of a copy that its owner refused with this.
fn fate_of(error: &OwnerError, now_unix_ms: u64) -> Fate {
    match error {
        OwnerError::Write(error) if matches!(**error, WriteError::Obsolete { .. }) => {
            Fate::Lost(LossReason::Obsolete)
        }
        _ => Fate::Dead(DeadCause {
            reason: DeadReason::Rejected,
            error: with_causes(error),
            attempts: 1,
            first_failed_unix_ms: now_unix_ms,
            last_failed_unix_ms: now_unix_ms,
        }),
    }
}

impl<P: Payload + Clone, W: ShardWriter<P>> Write<P, W> {
    /// Makes a hint of a copy. It is held until the verdict is known and no send is under way.
    pub(super) fn make_hint(&mut self, index: usize) {
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        copy.kept = Kept::Making;
        // Behind a hint on its way nobody is let past, so writers who did not send share groups.
        let turn = match &copy.direct {
            Direct::Failed(
                OwnerError::Backlogged | OwnerError::GateClosed | OwnerError::TooManyOutstanding,
            ) => copy.turn.take(),
            _ => None,
        };
        let (handoff, node, hint) = (self.handoff.clone(), copy.node, self.hint.clone());
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let handed_in = handoff.hand_in_held(node, hint).await;
            drop(turn);
            let heard = match handed_in {
                Err(refused) => Heard::NotHinted(refused, None),
                Ok((held, told)) => {
                    if handoff.config().durability == Durability::Buffered {
                        let _ = tell.send((index, Heard::Buffered));
                    }
                    match told.await.unwrap_or_else(|_| Err(no_answer())) {
                        Ok(id) => Heard::Hinted(held.durable(id)),
                        Err(error) => Heard::NotHinted(error, Some(held)),
                    }
                }
            };
            let _ = tell.send((index, heard));
        });
    }

    /// Has a copy leave undelivered that its owner refused while another one took it.
    pub(super) fn undeliver(&mut self, index: usize) {
        let Some(copy) = self.copies.get_mut(index) else {
            return;
        };
        let Direct::Refused(error) = &copy.direct else {
            return;
        };
        let fate = fate_of(error, self.handoff.clock().unix_ms());
        let held = match std::mem::replace(&mut copy.kept, Kept::Making) {
            Kept::Hint(held) => held,
            _ => None,
        };
        let (handoff, node, hint) = (self.handoff.clone(), copy.node, self.hint.clone());
        let tell = self.tell.clone();
        // In one step with its hint, if it has one: it is never both.
        if let Some(held) = held {
            return held.leave_undelivered(hint, fate, move |left| {
                let heard = match left {
                    Ok(()) => Heard::Undelivered,
                    Err(_) => Heard::StaysHinted,
                };
                let _ = tell.send((index, heard));
            });
        }
        tokio::spawn(async move {
            let heard = match handoff.append_undelivered(node, hint, fate).await {
                Ok(_) => Heard::Undelivered,
                Err(error) => Heard::NotUndelivered(error),
            };
            let _ = tell.send((index, heard));
        });
    }

    /// Has it recorded that a copy is neither at its owner nor in the store.
    pub(super) fn record(&mut self, index: usize) {
        let Some(copy) = self.copies.get(index) else {
            return;
        };
        let (node, shard) = (copy.node, self.hint.shard);
        let one = Amount {
            hints: 1,
            bytes: self.hint.payload_bytes(),
        };
        if let Some(error) = copy.failure() {
            let error = with_causes(&error);
            tracing::error!(node = node.0, shard = shard.0, %error, "a write missed its node and was not hinted");
        }
        let tell = (!self.is_answered()).then(|| self.tell.clone());
        let done = move |result: Result<(), _>| {
            if let Some(tell) = tell {
                let _ = tell.send((index, Heard::Recorded(result.is_ok())));
            }
        };
        self.handoff.store().note_not_stored(node, shard, one, done);
    }

    /// Counts what became of each copy.
    pub(super) fn count(&self) {
        let counters = self.handoff.write_counters();
        for copy in &self.copies {
            let counter = match (&copy.direct, &copy.kept) {
                (Direct::Taken, _) => &counters.direct,
                (_, Kept::NotStored(..)) => &counters.unstored,
                (Direct::Refused(_), _) => &counters.rejected,
                (_, Kept::Withdrawn) => &counters.withdrawn,
                _ => &counters.hinted,
            };
            counter.fetch_add(1, Relaxed);
            if matches!(copy.direct, Direct::Failed(OwnerError::Backlogged)) && copy.is_hinted() {
                counters.backlogged.fetch_add(1, Relaxed);
            }
        }
    }
}
