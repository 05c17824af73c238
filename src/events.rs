//! What happens, for whoever listens.

use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::{
    error::{ReplayStopped, StorageError},
    store::{DeadReason, Loss, StoreEvent},
    types::{Amount, HintId, NodeId, ShardId},
};

/// Something happened that an operator may want to know at once. What it led to is in
/// [`Stats`](crate::Stats), in the dead letters and in the loss journal, which miss nothing; this
/// is to be told without asking.
///
/// Serialized as an object whose `event` is the name of the variant, with what it holds beside it:
/// `{"event":"gate_opened","node":7}`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A node does not answer: its ping failed, or sends do and nothing says that it answers
    /// others. It is tried again after a while.
    #[non_exhaustive]
    NodeDown {
        /// The node.
        node: NodeId,
        /// What was said, with its causes.
        error: String,
    },
    /// Sends to some shards of a node fail, while it takes others or answers direct writes. They
    /// are tried again after a while.
    #[non_exhaustive]
    NodeFailing {
        /// The node.
        node: NodeId,
        /// What was said last, with its causes.
        error: String,
    },
    /// Writes to a node are hinted at once from now on, since it does not answer.
    #[non_exhaustive]
    GateClosed {
        /// The node.
        node: NodeId,
        /// What it did.
        why: String,
    },
    /// A node answers again, and writes are sent to it.
    #[non_exhaustive]
    GateOpened {
        /// The node.
        node: NodeId,
    },
    /// Hints are being sent to a node.
    #[non_exhaustive]
    Replaying {
        /// The node.
        node: NodeId,
    },
    /// Nothing waits for a node any more. A node that is up goes to and fro between this and
    /// [`Replaying`](Event::Replaying) with every hint that it gets.
    #[non_exhaustive]
    CaughtUp {
        /// The node.
        node: NodeId,
    },
    /// A hint became a dead letter, durably: its node rejected it, for example.
    #[non_exhaustive]
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
    /// The next hint of a shard is of a format that this host does not read. It waits, with all
    /// behind it in the shard, until a build that reads it is here. Told once for a shard, until a
    /// hint of it is read again; after a restart anew.
    #[non_exhaustive]
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
    /// Hints left undelivered, durably. An entry of the loss journal that grows is told of each
    /// time, with what it grew by.
    Lost(Loss),
    /// Copies of a write for a node could be neither sent nor stored. Told at once; what the loss
    /// journal says of it ([`LossReason::NotStored`](crate::LossReason::NotStored)) is told of as
    /// [`Lost`](Event::Lost) when it is durable.
    #[non_exhaustive]
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
    /// Replay, or a part of it, does not run. Hints are stored and wait.
    ReplayStopped(ReplayStopped),
    /// What did not run runs again: a task that failed has worked for as long as it was left alone
    /// before, or the runtime that stalled goes on.
    ReplayResumed(ReplayStopped),
    /// The service was shut down, or its last handle dropped. No other event comes, and the channel
    /// is closed behind it.
    ShutDown,
}

impl From<StoreEvent> for Event {
    fn from(event: StoreEvent) -> Self {
        match event {
            StoreEvent::Lost(loss) => Event::Lost(loss),
            StoreEvent::DeadLettered {
                node,
                hint,
                shard,
                cause,
            } => Event::Rejected {
                node,
                hint,
                shard,
                reason: cause.reason,
                error: cause.error,
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
const EVENTS_KEPT: usize = 1024;

/// The way to whoever listens, shared by all that tell of something, and closed for all at once.
///
/// The lock guards whether it is open. It is held for a send, which takes the channel's own lock
/// and blocks on nothing else.
#[derive(Debug, Clone)]
pub(crate) struct Events(Arc<RwLock<Option<broadcast::Sender<Event>>>>);

impl Events {
    pub fn new() -> Self {
        let sender = broadcast::Sender::new(EVENTS_KEPT);
        Events(Arc::new(RwLock::new(Some(sender))))
    }

    /// What is told from now on; nothing more once it is closed.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        match &*self.0.read() {
            Some(sender) => sender.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        }
    }

    pub fn tell(&self, event: Event) {
        if let Some(sender) = &*self.0.read() {
            // Nobody may listen.
            let _ = sender.send(event);
        }
    }

    /// Tells the last event. Listeners hear it, and then that the channel is closed.
    pub fn close(&self) {
        if let Some(sender) = self.0.write().take() {
            let _ = sender.send(Event::ShutDown);
        }
    }
}

#[cfg(test)]
mod tests;
