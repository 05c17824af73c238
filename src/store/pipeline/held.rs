//! Held hints: hints that are durable like any other, and that only their holder lets leave.
//!
//! Whoever is still sending a write directly when its hint becomes durable holds the hint: it
//! leaves unsent if the send succeeds. Until the holder lets go of it, no limit takes it, and all
//! later hints of its (node, shard) wait behind it: a receiver that keeps the highest sequence
//! would refuse it once one of them had been applied.
//!
//! A hold is memory only. The commit thread enters it when it gives out the sequence, before the
//! group is written, so that a hint whose group's outcome is unknown is held if a reopen finds it.
//! Once the hint can be seen it is claimed too, so that limits, expiry and counts need no case of
//! their own. Where a hold has no hint that is there (refused, lost with its group, gone with its
//! node), it stands for nothing.

use std::sync::{Arc, Weak};

use crate::{
    error::HandoffError,
    store::{
        format::{
            block::Hint,
            cursor::Leave,
            peeked::{Mark, PeekedHint},
            reasons::Fate,
        },
        pipeline::{
            batch::{Leaving, WriteBatch},
            shared::Shared,
            ticket::{Entry, told},
        },
        state::{held_hints::HoldId, lock::Reservation},
    },
    types::Amount,
};

/// The right to let a held hint leave. Dropped, the hint is an ordinary one from then on, and its
/// node's bell rings.
///
/// It holds whatever the node is called by now. It may be ended at any time; one that ends before
/// its hint is durable leaves an ordinary hint behind, so who wants it to leave waits for that
/// first.
#[derive(Debug)]
pub struct Held {
    shared: Weak<Shared>,
    id: HoldId,
}

impl Held {
    /// Of a hint that is about to be handed in.
    pub(crate) fn begin(shared: &Arc<Shared>) -> Held {
        Held {
            id: shared.registry.lock().held.begin(),
            shared: Arc::downgrade(shared),
        }
    }

    pub(crate) fn id(&self) -> HoldId {
        self.id
    }

    /// The node took it: it leaves as delivered if it is durable, seen at once, on disk with the
    /// next group. Returns what left: nothing if the hint is not there.
    ///
    /// # Errors
    /// Why the store does not serve. Then it is an ordinary hint from now on, if it is there when
    /// the store serves again.
    pub fn deliver(self) -> Result<Amount, HandoffError> {
        self.end(Some(Leave::Delivered))
    }

    /// Its write was refused: it leaves as withdrawn, in the same way.
    ///
    /// # Errors
    /// As [`deliver`](Held::deliver).
    pub fn withdraw(self) -> Result<Amount, HandoffError> {
        self.end(Some(Leave::Withdrawn))
    }

    /// Its node refused it: it leaves undelivered, in one step with the record of that. `done` is
    /// told what left once that is durable: nothing if the hint is not there. Until then it stays
    /// held.
    pub fn leave_undelivered(
        self,
        hint: Hint,
        fate: Fate,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        let Some(shared) = self.shared.upgrade() else {
            return done(Err(HandoffError::ShutDown));
        };
        let Some((node, place)) = shared.registry.lock().place_of(self.id) else {
            return done(Ok(Amount::default()));
        };
        let mark = Mark {
            queue: place.queue,
            sequence: place.sequence,
            // Of one hint alone nobody asks for it.
            bytes_through: 0,
        };
        let leaving = Leaving::Hints(node, vec![PeekedHint { mark, hint }], fate);
        let told = told(move |written| {
            drop(self);
            done(written.map(|it| it.left));
        });
        let batch = WriteBatch::of_leaving(leaving);
        let entry = Entry::new(batch, Reservation::default(), told);
        if let Err(error) = shared.check_serving() {
            return entry.refuse(error.into());
        }
        if let Err(entry) = shared.inbox.hand_in(entry) {
            entry.refuse(HandoffError::ShutDown.into());
        }
    }

    /// The end of a hold that was ended before does nothing.
    fn end(&self, leave: Option<Leave>) -> Result<Amount, HandoffError> {
        let shared = self.shared.upgrade().ok_or(HandoffError::ShutDown)?;
        if leave.is_some() {
            shared.check_serving()?;
        }
        let ended = {
            let mut registry = shared.registry.lock();
            let ended = registry.let_go(self.id, leave);
            if let Some(ended) = ended.as_ref().filter(|it| it.left.hints > 0) {
                // Under the same lock: a sync that comes after anybody saw that it left makes that
                // durable.
                shared.inbox.mark_dirty((ended.node, ended.queue));
            }
            ended
        };
        let Some(ended) = ended else {
            return Ok(Amount::default());
        };
        if ended.left.hints > 0 {
            shared.tell_leave();
        }
        // Also where nothing is left: replay may have read it, and waits for it. A store that
        // failed rings for all nodes when it serves again.
        if shared.is_serving() {
            (shared.on_durable)(&[ended.node].into());
        }
        Ok(ended.left)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Only a hint that is to leave can be refused that.
        let _ = self.end(None);
    }
}

#[cfg(test)]
mod tests;
