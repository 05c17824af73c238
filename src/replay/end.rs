//! How a round ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::{error::HandoffError, shard_writer::WriteError};

/// How a round ended well, or at least not of itself.
pub enum End {
    /// Nothing waits.
    CaughtUp,
    /// All shards that have something to send are to be left alone.
    Failing(Failing),
}

pub struct Failing {
    /// Whether a send failed in this round, not only before.
    pub failed: bool,
    /// Whether the node took or refused anything in this round.
    pub answered: bool,
    /// What the node asked for last.
    pub wish: Option<Duration>,
    /// When the first of the shards may be sent to again; `None` if others may be at once.
    pub until: Option<Instant>,
    /// Whether as many shards failed in a row as it takes to be the node.
    pub is_storm: bool,
    /// Whether a new hint, or one that is let go, may be one that can be sent.
    pub hears: bool,
    /// Whether all that is left waits for a host that reads its format.
    pub only_unknown: bool,
}

/// Why a round ended before that.
pub enum Interrupted {
    /// The node does not answer. Try again after a while.
    Retry(WriteError),
    /// The host paused or parked the node. A bell rings when it is to go on.
    Held,
    /// Told to stop.
    Stopped,
    /// The store was opened again: acknowledgements may have been undone.
    Reopened,
    /// The store failed or was closed.
    Store(HandoffError),
}
