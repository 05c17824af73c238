//! The blocking twins: for any thread that does not drive a runtime.

use super::{DeadLetter, DeadLetterContent, Redriven};
use crate::{
    blocking::block_on,
    error::HandoffError,
    payload::Payload,
    service::handoff::HintedHandoff,
    types::{Amount, HintId, NodeId},
};

impl<P: Payload> HintedHandoff<P> {
    /// [`dead_letters`](HintedHandoff::dead_letters) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `dead_letters`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `dead_letters` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn dead_letters_blocking(
        &self,
        node: NodeId,
        after: Option<HintId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>, HandoffError> {
        block_on(self.dead_letters(node, after, max))
    }

    /// [`dead_letter`](HintedHandoff::dead_letter) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `dead_letter`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `dead_letter` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn dead_letter_blocking(
        &self,
        node: NodeId,
        id: HintId,
    ) -> Result<DeadLetterContent<P>, HandoffError> {
        block_on(self.dead_letter(node, id))
    }

    /// [`redrive`](HintedHandoff::redrive) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `redrive`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `redrive` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn redrive_blocking(&self, node: NodeId, id: HintId) -> Result<HintId, HandoffError> {
        block_on(self.redrive(node, id))
    }

    /// [`redrive_all`](HintedHandoff::redrive_all) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `redrive_all`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `redrive_all` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn redrive_all_blocking(&self, node: NodeId) -> Result<Redriven, HandoffError> {
        block_on(self.redrive_all(node))
    }

    /// [`discard`](HintedHandoff::discard) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `discard`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `discard` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn discard_blocking(&self, node: NodeId, ids: &[HintId]) -> Result<Amount, HandoffError> {
        block_on(self.discard(node, ids))
    }

    /// [`discard_all`](HintedHandoff::discard_all) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `discard_all`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `discard_all` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn discard_all_blocking(&self, node: NodeId) -> Result<Amount, HandoffError> {
        block_on(self.discard_all(node))
    }
}
