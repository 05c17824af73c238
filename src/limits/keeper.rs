//! What the housekeeping works with.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    ageing::Ageing,
    error::HandoffError,
    replay::lose,
    store::{LossReason, PeekedHint, Store},
    types::NodeId,
};

pub struct Keeper {
    pub store: Arc<Store>,
    pub ageing: Arc<Ageing>,
    pub runtime: Handle,
}

impl Keeper {
    /// Has those leave that are nobody's; the others stay. Returns how many do.
    pub async fn expire(
        &self,
        node: NodeId,
        mut hints: Vec<PeekedHint>,
    ) -> Result<usize, HandoffError> {
        let all = hints.len();
        self.store.claim(node, &mut hints);
        let stay = all - hints.len();
        let places = (hints.first(), hints.last());
        let (Some(first), Some(last)) = places else {
            return Ok(stay);
        };
        let (queue, first, last) = (first.mark.queue, first.mark.sequence, last.mark.sequence);
        let left = lose(&self.store, node, hints, LossReason::Expired).await?;
        tracing::warn!(
            node = node.0,
            queue = queue.queue.0,
            first_lost = first.0,
            last_lost = last.0,
            hints = left.hints,
            bytes = left.bytes,
            "hints that were too old are gone undelivered"
        );
        Ok(stay)
    }
}
