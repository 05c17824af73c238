//! The pending hints of a node that the host does something to by hand.

use std::sync::Arc;

use super::handoff::HintedHandoff;
use crate::{
    error::HandoffError,
    limits::read_unclaimed,
    payload::Payload,
    store::{PeekedHint, Place, QueueRef, Reader, Store},
    types::{HintId, NodeId, Sequence},
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
    /// [`HandoffError::DamagedHint`] for one behind others that does not read: it is given up once
    /// it comes first. Or why they cannot be read.
    pub async fn next(&mut self) -> Result<Vec<PeekedHint>, HandoffError> {
        let mut stood = None;
        loop {
            let head = self.store.head(self.node, self.next).map(|head| head.place);
            let Some(head) = head.filter(|place| self.is_durable(*place)) else {
                return Ok(Vec::new());
            };
            let reader = std::mem::take(&mut self.reader);
            let reading = read_unclaimed(&self.runtime, &self.store, self.node, self.next, reader);
            let mut hints;
            (self.reader, hints) = reading.await?;
            if !hints.is_empty() {
                // What is behind those came later.
                let durable = hints
                    .iter()
                    .take_while(|it| self.is_durable(it.mark.place()));
                hints.truncate(durable.count());
                self.next = hints.last().map(|hint| hint.mark.place().next());
                return Ok(hints);
            }
            // It may have left meanwhile, or been claimed; what stays and gives nothing is damaged.
            if stood.replace(head) == Some(head) {
                let hint = HintId {
                    store: self.store.id(),
                    queue: head.queue.queue,
                    sequence: head.sequence,
                };
                return Err(HandoffError::DamagedHint { hint });
            }
        }
    }

    fn is_durable(&self, place: Place) -> bool {
        let mut ends = self.ends.iter();
        ends.any(|(queue, end)| place.queue == *queue && place.sequence <= *end)
    }
}
