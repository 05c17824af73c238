//! Handing hints and transactions to the commit thread.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    error::{EnqueueError, HandoffError, TransactionError},
    store::{
        Store, Tree,
        format::block::Hint,
        pipeline::{
            batch::{HintKind, WriteBatch},
            done::AppendDone,
            ticket::{BatchDone, Entry, told_id},
            trees,
        },
        state::lock::Reservation,
    },
    types::NodeId,
};

impl Store {
    /// Hands a hint to the pipeline. `done` is called once, with its id as soon as it is durable,
    /// on the commit thread or on this one; it must not block.
    ///
    /// No limit is asked: see [`reserve`](Store::reserve) and
    /// [`append_within`](Store::append_within).
    #[cfg(feature = "internals")]
    pub fn append(&self, node: NodeId, hint: Hint, done: AppendDone) {
        self.append_within(Reservation::default(), node, hint, done);
    }

    /// The same for a hint that room was reserved for.
    pub fn append_within(&self, reserved: Reservation, node: NodeId, hint: Hint, done: AppendDone) {
        let batch = WriteBatch::of_hint(node, hint, HintKind::Pending);
        self.hand_in_checked(Entry::new(batch, reserved, told_id(done)));
    }

    /// Hands in what is to come into effect as one. `done` is called once, on the commit thread or
    /// on this one, as soon as it is durable, or as it is seen by all; it must not block.
    pub fn write(
        &self,
        batch: WriteBatch,
        reserved: Reservation,
        answer_early: bool,
        done: BatchDone,
    ) {
        let (shared, only_asks) = (Arc::clone(&self.shared), batch.only_asks());
        let counted: BatchDone = Box::new(move |outcome| {
            if outcome.is_ok() && !only_asks {
                shared.counters.transactions.fetch_add(1, Relaxed);
            }
            done(outcome);
        });
        let entry = Entry::new(batch, reserved, counted);
        self.hand_in_checked(match answer_early {
            true => entry.answered_early(),
            false => entry,
        });
    }

    pub(in crate::store) fn hand_in_checked(&self, entry: Entry) {
        match self.shared.check_serving() {
            Ok(()) => self.hand_in(entry),
            Err(error) => entry.refuse(error.into()),
        }
    }

    fn hand_in(&self, entry: Entry) {
        if let Err(entry) = self.shared.inbox.hand_in(entry) {
            entry.refuse(self.why_closed().into());
        }
    }

    /// Checks that `trees` can take part in a transaction: the host's own, in the database that
    /// this store shares.
    pub fn check_trees(&self, trees: &[Tree]) -> Result<(), TransactionError> {
        let engine = self.shared.engine().map_err(EnqueueError::from)?;
        trees::check_trees(&engine, trees)
    }

    /// Hands a hint to the pipeline and returns: it will be durable with its group, unless the
    /// store fails before. `done` is called as by [`append`](Store::append), unless this refuses
    /// the hint.
    #[cfg(feature = "internals")]
    pub fn append_buffered(
        &self,
        node: NodeId,
        hint: Hint,
        done: AppendDone,
    ) -> Result<(), EnqueueError> {
        self.append_buffered_within(Reservation::default(), node, hint, done)
    }

    /// The same for a hint that room was reserved for.
    pub fn append_buffered_within(
        &self,
        reserved: Reservation,
        node: NodeId,
        hint: Hint,
        done: AppendDone,
    ) -> Result<(), EnqueueError> {
        self.shared.check_serving()?;
        if let Some(shortage) = self.shared.space.shortage() {
            let refused = &self.shared.counters.refused_for_space;
            refused.fetch_add(1, Relaxed);
            return Err(shortage.refusal());
        }
        let batch = WriteBatch {
            is_promised: true,
            ..WriteBatch::of_hint(node, hint, HintKind::Pending)
        };
        self.shared
            .inbox
            .hand_in(Entry::new(batch, reserved, told_id(done)))
            .map_err(|_| self.why_closed().into())
    }

    /// Why the inbox takes nothing more.
    pub(in crate::store) fn why_closed(&self) -> HandoffError {
        let serving = self.shared.check_serving();
        serving.err().unwrap_or(HandoffError::ShutDown)
    }
}
