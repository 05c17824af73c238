//! Hints on their way out of a queue undelivered: to the dead letters, or lost.

use serde::{Deserialize, Serialize};

/// Why hints left undelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReason {
    /// The disk gave them back damaged, or not at all.
    Damaged,
    /// The node said that their shard is gone.
    Obsolete,
    /// They were older than [`Config::max_age`](crate::Config::max_age).
    Expired,
    /// A limit was met, and newer ones took their place.
    Quota,
    /// The host discarded them, or removed their node.
    Discarded,
    /// Their node was not among those of [`retain_nodes`](crate::HintedHandoff::retain_nodes) for too long.
    Purged,
}

/// Why a hint is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadReason {
    /// The node said that it will never accept it.
    Rejected,
    /// It was tried as often as [`Config::max_attempts`](crate::Config::max_attempts) says.
    Attempts,
    /// It does not turn back into points here.
    Undecodable,
}

/// How a hint came to be a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burial {
    /// Why.
    pub reason: DeadReason,
    /// What was said at the last attempt, with its causes.
    pub error: String,
    /// Sends that it was in and that failed.
    pub attempts: u32,
    /// When the first of them failed, by the wall clock, in milliseconds since 1970.
    pub first_failed_unix_ms: u64,
    /// When the last one did.
    pub last_failed_unix_ms: u64,
}
