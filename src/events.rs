//! What happens, for whoever listens.

use crate::{
    error::StorageError,
    store::{DeadReason, Loss, StoreEvent},
    types::{Amount, HintId, NodeId, ShardId},
};

/// Something happened that an operator may want to know at once. What it led to is in [`Stats`](crate::Stats), in the dead letters and in
/// the loss journal, which miss nothing; this is to be told without asking.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A node does not answer its ping, or has taken nothing since: it is tried again after a while.
    NodeDown {
        /// The node.
        node: NodeId,
        /// What was said, with its causes.
        error: String,
    },
    /// Writes to a node are hinted at once from now on, since it does not answer.
    GateClosed {
        /// The node.
        node: NodeId,
        /// What it did.
        why: String,
    },
    /// A node answers again, and writes are sent to it.
    GateOpened {
        /// The node.
        node: NodeId,
    },
    /// Hints are being sent to a node.
    Replaying {
        /// The node.
        node: NodeId,
    },
    /// Nothing waits for a node any more. A node that is up goes to and fro between this and [`Replaying`](Event::Replaying) with every
    /// hint that it gets.
    CaughtUp {
        /// The node.
        node: NodeId,
    },
    /// A hint became a dead letter, durably: its node rejected it, for example.
    Rejected {
        /// The node.
        node: NodeId,
        /// The hint.
        hint: HintId,
        /// Its shard.
        shard: ShardId,
        /// Why.
        reason: DeadReason,
        /// What was said, with its causes.
        error: String,
    },
    /// The next hint of a shard is of a format that this host does not read. It waits, with all behind it in the shard, until a build
    /// that reads it is here. Told once for a shard, until a hint of it is read again; after a restart anew.
    UnknownFormat {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// Its next hint.
        hint: HintId,
        /// The format of that.
        found: u16,
        /// The format that this host writes.
        written: u16,
    },
    /// Hints left undelivered, durably. An entry of the loss journal that grows is told of each time, with what it grew by.
    Lost(Loss),
    /// Copies of a write for a node could be neither sent nor stored. Told at once; what the loss journal says of it
    /// ([`LossReason::NotStored`](crate::LossReason::NotStored)) is told of as [`Lost`](Event::Lost) when it is durable.
    NotStored {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// How many, and their payload bytes.
        copies: Amount,
    },
    /// The store failed; [`health`](crate::HintedHandoff::health) says how bad it is.
    StoreFailed(StorageError),
    /// The store failed and serves again.
    Reopened,
}

impl From<StoreEvent> for Event {
    fn from(event: StoreEvent) -> Self {
        match event {
            StoreEvent::Lost(loss) => Event::Lost(loss),
            StoreEvent::Buried {
                node,
                hint,
                shard,
                burial,
            } => Event::Rejected {
                node,
                hint,
                shard,
                reason: burial.reason,
                error: burial.error,
            },
            StoreEvent::NotStored {
                node,
                shard,
                copies,
            } => Event::NotStored {
                node,
                shard,
                copies,
            },
            StoreEvent::Failed(cause) => Event::StoreFailed(cause),
            StoreEvent::Reopened => Event::Reopened,
        }
    }
}

/// Events that are kept for a listener that is slow.
pub(crate) const EVENTS_KEPT: usize = 1024;
