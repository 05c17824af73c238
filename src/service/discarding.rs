//! Hints that the host discards by hand.

use std::time::Duration;

use super::{durable_hints::DurableHints, handoff::HintedHandoff};
use crate::{
    blocking::block_on,
    error::HandoffError,
    payload::Payload,
    replay::lose,
    store::{LossReason, PeekedHint},
    types::{Amount, NodeId, ShardId},
};

/// Which pending hints of a node are meant: those that meet all that is said here. `default()`
/// means every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HintsMeant {
    /// Those that were enqueued at least so long ago. Of hints that were there at the open that is
    /// not known, so none is meant, while the wall clock is not believed
    /// ([`Config::expiry_grace`](crate::Config::expiry_grace)).
    pub older_than: Option<Duration>,
    /// Those of one shard.
    pub shard: Option<ShardId>,
}

impl HintsMeant {
    /// Those that were enqueued at least so long ago.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Those of one shard.
    #[must_use]
    pub fn of_shard(mut self, shard: ShardId) -> Self {
        self.shard = Some(shard);
        self
    }
}

impl<P: Payload> HintedHandoff<P> {
    /// Discards pending hints of a node: those that are meant, that were durable when it is asked,
    /// and that are nobody's, so those that are being sent stay. Returns what left. The loss
    /// journal tells of it ([`LossReason::Discarded`](crate::LossReason::Discarded)), in steps:
    /// what left before an error or a crash is gone.
    ///
    /// To discard all, and the node with it, use
    /// [`remove_node`](HintedHandoff::remove_node).
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if the node was never hinted, [`HandoffError::TooScattered`]
    /// or [`HandoffError::DamagedHint`] if others than the first cannot leave, or why the store
    /// does not serve.
    pub async fn discard_hints(
        &self,
        node: NodeId,
        meant: HintsMeant,
    ) -> Result<Amount, HandoffError> {
        let mut left = Amount::default();
        let ended = self.discard_each(node, meant, &mut left).await;
        if left.hints > 0 {
            tracing::warn!(
                node = node.0,
                hints = left.hints,
                bytes = left.bytes,
                "pending hints are discarded: the host says so"
            );
        }
        ended.map(|()| left)
    }

    async fn discard_each(
        &self,
        node: NodeId,
        meant: HintsMeant,
        left: &mut Amount,
    ) -> Result<(), HandoffError> {
        let store = &self.inner.store;
        let mut pending = DurableHints::of(self, node)?;
        loop {
            let mut hints = pending.next().await?;
            if hints.is_empty() {
                return Ok(());
            }
            hints.retain(|hint| self.is_meant(meant, hint));
            store.claim(node, &mut hints);
            if !hints.is_empty() {
                let claimed = hints.len() as u64;
                let gone = lose(store, node, hints, LossReason::Discarded).await?;
                *left = left.plus(gone);
                if gone.hints < claimed && store.is_scattered(node) {
                    return Err(HandoffError::TooScattered { node });
                }
            }
        }
    }

    /// [`discard_hints`](HintedHandoff::discard_hints) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `discard_hints`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `discard_hints` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn discard_hints_blocking(
        &self,
        node: NodeId,
        meant: HintsMeant,
    ) -> Result<Amount, HandoffError> {
        block_on(self.discard_hints(node, meant))
    }

    fn is_meant(&self, meant: HintsMeant, hint: &PeekedHint) -> bool {
        let is_of_shard = meant.shard.is_none_or(|shard| hint.hint.shard == shard);
        let is_old = meant
            .older_than
            .is_none_or(|age| self.inner.ageing.is_past(hint.hint.enqueued_unix_ms, age));
        is_of_shard && is_old
    }
}
