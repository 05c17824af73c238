//! Why replay does not run.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{millis, types::NodeId};

/// Why replay, or a part of it, does not run. Hints are stored all the same.
///
/// Serialized as an object whose `cause` is the name of the variant, with what it holds beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReplayStopped {
    /// The runtime that the store was opened on was dropped or shut down. No other takes its place.
    #[error(
        "the runtime that the store was opened on is shut down; shut the handle down, and open the \
         store again on a runtime that lives as long as it does"
    )]
    RuntimeGone,
    /// The runtime that the store was opened on has run nothing for a while: nobody drives it, or
    /// code that blocks has all of its threads. Replay goes on by itself once it runs again.
    #[error(
        "the runtime that the store was opened on has run nothing for {}; drive it, and keep what \
         blocks its threads off them", humantime::format_duration(*.stalled)
    )]
    #[non_exhaustive]
    RuntimeStalled {
        /// How long, at the least.
        #[serde(rename = "stalled_ms", with = "millis")]
        stalled: Duration,
    },
    /// A task panicked, or ended without being told to. It is started again by itself.
    #[error(
        "the task of {task} failed ({error}); it is started again after {}",
        humantime::format_duration(*.again_after)
    )]
    #[non_exhaustive]
    TaskFailed {
        /// Which one.
        task: ReplayTask,
        /// What it said.
        error: String,
        /// How long it is left alone. Grows up to a minute while it fails again and again.
        #[serde(rename = "again_after_ms", with = "millis")]
        again_after: Duration,
    },
}

/// A task of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReplayTask {
    /// The one that sends a node its hints.
    Node(NodeId),
    /// The one that has hints leave that are too old.
    Expiry,
    /// The one that removes nodes that are drained, parks those that are no members, and discards
    /// those that were parked for too long.
    Membership,
}

impl fmt::Display for ReplayTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayTask::Node(node) => write!(f, "node {node}"),
            ReplayTask::Expiry => f.write_str("expiry"),
            ReplayTask::Membership => f.write_str("membership"),
        }
    }
}

/// Why a store cannot be opened on a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeProblem {
    /// There is none.
    #[error("there is none here; call it within a tokio runtime, or use open_blocking")]
    None,
    /// It has no timers, and replay cannot wait without.
    #[error("it has no timers; build it with enable_time() or enable_all()")]
    NoTimers,
    /// It is shut down.
    #[error("it is shut down; open the store on one that lives as long as the handle does")]
    ShutDown,
}
