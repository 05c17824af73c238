//! What the closure of a transaction is given, gives back, and must not do.

use std::{cell::Cell, error::Error, fmt};

use crate::{
    error::{EnqueueError, TransactionError},
    payload::Payload,
    peeked::PeekedPoints,
    service::handoff::HintedHandoff,
    store::{Ack, Budget, NewHint},
    types::{NodeId, ShardId},
};

/// Why a closure gives up: any error of the host's, or one that a row or a hint met.
///
/// Made by `?` from any error, and by [`Abort::new`] from a text. The transaction then leaves
/// nothing behind, and the host gets the error back in [`TransactionError::Aborted`].
#[derive(Debug)]
pub struct Abort(Box<dyn Error + Send + Sync>);

impl Abort {
    /// Gives up because of `cause`: an error or a text.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Abort(cause.into())
    }

    /// What a row or a hint met is told as such, all else as the host's own.
    pub(super) fn into_error(self) -> TransactionError {
        match self.0.downcast::<TransactionError>() {
            Ok(ours) => *ours,
            Err(other) => match other.downcast::<EnqueueError>() {
                Ok(ours) => (*ours).into(),
                Err(hosts) => TransactionError::Aborted(hosts),
            },
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Abort {
    fn from(error: E) -> Self {
        Abort(Box::new(error))
    }
}

/// The hints of a transaction, within its closure.
pub struct Hints<'a, P: Payload> {
    pub(super) handoff: &'a HintedHandoff<P>,
    pub(super) budget: &'a Budget,
    pub(super) hints: Vec<NewHint>,
    pub(super) acks: Vec<Ack>,
}

impl<P: Payload> fmt::Debug for Hints<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints")
            .field("enqueued", &self.hints.len())
            .field("acknowledged", &self.acks.len())
            .finish_non_exhaustive()
    }
}

impl<P: Payload> Hints<'_, P> {
    /// Queues `points` for `node`, to be delivered in order with all other hints of (`node`,
    /// `shard`), if the transaction comes into effect. Its id is in
    /// [`Committed::hints`](crate::Committed::hints).
    ///
    /// # Errors
    /// [`TransactionError::Enqueue`] if the points do not encode, are empty, or over
    /// [`Config::max_entry_bytes`](crate::Config::max_entry_bytes), or no hints are made for the
    /// node ([`stop_hinting`](crate::HintedHandoff::stop_hinting)),
    /// [`TransactionError::TransactionTooLarge`] if all rows and hints together come to more than 1
    /// MiB.
    pub fn enqueue(
        &mut self,
        node: NodeId,
        shard: ShardId,
        points: &P,
    ) -> Result<(), TransactionError> {
        self.handoff.check_hinted(node)?;
        let hint = self.handoff.encode(shard, points)?;
        self.budget.add_hint(hint.raw_bytes())?;
        self.hints.push(NewHint::pending(node, hint));
        Ok(())
    }

    /// Lets hints that a [`Consumer`](crate::Consumer) peeked at leave their queue, if the
    /// transaction comes into effect.
    ///
    /// They must be the next ones of their queue at that moment, without a gap; else the
    /// transaction fails with [`TransactionError::NotNext`].
    ///
    /// # Errors
    /// [`TransactionError::NotNext`] for a hint of another store,
    /// [`TransactionError::TransactionTooLarge`] if all rows and hints together come to more than 1
    /// MiB.
    pub fn ack(&mut self, hints: &[PeekedPoints<P>]) -> Result<(), TransactionError> {
        for hint in hints {
            if hint.id.store != self.handoff.store().id() {
                return Err(TransactionError::NotNext { hint: hint.id });
            }
            let mark = hint.mark;
            let is_behind = |ack: &&mut Ack| {
                let follows = ack.last.sequence.0 + 1 == mark.sequence.0;
                ack.node == hint.node && ack.last.queue == mark.queue && follows
            };
            match self.acks.last_mut().filter(is_behind) {
                Some(ack) => ack.last = mark,
                None => {
                    self.budget.add_ack()?;
                    self.acks.push(Ack {
                        node: hint.node,
                        first: mark.sequence,
                        last: mark,
                    });
                }
            }
        }
        Ok(())
    }
}

thread_local! {
    /// Whether this thread runs the closure of a transaction.
    static IN_CLOSURE: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread runs a closure, until it is dropped.
pub(super) struct InClosure;

impl InClosure {
    pub(super) fn enter() -> Self {
        IN_CLOSURE.set(true);
        InClosure
    }
}

impl Drop for InClosure {
    fn drop(&mut self) {
        IN_CLOSURE.set(false);
    }
}

/// What is begun in a closure might wait for those who wait for the closure.
pub(crate) fn refuse_nested() -> Result<(), TransactionError> {
    match IN_CLOSURE.get() {
        true => Err(TransactionError::Nested),
        false => Ok(()),
    }
}
