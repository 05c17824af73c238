//! A held hint, as the lane of its shard sees it.
//!
//! A held hint leaves by itself, past older hints of its shard that wait. So while it is held the
//! lane counts it as one on its way, and the place of a hint that left so is never the lane's last:
//! only those that replay lets leave in order are.

use super::OnItsWay;
use crate::{
    error::HandoffError,
    store::{Fate, Held, Hint},
    types::{Amount, HintId},
};

/// The right to let a held hint leave, past which nothing of its lane is sent directly. Dropped,
/// the hint is an ordinary one.
#[derive(Debug)]
pub struct HeldInLane {
    held: Option<Held>,
    /// Where writes are kept in order.
    on_its_way: Option<OnItsWay>,
    /// Once it is durable.
    id: Option<HintId>,
}

impl HeldInLane {
    pub fn new(held: Held, on_its_way: Option<OnItsWay>) -> Self {
        HeldInLane {
            held: Some(held),
            on_its_way,
            id: None,
        }
    }

    /// It is durable, and stands here.
    #[must_use]
    pub fn durable(mut self, id: HintId) -> Self {
        self.id = Some(id);
        self
    }

    /// See [`Held::deliver`].
    pub fn deliver(self) -> Result<Amount, HandoffError> {
        self.leave(Held::deliver)
    }

    /// See [`Held::withdraw`].
    pub fn withdraw(self) -> Result<Amount, HandoffError> {
        self.leave(Held::withdraw)
    }

    /// See [`Held::leave_undelivered`]. `done` is told whether it left, or else why it is an
    /// ordinary hint.
    pub fn leave_undelivered(
        mut self,
        hint: Hint,
        fate: Fate,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        let Some(held) = self.held.take() else {
            return done(Ok(()));
        };
        held.leave_undelivered(hint, fate, move |left| {
            if left.is_ok() {
                self.on_its_way = None;
            }
            drop(self);
            done(left.map(drop));
        });
    }

    fn leave(
        mut self,
        leave: impl FnOnce(Held) -> Result<Amount, HandoffError>,
    ) -> Result<Amount, HandoffError> {
        let Some(held) = self.held.take() else {
            return Ok(Amount::default());
        };
        let left = leave(held);
        if left.is_ok() {
            self.on_its_way = None;
        }
        left
    }
}

impl Drop for HeldInLane {
    fn drop(&mut self) {
        // First: as long as it is on its way nobody looks where it stands.
        self.held = None;
        if let (Some(hint), Some(id)) = (self.on_its_way.take(), self.id) {
            hint.durable(id);
        }
    }
}
