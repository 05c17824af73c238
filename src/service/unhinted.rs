//! Nodes that get no hints.

use std::collections::BTreeSet;

use crate::types::NodeId;

/// Which nodes get no hints.
#[derive(Debug, Default)]
pub struct Hinting {
    pub none_at_all: bool,
    pub not_for: BTreeSet<NodeId>,
}

impl Hinting {
    pub fn is_stopped(&self, node: NodeId) -> bool {
        self.none_at_all || self.not_for.contains(&node)
    }
}
