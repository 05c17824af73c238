//! What can be seen from outside: depth, progress, health.

mod durations;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use durations::DurationCounts;
pub use durations::{DurationBucket, Durations};

use crate::{
    error::{ReplayStopped, StorageError},
    millis,
    store::LossReason,
    types::{Amount, NodeId, Pause, Sequence, ShardId, StoreId},
};

/// How the store is.
///
/// Serialized as an object whose `health` is the name of the variant, with what it holds beside
/// it: `{"health":"failed","action":"fsync the log","error":"no space left"}`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "health", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// Reads and writes work, and so does replay.
    Serving,
    /// Reads and writes work, but replay, or a part of it, does not run: hints are stored and wait.
    ReplayStopped(ReplayStopped),
    /// A storage error stopped it: nothing is accepted, sent or acknowledged. It drops its engine
    /// and opens it again by itself, with growing waits up to 10 s, until that works; then it
    /// serves again.
    Failed(StorageError),
    /// A storage error stopped a store that shares the host's database, which only the host can
    /// close: shut this handle down, drop every handle of the database, open it again by
    /// [`open_database`](crate::open_database), which copies its log to a new file if an fsync
    /// failed, and call [`open_in`](crate::HintedHandoff::open_in). Until then reads of the host's
    /// own trees may show a part of the transactions that failed, and a database that is not opened
    /// again may have lost what it shows.
    ReopenRequired(StorageError),
    /// The directory was removed, moved away or exchanged under the store, or a file of it that is
    /// open ([`DirectoryGone`](crate::DirectoryGone), the source of this): nothing is accepted,
    /// sent or acknowledged, and nothing at its path is touched. Put the directory back, shut this
    /// handle down, and open it again. A store that shares the host's database needs that opened
    /// again, too.
    ///
    /// It is looked for before a write is answered, before any change of names, and once a second.
    DirectoryGone(StorageError),
    /// The engine panicked, after which the store cannot be opened again within the process; or a
    /// commit hangs for longer than [`Config::commit_timeout`](crate::Config::commit_timeout). If
    /// that comes back after all it has failed, and the store is [`Failed`](Health::Failed) or
    /// [`ReopenRequired`](Health::ReopenRequired) from then on.
    RestartRequired(StorageError),
    /// It was shut down.
    ShutDown,
}

/// What a node's replay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeState {
    /// Nothing is waiting.
    CaughtUp,
    /// Hints wait, and nothing says yet whether the node takes them: they came a moment ago, a ping
    /// or a send is not answered yet, the writes that they belong to are still under way, or the
    /// store does not serve.
    Waiting,
    /// Hints are being sent.
    Replaying,
    /// Sends fail, and it answers: the last ping ([`Pong::Answered`](crate::Pong)), or it took or
    /// refused something within ten seconds. They are tried again after a while
    /// ([`NodeStats::stalled_by`], [`NodeStats::last_error`]).
    Failing,
    /// It does not answer: its ping failed, or nobody asked it, and sends fail. It is tried again
    /// after a while.
    Down,
    /// Hints wait, and its replay does not run ([`Health::ReplayStopped`] says why).
    Stopped,
    /// It answers, and all that waits is of a format that this host does not read
    /// ([`NodeStats::unknown_format`]): it is looked at again after a while.
    UnknownFormat,
    /// The host paused its replay: hints are accepted, and wait.
    Paused,
    /// The host said who is in the cluster, and did not name it: hints are accepted, and wait,
    /// until it is named again, removed, or purged after
    /// [`Config::purge_after`](crate::Config::purge_after).
    Parked,
    /// Its hints are not replayed: the host takes them with a [`Consumer`](crate::Consumer).
    Manual,
}

/// Whether writes of a [`PointsWriter`](crate::PointsWriter) are sent to a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gate {
    /// They are.
    #[default]
    Open,
    /// They are hinted at once: a write was not answered within
    /// [`Config::hint_after`](crate::Config::hint_after) (100 ms where that is 0) and nothing else
    /// since it began, writes to two shards failed with no answer between them, or a ping failed.
    /// It opens with whatever the node answers: to replay, to a direct write that was outstanding,
    /// or, where nothing is replayed to it, to one write each
    /// [`Config::retry_interval`](crate::Config::retry_interval). Or the host holds direct writes
    /// ([`hold_direct`](crate::HintedHandoff::hold_direct)), until it releases them.
    #[non_exhaustive]
    Closed {
        /// Since when, by the wall clock, in milliseconds since 1970.
        since_unix_ms: u64,
        /// What the node did, or that the host holds direct writes.
        why: String,
    },
}

/// Direct writes to a node since open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DirectStats {
    /// Under way, with their payload bytes.
    pub outstanding: Amount,
    /// Taken.
    pub taken: u64,
    /// Failed in a way that is worth a retry, or not answered in time.
    pub failed: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Hinted without a try: the gate was closed, or as many were outstanding as may be.
    pub not_tried: u64,
    /// Since when the host holds them ([`hold_direct`](crate::HintedHandoff::hold_direct)), if it
    /// does: by the wall clock, in milliseconds since 1970. The gate is closed meanwhile.
    pub held_since_unix_ms: Option<u64>,
}

/// One node's queue and its replay, and the direct writes to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStats {
    /// The node.
    pub node: NodeId,
    /// What its replay is doing.
    pub state: NodeState,
    /// How its replay is paused, if it is, by itself or with all others. Said of a parked node too.
    pub paused: Option<Pause>,
    /// Since when it is parked, if it is: by the wall clock, in milliseconds since 1970.
    pub parked_since_unix_ms: Option<u64>,
    /// It is removed once nothing is pending
    /// ([`drain_and_remove`](crate::HintedHandoff::drain_and_remove)), over restarts too.
    pub leaving: bool,
    /// Whether hints are made for it ([`stop_hinting`](crate::HintedHandoff::stop_hinting)).
    pub hinting: bool,
    /// Whether direct writes are sent to it.
    pub gate: Gate,
    /// Direct writes.
    pub direct: DirectStats,
    /// Durable and not yet acknowledged.
    pub pending: Amount,
    /// Its dead letters: hints that it rejected, kept until somebody sends them on or discards
    /// them.
    pub dead_letters: Amount,
    /// Hints stored for it since open.
    pub enqueued: Amount,
    /// Hints acknowledged by it since open.
    pub delivered: Amount,
    /// Age of the oldest pending hint, by the wall clock, or a little more; `None` if there is
    /// none, or for a moment after open, before it was read. Serialized as `oldest_age_ms`.
    #[serde(rename = "oldest_age_ms", with = "millis::option")]
    pub oldest_age: Option<Duration>,
    /// Hints that left undelivered since open: damage, obsolete shards, age, dropped to make room,
    /// discarded; also those that other nodes have now ([`LossReason::Rehinted`]).
    pub lost: Amount,
    /// Of the lost ones, those that were older than [`Config::max_age`](crate::Config::max_age) or
    /// than their own lifetime ([`Payload::expires_after`](crate::Payload::expires_after)).
    pub expired: Amount,
    /// Of the lost ones, those that made room for newer ones
    /// ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)).
    pub dropped: Amount,
    /// Copies of writes since open that could be neither sent nor stored. They never were hints,
    /// and are in no other count. A node that has only these has no queues, and is listed for them
    /// alone.
    pub not_stored: Amount,
    /// Hints that became dead letters since open: rejected, not decoded, or tried too often.
    pub dead_lettered: Amount,
    /// Hints whose write every owner that answered refused, so that they left since open.
    pub withdrawn: Amount,
    /// Dead letters since open that made room for newer ones, by
    /// [`Config::max_dead_letters`](crate::Config::max_dead_letters) or
    /// [`Config::max_dead_letter_bytes`](crate::Config::max_dead_letter_bytes). Most count in
    /// `dead_lettered`, too; none counts in `lost`.
    pub letters_evicted: Amount,
    /// Hints refused since open because a limit had no room for them, if the node had any before.
    pub refused: u64,
    /// Failed pings and sends since open.
    pub failures: u64,
    /// What the last failure said, with its causes, where the node has taken nothing since.
    pub last_error: Option<String>,
    /// When that was, by the wall clock, in milliseconds since 1970.
    pub last_error_unix_ms: Option<u64>,
    /// Pings and sends that failed since the node last took something. Survives a restart, as the
    /// last error does.
    pub attempts: u64,
    /// Hints that are being sent, or about to leave.
    pub in_flight: u64,
    /// Hints a second that the node took lately, over some ten seconds.
    pub delivery_rate: f64,
    /// How long it will take at that rate until nothing waits; `None` unless it is being sent to
    /// ([`NodeState::Replaying`]) and takes hints, or nothing waits. Serialized as
    /// `caught_up_in_ms`.
    #[serde(rename = "caught_up_in_ms", with = "millis::option")]
    pub caught_up_in: Option<Duration>,
    /// The shard of the oldest hint that waits, while that shard is left alone, after a failed send
    /// or for its format: nothing goes further beyond this hint than
    /// [`Config::window_hints`](crate::Config::window_hints) and
    /// [`Config::window_bytes`](crate::Config::window_bytes).
    pub stalled_by: Option<ShardId>,
    /// Hints that wait until this host, or another build of it, reads their format, as far as
    /// replay has met them. Of a manual node the consumer tells instead.
    pub unknown_format: Option<UnknownFormat>,
}

/// Hints that this host does not read, since [`Payload::decode`](crate::Payload::decode) said
/// [`UnknownFormat`](crate::PayloadError::UnknownFormat). They wait, with all behind them in their
/// shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnknownFormat {
    /// Shards whose next hint is one.
    pub shards: u64,
    /// The first of these shards.
    pub shard: ShardId,
    /// The format of its next hint.
    pub found: u16,
    /// The format that this host writes.
    pub written: u16,
}

/// The store below all queues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Its identity.
    pub store: StoreId,
    /// Commit groups written since open.
    pub groups: u64,
    /// Times the log was fsynced since open.
    pub fsyncs: u64,
    /// Hints stored since open, with their payload bytes.
    pub enqueued: Amount,
    /// Transactions and batches of the host's committed since open.
    pub transactions: u64,
    /// Runs of transactions that lost a race since open.
    pub conflicts: u64,
    /// Bytes handed to the engine since open: keys, values and removals.
    pub engine_bytes: u64,
    /// Times it failed and was opened again by itself since open.
    pub reopened: u64,
    /// Times it was compacted since open, to give disk space back.
    pub compactions: u64,
    /// Length of the engine's log in bytes, which is nearly all that the store takes on the disk; 0
    /// while it is closed.
    pub log_bytes: u64,
    /// Bytes that are free on the store's file system, for its user; `None` where that does not
    /// answer.
    pub free_disk_bytes: Option<u64>,
    /// Below so many nothing is accepted ([`Config::min_free_disk`](crate::Config::min_free_disk));
    /// 0: the check is off.
    pub reserve_bytes: u64,
    /// Times from the hand-over of hints to the commit thread until they are on disk, also where
    /// the caller was answered before that; of transactions only where it was not.
    pub append_times: Durations,
    /// Times of commit groups: planned, encoded, written, fsynced, published.
    pub group_times: Durations,
    /// What left undelivered since open, by reason, copies that were not stored among it. The loss
    /// journal ([`losses`](crate::HintedHandoff::losses)) has what left before, too.
    pub lost: BTreeMap<LossReason, Amount>,
    /// Hints refused because of the free-space reserve since open, those of transactions too.
    pub refused_for_space: u64,
    /// Hints refused since open because a limit had no room for them, those of transactions too.
    pub refused_when_full: u64,
    /// Durable and not yet acknowledged, of all nodes together.
    pub pending: Amount,
    /// Damage found at open or since; each is logged with its range.
    pub damage: Vec<Damage>,
    /// Damage records that no longer fit into `damage`.
    pub damage_not_listed: u64,
    /// Where a damaged store was moved to, whole, since this open began: what was intact in it is
    /// in use again, or, if it could not be opened at all, an empty one is.
    pub moved_aside: Option<PathBuf>,
}

/// Hints that the disk gave back damaged or not at all, or a bookkeeping record that had to be
/// rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Damage {
    /// The node that the queue was first meant for. `u64::MAX`, with queue 0: where hints of many
    /// nodes stood together.
    pub node: NodeId,
    /// The queue.
    pub queue: crate::types::QueueId,
    /// What was found.
    pub what: String,
    /// First and last sequence lost, where hints were lost.
    pub lost: Option<(Sequence, Sequence)>,
}

/// Everything at one moment.
///
/// Numbers carry their unit in their names when they are serialized: `_bytes`, `_ms` for
/// milliseconds, `_us` for microseconds, `_unix_ms` for milliseconds since 1970. What has none is a
/// count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Ordered by node.
    pub nodes: Vec<NodeStats>,
    /// How all replay is paused, if it is.
    pub paused_all: Option<Pause>,
    /// Whether hints are made at all
    /// ([`stop_hinting_all`](crate::HintedHandoff::stop_hinting_all)). A node that was stopped by
    /// itself gets none all the same ([`NodeStats::hinting`]).
    pub hinting: bool,
    /// The store below.
    pub store: StoreStats,
    /// Direct writes and hints made by every [`PointsWriter`](crate::PointsWriter) on this handoff.
    pub writes: WriteStats,
    /// Times that the host's [`ShardWriter`](crate::ShardWriter) took for a send of replay,
    /// whatever came of it.
    pub send_times: Durations,
}

/// Counts of fan-out writes since open: of copies, each once what becomes of it is settled, which
/// may be after the write was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WriteStats {
    /// Direct writes that an owner took.
    pub direct: u64,
    /// Writes that became a hint: direct ones that failed, and [`backlogged`](Self::backlogged)
    /// ones.
    pub hinted: u64,
    /// Of these, the ones that were not tried directly, since that would have overtaken older ones
    /// ([`WriteOrdering::Strict`](crate::WriteOrdering::Strict)).
    pub backlogged: u64,
    /// Hints that left, or were not made, since every owner that answered refused the write.
    pub withdrawn: u64,
    /// Direct writes that an owner rejected, or whose shard is gone.
    pub rejected: u64,
    /// Writes that no owner took and whose hint could not be stored either.
    pub unstored: u64,
}

#[cfg(test)]
mod tests;
