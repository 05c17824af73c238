//! The pending hints of a node that the host does something to by hand.

use std::sync::Arc;

use super::handoff::HintedHandoff;
use crate::{
    error::HandoffError,
    limits::read_unclaimed,
    payload::Payload,
    store::{PeekedHint, Place, QueueRef, Reader, Store},
    types::{NodeId, Sequence},
};

/// Those that were durable when it was made, and that nobody has claimed when they are read, piece
/// by piece in their order.
pub struct DurableHints {
    node: NodeId,
    store: Arc<Store>,
    runtime: tokio::runtime::Handle,
    /// The last hint of each queue.
    ends: Vec<(QueueRef, Sequence)>,
    reader: Reader,
    next: Option<Place>,
}

impl DurableHints {
    /// # Errors
    /// [`HandoffError::UnknownNode`], or why the store does not serve.
    pub fn of<P: Payload>(handoff: &HintedHandoff<P>, node: NodeId) -> Result<Self, HandoffError> {
        let store = &handoff.inner.store;
        store.check_serving()?;
        let ends = store.durable_ends(node);
        Ok(DurableHints {
            node,
            store: Arc::clone(store),
            runtime: handoff.inner.runtime.clone(),
            ends: ends.ok_or(HandoffError::UnknownNode { node })?,
            reader: Reader::default(),
            next: None,
        })
    }

    /// The next piece; none at the end. Others than the first of a piece may be claimed.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn next(&mut self) -> Result<Vec<PeekedHint>, HandoffError> {
        let reader = std::mem::take(&mut self.reader);
        let reading = read_unclaimed(&self.runtime, &self.store, self.node, self.next, reader);
        let mut hints;
        (self.reader, hints) = reading.await?;
        let is_durable = |hint: &&PeekedHint| {
            let place = hint.mark.place();
            let mut ends = self.ends.iter();
            ends.any(|(queue, end)| place.queue == *queue && place.sequence <= *end)
        };
        // What is behind those came later.
        hints.truncate(hints.iter().take_while(is_durable).count());
        self.next = hints.last().map(|hint| hint.mark.place().next());
        Ok(hints)
    }
}
