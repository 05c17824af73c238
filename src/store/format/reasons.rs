//! Why hints leave undelivered.

use serde::{Deserialize, Serialize};

use crate::store::format::cursor::Leave;

/// Why hints left undelivered.
// The order of its variants is part of the format on disk, and so with the types below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReason {
    /// The disk gave them back damaged, or not at all.
    Damaged,
    /// The node said that their shard is gone.
    Obsolete,
    /// They were older than [`Config::max_age`](crate::Config::max_age), or their own lifetime was
    /// over ([`Payload::expires_after`](crate::Payload::expires_after)).
    Expired,
    /// A limit was met, and newer ones took their place.
    Quota,
    /// The host discarded them, or removed their node.
    Discarded,
    /// They were dead letters, and there were too many.
    DeadLetterQuota,
    /// Their node was not among those of [`retain_nodes`](crate::HintedHandoff::retain_nodes) for
    /// too long.
    Purged,
    /// They never were hints: copies of a write that could be neither sent nor stored.
    NotStored,
    /// The host gave them to other nodes ([`rehint`](crate::HintedHandoff::rehint)): each is a hint
    /// of those since the same step, so nothing is lost but to this node.
    Rehinted,
}

impl LossReason {
    /// All of them, in their order. More may come.
    pub const ALL: &'static [LossReason] = &[
        LossReason::Damaged,
        LossReason::Obsolete,
        LossReason::Expired,
        LossReason::Quota,
        LossReason::Discarded,
        LossReason::DeadLetterQuota,
        LossReason::Purged,
        LossReason::NotStored,
        LossReason::Rehinted,
    ];
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
pub struct DeadCause {
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

/// What becomes of hints that leave undelivered.
#[derive(Debug, Clone)]
pub enum Fate {
    /// They are lost, which the loss journal tells.
    Lost(LossReason),
    /// They are dead letters.
    Dead(DeadCause),
}

impl Fate {
    pub(crate) fn leave(&self) -> Leave {
        match self {
            Fate::Lost(_) => Leave::Lost,
            Fate::Dead(_) => Leave::Dead,
        }
    }
}
