//! Hints that the host discards by hand.

use std::time::Duration;

use super::handoff::HintedHandoff;
use crate::{
    blocking::block_on,
    error::HandoffError,
    limits::read_unclaimed,
    payload::Payload,
    replay::lose,
    store::{LossReason, PeekedHint, Reader},
    types::{Amount, NodeId, ShardId},
};

/// Which pending hints of a node are meant: those that meet all that is said here. `default()`
/// means every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HintsMeant {
    /// Those that were enqueued at least so long ago.
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
    /// [`HandoffError::UnknownNode`] if the node was never hinted, or why the store does not serve.
    pub async fn discard_hints(
        &self,
        node: NodeId,
        meant: HintsMeant,
    ) -> Result<Amount, HandoffError> {
        let inner = &self.inner;
        inner.store.check_serving()?;
        if !inner.store.knows(node) {
            return Err(HandoffError::UnknownNode { node });
        }
        let end = inner.store.nodes().into_iter().find(|(it, _)| *it == node);
        let end = end.and_then(|(_, queues)| {
            let last = queues.queues.back()?;
            Some((last.at, last.watermark))
        });
        let Some((last_queue, watermark)) = end else {
            return Ok(Amount::default());
        };
        let (mut reader, mut from, mut left) = (Reader::default(), None, Amount::default());
        loop {
            let reading = read_unclaimed(&inner.runtime, &inner.store, node, from, reader);
            let hints;
            (reader, hints) = reading.await?;
            let Some(last) = hints.last().map(|hint| hint.mark.place()) else {
                return Ok(left);
            };
            from = Some(last.next());
            let mut taken: Vec<PeekedHint> = hints;
            taken.retain(|hint| self.is_meant(meant, hint));
            inner.store.claim(node, &mut taken);
            if !taken.is_empty() {
                let gone = lose(&inner.store, node, taken, LossReason::Discarded).await?;
                left = left.plus(gone);
            }
            if last.queue == last_queue && last.sequence >= watermark {
                return Ok(left);
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
        let is_old = meant.older_than.is_none_or(|age| {
            let enqueued = self
                .inner
                .ageing
                .of_read(&self.inner.store, hint)
                .enqueued_unix_ms;
            self.inner.ageing.since(enqueued) >= age
        });
        is_of_shard && is_old
    }
}
