//! Copies of writes that could be neither sent nor stored: telling the store of them.

use std::collections::BTreeMap;

use crate::{
    error::HandoffError,
    store::{
        Store, StoreEvent,
        failpoints::{Safeguard, is_off},
    },
    types::{Amount, NodeId, ShardId},
};

impl Store {
    /// Copies of a write for a node were neither sent nor stored. That is told of
    /// (`StoreEvent::NotStored`) and counted at once, also for a node that the store does not know,
    /// and recorded durably in the loss journal as soon as the store can; for that it may use the
    /// disk reserve. `done` is told when that is durable: a store that fails and reopens itself may
    /// take long, and count them twice, but forgets none.
    ///
    /// It is told an error if the store ends before that, by a shutdown or for good; the log says
    /// then what is not recorded. And if tens of thousands wait already: these copies are recorded
    /// all the same.
    pub fn note_not_stored(
        &self,
        node: NodeId,
        shard: ShardId,
        copies: Amount,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        if is_off(Safeguard::NotStoredRecords) {
            return done(Ok(()));
        }
        let shared = &self.shared;
        {
            let mut registry = shared.registry.lock();
            let count = registry.not_stored.entry(node).or_default();
            *count = count.plus(copies);
        }
        shared.tell(StoreEvent::NotStored {
            node,
            shard,
            copies,
        });
        shared.not_stored.note(node, shard, copies, Box::new(done));
        shared.inbox.nudge();
    }

    /// Copies that were neither sent nor stored since open, by node: nodes that have no queues,
    /// too.
    pub fn not_stored(&self) -> BTreeMap<NodeId, Amount> {
        self.shared.registry.lock().not_stored.clone()
    }
}
