//! Looking at the hints that wait for a node, without taking them.

use std::time::SystemTime;

use bytes::Bytes;

use super::handoff::HintedHandoff;
use crate::{
    blocking::block_on,
    error::HandoffError,
    payload::Payload,
    store::{Peek, PeekLimits, PeekedHint, Reader},
    types::{HintId, NodeId, ShardId, WriteId},
};

/// A hint that waits for its node, as it is stored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PendingHint {
    /// Its id.
    pub id: HintId,
    /// The shard it is for.
    pub shard: ShardId,
    /// When it was enqueued, by the wall clock.
    pub enqueued: SystemTime,
    /// If it was a dead letter and was sent on: the id that it had first.
    pub redriven_from: Option<HintId>,
    /// The write of a [`PointsWriter`](crate::PointsWriter) that it is a copy of, if it is.
    pub write: Option<WriteId>,
    /// The version of the payload's encoding ([`Payload::FORMAT`]).
    pub format: u16,
    /// The payload as it was written.
    pub raw: Bytes,
}

impl<P: Payload> HintedHandoff<P> {
    /// Hints that wait for a node, oldest first: those behind the hint `after`, or from the oldest
    /// on; at most `max`, and at most [`Config::batch_bytes`](crate::Config::batch_bytes) of
    /// payload, but at least one if there is one. It takes nothing, and works for replayed and
    /// manual nodes alike.
    ///
    /// Only what is durable is seen. Hints that are being sent are still there, and so are those
    /// that are too old and have not left yet. If the queue of `after` was drained meanwhile, it
    /// begins at the oldest hint.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`], [`HandoffError::HintOfAnotherStore`],
    /// [`HandoffError::DamagedHint`] if the first one does not read (go on behind it), or why the
    /// store does not serve.
    pub async fn pending_hints(
        &self,
        node: NodeId,
        after: Option<HintId>,
        max: usize,
    ) -> Result<Vec<PendingHint>, HandoffError> {
        after.map_or(Ok(()), |after| self.check_id(after))?;
        let max_bytes = self.config().batch_bytes;
        let store = self.inner.store.id();
        let id_of = move |queue, sequence| HintId {
            store,
            queue,
            sequence,
        };
        let read = self.read(move |store| {
            let mut reader = Reader::default();
            let mut all: Vec<PeekedHint> = Vec::new();
            let mut behind = after.map(|it| (it.queue, it.sequence));
            let mut bytes = 0;
            // A peek ends with a queue, and a node may have several.
            while all.len() < max && (all.is_empty() || bytes < max_bytes) {
                let limits = PeekLimits {
                    hints: max - all.len(),
                    payload_bytes: max_bytes - bytes.min(max_bytes),
                };
                let hints = match store.peek_behind(&mut reader, node, behind, limits)? {
                    Peek::Empty => break,
                    Peek::Damaged(place) if all.is_empty() => {
                        let hint = id_of(place.queue.queue, place.sequence);
                        return Err(HandoffError::DamagedHint { hint });
                    }
                    Peek::Damaged(_) => break,
                    Peek::Hints(hints) => hints,
                };
                let length: u64 = hints.iter().map(|it| it.hint.payload_bytes()).sum();
                // A peek gives one at least, however little room is left.
                if !all.is_empty() && bytes + length > max_bytes {
                    break;
                }
                bytes += length;
                behind = hints
                    .last()
                    .map(|PeekedHint { mark, .. }| (mark.queue.queue, mark.sequence));
                all.extend(hints);
            }
            Ok(all)
        });
        let hints = read.await?.into_iter();
        Ok(hints
            .map(|PeekedHint { mark, hint }| PendingHint {
                id: id_of(mark.queue.queue, mark.sequence),
                shard: hint.shard,
                enqueued: self.inner.ageing.shown(hint.enqueued_unix_ms),
                redriven_from: hint.redriven_from(store),
                write: hint.write,
                format: hint.format,
                raw: hint.payload,
            })
            .collect())
    }

    /// [`pending_hints`](HintedHandoff::pending_hints) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `pending_hints`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `pending_hints` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn pending_hints_blocking(
        &self,
        node: NodeId,
        after: Option<HintId>,
        max: usize,
    ) -> Result<Vec<PendingHint>, HandoffError> {
        block_on(self.pending_hints(node, after, max))
    }
}
