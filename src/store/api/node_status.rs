//! How delivery to nodes goes, and what was counted of them.

use crate::{
    store::{Store, format::node_status::Status, state::queue::NodeQueues},
    types::NodeId,
};

impl Store {
    /// Remembers how delivery to a node goes, over restarts too: it is durable with the next group.
    /// A node without queues has none.
    pub fn set_status(&self, node: NodeId, status: Status) {
        let mut registry = self.shared.registry.lock();
        let Some(queues) = registry.nodes.get_mut(&node) else {
            return;
        };
        if queues.status != status {
            queues.status = status;
            drop(registry);
            self.shared.inbox.mark_status(node);
        }
    }

    /// How delivery to a node went lately.
    pub fn status(&self, node: NodeId) -> Status {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node);
        queues
            .map(|queues| queues.status.clone())
            .unwrap_or_default()
    }

    /// Depth and counters of every node that has queues.
    pub fn nodes(&self) -> Vec<(NodeId, NodeQueues)> {
        let registry = self.shared.registry.lock();
        let nodes = registry.nodes.iter();
        nodes
            .map(|(node, queues)| (*node, queues.clone()))
            .collect()
    }
}
