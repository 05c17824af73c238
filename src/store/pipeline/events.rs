//! What the store tells the layers above without being asked.

use std::collections::BTreeSet;

use crate::{
    error::StorageError,
    store::format::{loss::Loss, reasons::DeadCause},
    types::{Amount, HintId, NodeId, ShardId},
};

/// Called, on any thread, with the nodes that have new durable hints, or in which one is held no
/// longer.
pub type OnDurable = Box<dyn Fn(&BTreeSet<NodeId>) + Send + Sync>;

/// Called, on any thread, when hints may have left a queue or dead letters changed, and when the
/// store stops or begins to serve.
pub type OnLeave = Box<dyn Fn() + Send + Sync>;

/// Something happened to hints, or to the store.
#[derive(Debug)]
pub enum StoreEvent {
    /// Hints left undelivered, durably.
    Lost(Loss),
    /// A hint became a dead letter, durably.
    DeadLettered {
        node: NodeId,
        hint: HintId,
        shard: ShardId,
        cause: DeadCause,
    },
    /// Copies of a write were neither sent nor stored. It is not recorded yet.
    NotStored {
        node: NodeId,
        shard: ShardId,
        copies: Amount,
    },
    /// It serves no more.
    Failed(StorageError),
    /// It serves again.
    Reopened,
}

/// Called by the watchdog whenever it looks, once a second or more often; it must not block.
pub type OnLook = Box<dyn Fn() + Send + Sync>;

/// Called, on any thread, when something happens; it must not block.
pub type OnEvent = Box<dyn Fn(StoreEvent) + Send + Sync>;
