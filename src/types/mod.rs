//! The names of things: who a hint is for, where it stands, and how it is told apart.

mod text;

use serde::{Deserialize, Serialize};

pub use text::ParseError;

/// The host's name for a destination (a replica, a peer, a region).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// The host's name for an ordered stream of writes within a node.
///
/// Order is kept per (node, shard).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u64);

/// A numbered run of hints. Given out by the store, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueId(pub u64);

/// A position in a queue: starts at 1, has no gaps, is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

/// 128 random bits made with the store, so that receivers can tell two stores apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

/// What a receiver dedupes by: it never names two different hints.
///
/// Within one (store, queue, shard) sequences only grow, so a receiver that keeps the highest
/// applied sequence of each together with its rows applies every hint once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HintId {
    /// The store that made the hint.
    pub store: StoreId,
    /// The queue it stands in.
    pub queue: QueueId,
    /// Its position there.
    pub sequence: Sequence,
}

/// One write of a [`PointsWriter`](crate::PointsWriter), the same in all its copies: in the direct
/// send to each owner, and in the hint of one that missed it. So a receiver that remembers the ids
/// of what it applied refuses the second of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId {
    /// Drawn at random each time that a handoff is opened; never 0.
    pub boot: u64,
    /// Counts the writes since then, from 1 on.
    pub counter: u64,
}

/// How many owners must have a write before it counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ConsistencyLevel {
    /// One owner, or a durable hint for one.
    Any,
    /// One owner.
    One,
    /// More than half of the owners.
    Quorum,
    /// Every owner.
    All,
}

impl ConsistencyLevel {
    /// Owners that must take a write, of `owners`.
    pub fn required(self, owners: usize) -> usize {
        match self {
            ConsistencyLevel::Any | ConsistencyLevel::One => 1,
            ConsistencyLevel::Quorum => owners / 2 + 1,
            ConsistencyLevel::All => owners,
        }
    }
}

/// What an answer to a write means.
///
/// The pipeline flushes and fsyncs every commit group in both modes; they differ only in when the
/// caller is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// The answer comes after fsync: the hint survives a crash of the process, of the operating
    /// system and, on Linux, a power cut on a device that honours flush.
    #[default]
    Sync,
    /// The answer comes once the hint is in the commit pipeline. A crash, or a failure of the
    /// storage, may lose the last few milliseconds;
    /// [`HintedHandoff::sync`](crate::HintedHandoff::sync) waits for all so far, or says that some
    /// may be lost.
    Buffered,
}

/// A number of hints and the payload bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amount {
    /// Hints.
    pub hints: u64,
    /// Payload bytes of these hints, before compression.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn plus(self, other: Amount) -> Amount {
        Amount {
            hints: self.hints.saturating_add(other.hints),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What is left without `other`, nothing rather than less than nothing.
    pub(crate) fn less(self, other: Amount) -> Amount {
        Amount {
            hints: self.hints.saturating_sub(other.hints),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// How long a pause of replay lasts, unless it is ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pause {
    /// Until the store is opened the next time. A store that failed and reopened itself was not
    /// opened in this sense.
    UntilRestart,
    /// Until it is resumed: it is on disk, and survives restarts and crashes.
    Lasting,
}
