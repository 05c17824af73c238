//! Removing a node: its tombstone first; its space is given back afterwards, in bounded groups.

use crate::{
    error::{HandoffError, StorageError},
    store::{commit::committer::Committer, format::reasons::LossReason, state::queue::NodeQueues},
    types::{Amount, NodeId},
};

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// There is no such node, or not any more.
    Unknown,
    /// It was not what it was thought to be: it stays as it is.
    Nothing,
    /// It stays, since this is pending.
    Pending(Amount),
    /// It stays, since the host does not want it removed any more.
    CalledOff,
    /// It is gone, and this with it.
    Gone(Amount),
}

impl Removed {
    /// What went with the node, or why it stayed.
    pub fn amount_of(self, node: NodeId) -> Result<Amount, HandoffError> {
        match self {
            Removed::Unknown => Err(HandoffError::UnknownNode { node }),
            Removed::Nothing => Ok(Amount::default()),
            Removed::CalledOff => Err(HandoffError::RemovalCancelled { node }),
            Removed::Pending(pending) => Err(HandoffError::NotDrained { node, pending }),
            Removed::Gone(amount) => Ok(amount),
        }
    }
}

impl Committer {
    /// Forgets a node and what is pending for it. What was handed in before is part of that; what
    /// comes behind begins anew.
    pub fn remove_node(
        &mut self,
        node: NodeId,
        reason: LossReason,
        only_if_drained: bool,
    ) -> Result<Removed, StorageError> {
        if only_if_drained && self.knows(node) {
            let registry = self.shared.registry.lock();
            let pending = registry.nodes.get(&node).map(NodeQueues::pending);
            if let Some(pending) = pending.filter(|pending| pending.hints > 0) {
                return Ok(Removed::Pending(pending));
            }
        }
        let Some(record) = self.records.get(&node) else {
            return Ok(Removed::Unknown);
        };
        if record.removed {
            return Ok(Removed::Unknown);
        }
        if only_if_drained && !record.leaves {
            return Ok(Removed::CalledOff);
        }
        let pending = self.remove_hints(node, reason)?;
        self.shared.holds.lock().forget(node);
        Ok(Removed::Gone(pending))
    }
}
