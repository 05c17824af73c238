//! What can go wrong, one type an operation. Every text says what, which value, and what to do;
//! causes are kept.

mod enqueue;
mod import;
mod open;
mod replay;
mod storage;
mod transaction;

use std::sync::Arc;

pub use enqueue::{EnqueueError, Limit};
pub use import::ImportError;
pub use open::{DatabaseProblem, DirectoryProblem, LockKind, OpenError, UnopenableReason};
pub use replay::{ReplayStopped, ReplayTask, RuntimeProblem};
pub use storage::with_causes;
pub use storage::{DirectoryGone, StorageError};
pub use transaction::{TransactionError, TreeProblem};

use crate::{
    payload::PayloadError,
    types::{Amount, HintId, NodeId, QueueId, Sequence, StoreId},
};

/// A setting out of its range, or one that cannot change now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config: {field} = {value} is not accepted: {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The name of the setting.
    pub field: &'static str,
    /// The value found.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// Whether a failed write may still come into effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedOutcome {
    /// The hint is not stored and will not be delivered.
    Refused,
    /// The hint may or may not be stored; it may still be delivered.
    Unknown,
}

/// Why an operation on the running store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The service was shut down.
    #[error("the hinted handoff is shut down; open it again")]
    ShutDown,
    /// A setting is out of range, or cannot change while it runs.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// It was shut down, and the store closed cleanly, but fan-out writes were under way that it
    /// could not wait for: a `ShardWriter` that blocks its thread, or a disk that is too slow. Some
    /// of their copies may be missing without a record.
    #[error(
        "shut down with {writes} writes under way, whose copies may be missing without a record"
    )]
    #[non_exhaustive]
    WritesUnderWay {
        /// How many.
        writes: usize,
    },
    /// The call needs the runtime that the store was opened on, and that does not run. What it was
    /// asked for may yet be done if it only stalled.
    #[error("the call needs a runtime that does not run")]
    ReplayStopped(#[from] ReplayStopped),
    /// The store failed, now or earlier.
    #[error(
        "the store has failed; it is opened again by itself, or health() says what must be done"
    )]
    Storage(#[from] StorageError),
    /// The store failed since the last sync and was opened again.
    #[error(
        "the store failed since the last sync and was opened again: what was answered as buffered before that may be lost, write it \
         again; what was delivered may come again"
    )]
    FailedMeanwhile,
    /// The node's hints are replayed, so nobody can take them by hand.
    #[error("node {node} is replayed; name it in Config::manual_nodes to take its hints by hand")]
    #[non_exhaustive]
    Replayed {
        /// The node asked for.
        node: NodeId,
    },
    /// Somebody takes the node's hints already.
    #[error("node {node} has a consumer already; drop that first")]
    #[non_exhaustive]
    Consumed {
        /// The node asked for.
        node: NodeId,
    },
    /// The next hint cannot be turned back into points here. It is kept.
    #[error(
        "hint {hint} does not decode; it is kept: run a version of the host that reads it, or make it a dead letter with Consumer::make_dead_letter"
    )]
    #[non_exhaustive]
    Undecodable {
        /// The hint.
        hint: HintId,
        /// What the decoder said.
        source: Arc<PayloadError>,
    },
    /// Only the next hint of a node can be made a dead letter by hand, and this is not it, or no
    /// longer. Nothing was changed.
    #[error("hint {hint} is not the next one of node {node}; peek again")]
    #[non_exhaustive]
    NotNext {
        /// The node asked for.
        node: NodeId,
        /// The hint named.
        hint: HintId,
    },
    /// A hint or dead letter that is there already did not become one of another queue, for the
    /// reason that a new hint would not.
    #[error("the hint or dead letter is not queued, and stays where it is")]
    Refused(#[source] EnqueueError),
    /// The id was given out by another store, or by this one before its identity was reset.
    #[error("hint {hint} is not one of store {store}; ask the store that gave out its id")]
    #[non_exhaustive]
    HintOfAnotherStore {
        /// The id asked for.
        hint: HintId,
        /// This store.
        store: StoreId,
    },
    /// There is no such dead letter, or no longer: it was sent on or discarded.
    #[error(
        "hint {hint} is no dead letter of node {node}; it may have been sent on or discarded meanwhile"
    )]
    #[non_exhaustive]
    NoDeadLetter {
        /// The node asked for.
        node: NodeId,
        /// The id asked for.
        hint: HintId,
    },
    /// The disk gave a dead letter back damaged.
    #[error(
        "the payload of dead letter {hint} does not read; the disk damaged it: discard it, and repair what it was for"
    )]
    #[non_exhaustive]
    DamagedLetter {
        /// The dead letter.
        hint: HintId,
    },
    /// A hint that waits is damaged on the disk. When its turn comes it is skipped, and the loss
    /// journal tells of it.
    #[error(
        "hint {hint} does not read; the disk damaged it: it is skipped when its turn comes, ask for those behind it"
    )]
    #[non_exhaustive]
    DamagedHint {
        /// The hint.
        hint: HintId,
    },
    /// What was picked out of the hints of a node left in so many places between others that its
    /// queue has no room to note more. What left has left, and the rest stays.
    #[error(
        "so many hints of node {node} left between others that its queue cannot note more such \
         places; have those that come first leave, too, or wait until they are delivered"
    )]
    #[non_exhaustive]
    TooScattered {
        /// The node.
        node: NodeId,
    },
    /// A barrier was made by another store, or by this one before its identity was reset.
    #[error(
        "the barrier is one of store {barrier}, this is {store}; wait for it at the store that made it"
    )]
    #[non_exhaustive]
    BarrierOfAnotherStore {
        /// The store that made it.
        barrier: StoreId,
        /// This store.
        store: StoreId,
    },
    /// A barrier was made by another version of this library.
    #[error(
        "the barrier has version {found}, which this library does not know; wait for it with the one that made it"
    )]
    #[non_exhaustive]
    BarrierVersion {
        /// Its version.
        found: u8,
    },
    /// A barrier is not the one that was made: something of it was changed on its way or where it
    /// was kept.
    #[error(
        "the barrier is damaged: its checksum is {found:08x}, its fields give {computed:08x}; make another one, and wait for that"
    )]
    #[non_exhaustive]
    BarrierDamaged {
        /// Its checksum.
        found: u32,
        /// What its fields give.
        computed: u32,
    },
    /// A barrier was to be made for no node at all.
    #[error(
        "a barrier was asked for without a node, and would say of none that all is delivered; name the nodes, those of stats() for all"
    )]
    NoNodes,
    /// A barrier names what this store has not given out yet: the store was restored from a backup
    /// that is older.
    #[error(
        "the barrier names hint {sequence} of queue {queue}, which this store has not given out: it was restored from an older backup; \
         write again what the barrier stood for"
    )]
    #[non_exhaustive]
    BarrierAhead {
        /// The queue.
        queue: QueueId,
        /// The hint.
        sequence: Sequence,
    },
    /// The node was never hinted, or removed or renamed since.
    #[error("node {node} has no queue; nothing was ever hinted for it")]
    #[non_exhaustive]
    UnknownNode {
        /// The node asked for.
        node: NodeId,
    },
    /// A node was to be merged into itself.
    #[error("node {node} was to be renamed to itself; name another one")]
    #[non_exhaustive]
    SameNode {
        /// The node named twice.
        node: NodeId,
    },
    /// The node is to be removed once nothing is pending, and something still is. It will be
    /// removed when that is delivered, over restarts too, unless that is called off.
    #[error(
        "node {node} is not drained yet: {} hints ({} bytes) are pending; it is removed once they are delivered, or discard them with \
         remove_node, or call it off with cancel_removal", pending.hints,
        pending.bytes
    )]
    #[non_exhaustive]
    NotDrained {
        /// The node asked for.
        node: NodeId,
        /// What is pending.
        pending: Amount,
    },
    /// The node was to be removed once nothing is pending, and that was called off.
    #[error("node {node} stays: its removal was called off by cancel_removal")]
    #[non_exhaustive]
    RemovalCancelled {
        /// The node asked for.
        node: NodeId,
    },
    /// More nodes were said to be all of the cluster than can be kept as such.
    #[error(
        "{members} nodes are too many to be kept as a list of all, at most {max}; use retain_nodes, and say it again when one comes"
    )]
    #[non_exhaustive]
    TooManyMembers {
        /// How many were named.
        members: usize,
        /// How many there may be.
        max: usize,
    },
    /// Nothing is replayed to the node, so there is nothing to pause.
    #[error(
        "node {node} is in Config::manual_nodes: nothing is replayed to it, so there is nothing to pause"
    )]
    #[non_exhaustive]
    TakenByHand {
        /// The node asked for.
        node: NodeId,
    },
    /// So many queues cannot be one node's: it was renamed and hinted again and again with nothing
    /// delivered.
    #[error(
        "node {node} would have {queues} queues, {max} at most; let some of its hints be delivered first"
    )]
    #[non_exhaustive]
    TooManyQueues {
        /// The node that they would be put together for.
        node: NodeId,
        /// How many they are, with those that wait to be trimmed.
        queues: usize,
        /// How many may be.
        max: usize,
    },
}
