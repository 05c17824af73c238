//! Settings that are a choice.

use serde::{Deserialize, Serialize};

/// What becomes of a hint that one of the limits `max_hints_per_node`, `max_bytes_per_node`,
/// `max_hints`, `max_bytes` and `max_disk_bytes` has no room for.
///
/// A hint that is being sent is never taken to make room; one that a [`Consumer`](crate::Consumer)
/// has peeked at may be, and is not the next one any more when it is acknowledged. With too little
/// disk ([`Config::min_free_disk`](crate::Config::min_free_disk)) hints are refused with `Reject`
/// and `DropOldest` alike, since what is dropped frees no space on the disk; `Block` waits for that
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenFull {
    /// It is refused with [`EnqueueError::QueueFull`](crate::EnqueueError::QueueFull), and what is
    /// pending stays.
    #[default]
    Reject,
    /// As many of the oldest hints leave undelivered as make room for it, and no more: of the same
    /// node if its own limit is met, of the node with the oldest hint if a limit of the store is.
    /// They are counted ([`NodeStats::dropped`](crate::NodeStats::dropped)) and gone durably before
    /// the new hint enters. If all are being sent this is as `Reject`.
    DropOldest,
    /// The write waits, before it enters the pipeline, until hints have left; after
    /// [`Config::block_timeout`](crate::Config::block_timeout) it is refused as by `Reject`. Others
    /// pass who find room: the wait is no queue.
    Block,
}

/// When a write of a [`PointsWriter`](crate::PointsWriter) is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnswerWhen {
    /// When its consistency level is reached. Copies that the level did not wait for are in memory
    /// until their owner answers or [`Config::hint_after`](crate::Config::hint_after) is over; a
    /// crash loses those of that time, without a record.
    #[default]
    Level,
    /// When its level is reached and every copy is accounted for: taken by its owner, or durably a
    /// hint, a dead letter, or recorded as lost; with
    /// [`Durability::Buffered`](crate::Durability::Buffered) too. The process may die at any
    /// moment, and no copy of an answered write is missing without a record. Costs the wait for the
    /// slowest owner, at most `hint_after` and a commit. An error need not wait for that.
    Accounted,
}

/// What a write is whose level was reached, but one of whose copies could be neither sent nor
/// hinted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnNotStored {
    /// A success. The copy is in the loss journal
    /// ([`LossReason::NotStored`](crate::LossReason::NotStored)), in
    /// [`NodeStats`](crate::NodeStats), and told as an [`Event`](crate::Event).
    #[default]
    Report,
    /// An error, [`PointsWriteError::NotStored`](crate::PointsWriteError::NotStored), beside the
    /// record. So the answer waits until each copy is taken, hinted, or known to be neither.
    Fail,
}

/// What to do with a store that cannot be opened. Neither choice deletes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnUnopenable {
    /// Leave it where it is and return [`OpenError::Unopenable`](crate::OpenError::Unopenable).
    #[default]
    Fail,
    /// Move it aside whole, log where to, and start with an empty store.
    StartEmpty,
}

/// What a write of a [`PointsWriter`](crate::PointsWriter) does while older hints of the same
/// (node, shard) wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WriteOrdering {
    /// It is sent directly, past them: the node has the newest writes first and the missed ones
    /// later. For hosts whose writes can be applied in any order.
    #[default]
    Bypass,
    /// It is sent directly only if nothing of the (node, shard) waits or is being sent, and else
    /// becomes a hint behind what waits: no newer write overtakes an older one.
    ///
    /// **In order** are the writes of all `PointsWriter`s of a handoff to a (node, shard): as their
    /// futures were first polled, each receiver is sent the first copy of a write before that of
    /// any later one. So are hints of `write_shard` and of transactions before writes that begin
    /// after the call has returned. One direct write of a (node, shard) is under way at a time;
    /// shards do not wait for each other. After open, all shards of a node count as backlogged
    /// until what was found there is delivered, and again when a failed store has opened itself
    /// again. While the store does not serve, nothing is sent directly, and a write is an error.
    ///
    /// **Not in order** is what the host must fence, best by a number of its own in the points (an
    /// epoch or a counter a writer and shard) that the receiver keeps with its rows, refusing older
    /// ones:
    /// - A direct write that timed out, failed or panicked may have left already: it may arrive
    ///   late, after newer writes, beside its hint. A host that closes the connection on each
    ///   failure bounds that to what is on the wire.
    /// - A hint comes again if its acknowledgement was lost (a crash, a storage error, a send whose
    ///   reply was lost), and then newer direct writes may have come in between. `AppliedHints`
    ///   refuses such repetitions by the hint's id.
    /// - A direct write and a hint of `write_shard` or a transaction that are under way at the same
    ///   time.
    ///
    /// **It costs** a reply's time for each direct write to the same (node, shard), and a failure
    /// that takes long (`write_timeout`) holds up those behind it once. A transaction that enqueues
    /// hints is answered when it is durable, with [`Buffered`](crate::Durability::Buffered) too.
    Strict,
}
