//! What others hold of a node.

use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;

/// A node whose hints the host takes itself.
#[derive(Debug, Default)]
pub struct ManualNode {
    /// Rung when there are new hints; heard by the next who listens.
    pub bell: Notify,
    /// Whether somebody takes them.
    pub is_taken: AtomicBool,
}

/// What others hold of a node's task.
pub struct NodeHandle {
    pub progress: Progress,
    pub stop: CancellationToken,
    pub ended: CancellationToken,
}
