//! What became of a write.

use hinted_handoff::{HintId, NodeId, ShardId};

/// What became of a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub node: NodeId,
    pub shard: ShardId,
    pub id: Option<HintId>,
    pub answered: bool,
    pub refused: bool,
    /// It was handed in as one that leaves as a dead letter at once, so it must never come.
    pub dead_lettered: bool,
    /// It was found as one.
    pub dead: bool,
    /// In how many lives it was delivered.
    pub deliveries: u32,
    /// Its node was removed, or was about to be, after it was tried.
    pub may_vanish: bool,
    /// Its node was durably removed: it must not come any more.
    pub must_not_come: bool,
    /// Its delivery is durably acknowledged: it must not come again.
    pub settled: bool,
}
