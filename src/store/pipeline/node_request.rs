//! What the host says of its nodes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    store::{format::correction::Correction, pipeline::done::ControlDone, state::holds::Parked},
    types::{Amount, NodeId, Pause},
};

/// What changed by saying who is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retained {
    /// Nodes that are parked from now on.
    pub parked: Vec<NodeId>,
    /// Nodes that were parked, and are not any more.
    pub unparked: Vec<NodeId>,
}

/// Who is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// These.
    pub nodes: BTreeSet<NodeId>,
    /// There are no others, those too that are hinted for the first time later.
    pub are_all: bool,
}

/// A request about nodes.
pub enum Request {
    /// Ends a pause where `how` is `None`; is about all nodes where `node` is.
    Pause {
        node: Option<NodeId>,
        how: Option<Pause>,
        done: ControlDone<()>,
    },
    Retain {
        /// `None` for what was said before, of nodes that are known since.
        members: Option<Members>,
        /// In the time of this life, in milliseconds since 1970.
        now_unix_ms: u64,
        done: ControlDone<Retained>,
    },
    Rename {
        from: NodeId,
        to: NodeId,
        done: ControlDone<Amount>,
    },
    /// It is to be removed once nothing is pending, or not.
    Leave(NodeId, bool, ControlDone<()>),
    /// Whatever is pending.
    Discard(NodeId, ControlDone<Amount>),
    /// Only if it leaves, and nothing is pending.
    RemoveDrained(NodeId, ControlDone<()>),
    /// Only if it is parked since then still.
    Purge(NodeId, Parked, ControlDone<Amount>),
    /// Record these.
    Corrections(Vec<Correction>, ControlDone<()>),
}
