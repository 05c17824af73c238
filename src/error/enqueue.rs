//! Why a hint was not stored.

use std::{fmt, time::Duration};

use crate::{
    error::{FailedOutcome, HandoffError, StorageError},
    payload::EncodeError,
    types::NodeId,
};

/// Why a hint was not stored, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The points encode to no bytes at all.
    #[error("refused: the points encode to no bytes; there is nothing to hint")]
    EmptyPoints,
    /// [`Payload::encode`](crate::Payload::encode) failed, or panicked.
    #[error("refused: the points do not encode; correct them or their Payload")]
    Unencodable(#[from] EncodeError),
    /// The hint is over the configured maximum.
    #[error(
        "refused: a hint of {bytes} bytes is over max_entry_bytes = {max}; split the write or raise the limit"
    )]
    #[non_exhaustive]
    EntryTooLarge {
        /// Encoded size of the points.
        bytes: u64,
        /// The configured maximum.
        max: u64,
    },
    /// The host has no hints made for the node
    /// ([`stop_hinting`](crate::HintedHandoff::stop_hinting)).
    #[error("refused: no hints are made for node {node}, as the host said; start hinting again")]
    #[non_exhaustive]
    HintingStopped {
        /// The node.
        node: NodeId,
    },
    /// The service was shut down.
    #[error("refused: the hinted handoff is shut down; open it again")]
    ShutDown,
    /// The disk is nearly full. Replay goes on and makes room.
    #[error(
        "refused: {available_bytes} bytes are free on the store's disk, the reserve is {reserve_bytes}; free space or wait for replay"
    )]
    #[non_exhaustive]
    DiskReserve {
        /// Free bytes on the store's file system.
        available_bytes: u64,
        /// The configured reserve.
        reserve_bytes: u64,
    },
    /// A limit has no room for it: see [`WhenFull`](crate::WhenFull). What was pending stays.
    #[error(
        "refused: {limit} = {max} has no room for {wanted} more, {pending} are pending{}{}; let the node be reached, raise the limit, or \
         choose when_full", oldest_text(*.oldest_age), waited_text(*.waited)
    )]
    #[non_exhaustive]
    QueueFull {
        /// The node that it was for.
        node: NodeId,
        /// Which limit.
        limit: Limit,
        /// What it is set to.
        max: u64,
        /// Hints or bytes, as the limit counts, that are pending or on their way there.
        pending: u64,
        /// What it, or all hints of its transaction together, would have added.
        wanted: u64,
        /// Age of the oldest hint among those that the limit counts, where it is known.
        oldest_age: Option<Duration>,
        /// How long it waited for room, with [`WhenFull::Block`](crate::WhenFull::Block).
        waited: Option<Duration>,
    },
    /// It, or all hints of its transaction together, would not even fit if nothing were pending.
    #[error(
        "refused: {wanted} hints or bytes at once are over {limit} = {max}; split the write or raise the limit"
    )]
    #[non_exhaustive]
    OverLimit {
        /// The node that it was for.
        node: NodeId,
        /// Which limit.
        limit: Limit,
        /// What it is set to.
        max: u64,
        /// What was to be added.
        wanted: u64,
    },
    /// The store failed earlier and is not reopened yet; [`health`](crate::HintedHandoff::health)
    /// says how bad it is.
    #[error(
        "refused: the store has failed; it is opened again by itself, or health() says what must be done"
    )]
    StoreFailed(#[source] StorageError),
    /// The store failed while this hint was being committed.
    #[error(
        "outcome unknown: the store failed while committing the hint; it may still be delivered"
    )]
    Unknown(#[source] StorageError),
}

/// A bound on what is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Limit {
    /// [`Config::max_hints_per_node`](crate::Config::max_hints_per_node).
    NodeHints,
    /// [`Config::max_bytes_per_node`](crate::Config::max_bytes_per_node).
    NodeBytes,
    /// [`Config::max_hints`](crate::Config::max_hints).
    StoreHints,
    /// [`Config::max_bytes`](crate::Config::max_bytes).
    StoreBytes,
    /// [`Config::max_disk_bytes`](crate::Config::max_disk_bytes). What it counts is the payload
    /// that is pending, and its maximum is what of that was found to fit.
    Disk,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::NodeHints => "max_hints_per_node",
            Limit::NodeBytes => "max_bytes_per_node",
            Limit::StoreHints => "max_hints",
            Limit::StoreBytes => "max_bytes",
            Limit::Disk => "max_disk_bytes",
        })
    }
}

/// In whole seconds: nobody acts on less.
fn oldest_text(age: Option<Duration>) -> String {
    let whole = |age: Duration| humantime::format_duration(Duration::from_secs(age.as_secs()));
    age.map_or(String::new(), |age| {
        format!(", the oldest since {}", whole(age))
    })
}

fn waited_text(waited: Option<Duration>) -> String {
    waited.map_or(String::new(), |waited| {
        format!(", after waiting for {}", humantime::format_duration(waited))
    })
}

impl From<HandoffError> for EnqueueError {
    /// Why a store that does not serve refuses a hint.
    fn from(error: HandoffError) -> Self {
        match error {
            HandoffError::Storage(cause) => EnqueueError::StoreFailed(cause),
            _ => EnqueueError::ShutDown,
        }
    }
}

impl From<EnqueueError> for HandoffError {
    /// Why what was handed in like a hint is not done.
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::ShutDown => HandoffError::ShutDown,
            EnqueueError::StoreFailed(cause) | EnqueueError::Unknown(cause) => {
                HandoffError::Storage(cause)
            }
            refused => HandoffError::Refused(refused),
        }
    }
}

impl EnqueueError {
    /// Whether the hint may be stored all the same.
    pub fn outcome(&self) -> FailedOutcome {
        match self {
            EnqueueError::Unknown(_) => FailedOutcome::Unknown,
            _ => FailedOutcome::Refused,
        }
    }
}
