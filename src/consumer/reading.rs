//! Reading the next hints of a node that is taken by hand.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Consumer;
use crate::{
    error::{HandoffError, ReplayStopped},
    payload::{Payload, decode},
    peeked::PeekedPoints,
    replay::{lose, scrub},
    store::{LossReason, Mark, Peek, PeekLimits, PeekedHint},
    types::HintId,
};

impl<P: Payload> Consumer<P> {
    /// The next hint as it is stored, past what is damaged or too old.
    pub(super) async fn next(&mut self) -> Result<Option<PeekedHint>, HandoffError> {
        Ok(self.peek_stored(1).await?.into_iter().next())
    }

    pub(super) fn id(&self, mark: Mark) -> HintId {
        HintId {
            store: self.handoff.store().id(),
            queue: mark.queue.queue,
            sequence: mark.sequence,
        }
    }

    /// The next hints as they are stored, past what is damaged or too old.
    pub(super) async fn peek_stored(
        &mut self,
        max: usize,
    ) -> Result<Vec<PeekedHint>, HandoffError> {
        loop {
            match self.read(max).await? {
                Peek::Empty => return Ok(Vec::new()),
                Peek::Hints(hints) => {
                    if let Some(hints) = self.in_time(hints).await? {
                        return Ok(hints);
                    }
                }
                Peek::Damaged(place) => {
                    self.reader.forget();
                    scrub(self.handoff.store(), self.node, place.queue).await?;
                }
            }
        }
    }

    /// On a blocking thread, since it reads from the disk.
    async fn read(&mut self, max: usize) -> Result<Peek, HandoffError> {
        let (store, node) = (self.handoff.store().clone(), self.node);
        let mut reader = std::mem::take(&mut self.reader);
        let limits = PeekLimits {
            hints: max,
            payload_bytes: self.handoff.config().batch_bytes,
        };
        let reading = self.handoff.runtime().spawn_blocking(move || {
            let peeked = store.peek(&mut reader, node, limits);
            (reader, peeked)
        });
        // A panic in a read is caught below; what is left is a runtime that shuts down.
        let (reader, peeked) = reading.await.map_err(|_| ReplayStopped::RuntimeGone)?;
        self.reader = reader;
        peeked
    }

    /// Those in front of the first that is too old; `None` if that is the first one, once it has
    /// left.
    async fn in_time(
        &self,
        mut hints: Vec<PeekedHint>,
    ) -> Result<Option<Vec<PeekedHint>>, HandoffError> {
        let (store, node) = (self.handoff.store(), self.node);
        let is_over = |hint: &PeekedHint| self.handoff.ageing().is_hint_over(store, hint);
        let over = hints.iter().take_while(|hint| is_over(hint)).count();
        if over == 0 {
            let first = hints.iter().position(is_over);
            hints.truncate(first.unwrap_or(hints.len()));
            return Ok(Some(hints));
        }
        hints.truncate(over);
        store.claim(node, &mut hints);
        if !hints.is_empty() {
            lose(store, node, hints, LossReason::Expired).await?;
            return Ok(None);
        }
        // Somebody else has them leave: behind this they are gone.
        let (tell, told) = oneshot::channel();
        store.sync(move |result| drop(tell.send(result)));
        told.await.unwrap_or(Err(HandoffError::ShutDown))?;
        Ok(None)
    }

    pub(super) fn decode(
        &self,
        hints: Vec<PeekedHint>,
    ) -> Result<Vec<PeekedPoints<P>>, HandoffError> {
        let mut decoded = Vec::with_capacity(hints.len());
        for PeekedHint { mark, hint } in hints {
            let id = self.id(mark);
            let points = match decode(hint.format, &hint.payload) {
                Ok(points) => points,
                Err(source) if decoded.is_empty() => {
                    let source = Arc::new(source);
                    return Err(HandoffError::Undecodable { hint: id, source });
                }
                // It is an error once it comes first.
                Err(_) => break,
            };
            decoded.push(PeekedPoints {
                id,
                shard: hint.shard,
                enqueued: self.handoff.ageing().shown(hint.enqueued_unix_ms),
                redriven_from: hint.redriven_from(id.store),
                write: hint.write,
                points,
                node: self.node,
                mark,
            });
        }
        Ok(decoded)
    }
}
