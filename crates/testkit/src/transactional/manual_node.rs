//! The node whose hints are taken by hand.

use hinted_handoff::NodeId;

/// Nodes 1 to 3 are replayed; this one's hints are taken by hand.
pub const MANUAL_NODE: NodeId = NodeId(4);
