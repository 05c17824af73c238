//! Settings, their defaults and their rules.

mod choices;
mod defaults;
mod live;
mod rules;
mod sizes;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::types::{Durability, NodeId};
pub use choices::{AnswerWhen, OnNotStored, OnUnopenable, WhenFull, WriteOrdering};

const MIB: u64 = 1024 * 1024;

/// The largest `max_entry_bytes` that can be set.
pub const MAX_ENTRY_BYTES_CEILING: u64 = 64 * MIB;

/// What left out of order is listed in a queue's cursor, which must stay below 64 KiB: every second
/// hint of this takes 40.
const WINDOW_HINTS_CEILING: usize = 16_384;

/// Settings of a hinted handoff. Durations are written as humantime does: `retry_interval = "1s"`;
/// sizes with a unit, `max_disk_bytes = "1GiB"`, or as plain numbers of bytes.
///
/// Unknown keys are an error, so that a typing mistake does not become a default.
///
/// Fields may come with any release: build it by [`Config::new`] and set fields, or by struct
/// update, `Config { max_age, ..Config::new(dir) }`.
///
/// ```
/// use std::time::Duration;
///
/// let config: hinted_handoff::Config = toml::from_str(r#"
///     dir = "data/hints"
///     retry_interval = "500ms"
///     retry_rate_limit = "1MiB"
/// "#)?;
/// assert_eq!(config.retry_interval, Duration::from_millis(500));
/// assert_eq!(config.retry_rate_limit, 1024 * 1024);
/// assert_eq!(config.retry_max_interval, Duration::from_secs(60));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory of the store, made with mode 0700 if it is not there; for
    /// [`open_in`](crate::HintedHandoff::open_in) that of the host's database. Required.
    pub dir: PathBuf,

    /// What an answer to a write means. Default: `"sync"`.
    #[serde(default)]
    pub durability: Durability,

    /// First wait after a ping that failed, for the node, or after a send that failed, for its
    /// shard; doubles up to `retry_max_interval`. The wait itself is drawn between half and the
    /// whole of this. A node whose shards all fail waits as one. Default 1 s, minimum 1 ms, maximum
    /// 1 day.
    #[serde(default = "defaults::retry_interval", with = "humantime_serde")]
    pub retry_interval: Duration,

    /// Longest wait between two attempts. Default 60 s, minimum `retry_interval`, maximum 1 day.
    #[serde(default = "defaults::retry_max_interval", with = "humantime_serde")]
    pub retry_max_interval: Duration,

    /// Payload bytes a second that replay sends to one node; bursts of `batch_bytes` are allowed. A
    /// hint that is larger goes when a burst may, and what comes behind it waits for the rest. 0 is
    /// no limit. Default 0, maximum 4,294,967,295.
    #[serde(default, with = "sizes::retry_rate_limit")]
    pub retry_rate_limit: u64,

    /// The same over all nodes together. Default 0, maximum 4,294,967,295.
    #[serde(default, with = "sizes::retry_rate_limit_total")]
    pub retry_rate_limit_total: u64,

    /// The most payload bytes that one send of replay carries, all of one shard, unless a single
    /// hint is larger. Default 512,000, minimum 1, maximum 64 MiB.
    #[serde(default = "defaults::batch_bytes", with = "sizes::batch_bytes")]
    pub batch_bytes: u64,

    /// Largest hint, in bytes of the encoded points. Default 16 MiB, minimum 1, maximum 64 MiB.
    #[serde(default = "defaults::max_entry_bytes", with = "sizes::max_entry_bytes")]
    pub max_entry_bytes: u64,

    /// How long one direct write to a node may take. Default 10 s, minimum 1 ms, maximum 1 day.
    #[serde(default = "defaults::write_timeout", with = "humantime_serde")]
    pub write_timeout: Duration,

    /// How long a direct write may take before its hint is made, while the write goes on: so long a
    /// copy that the answer did not wait for is in memory alone. Set it above the time in which a
    /// node answers as a rule; a write that takes longer costs a hint. 0: as soon as the level is
    /// reached. Default 100 ms, maximum 1 day.
    #[serde(default = "defaults::hint_after", with = "humantime_serde")]
    pub hint_after: Duration,

    /// Direct writes to one node at a time. Beyond that a copy becomes a hint at once, so a node
    /// that hangs gets at most so many copies twice. Default 1,024, minimum 1, maximum 16,384.
    #[serde(default = "defaults::max_outstanding")]
    pub max_outstanding: usize,

    /// The same in payload bytes; one write is always let through. Default 8 MiB, minimum 1.
    #[serde(
        default = "defaults::max_outstanding_bytes",
        with = "sizes::max_outstanding_bytes"
    )]
    pub max_outstanding_bytes: u64,

    /// When a write of a [`PointsWriter`](crate::PointsWriter) is answered. Default: `"level"`.
    #[serde(default)]
    pub answer: AnswerWhen,

    /// What a write of a [`PointsWriter`](crate::PointsWriter) is that reached its level, but one
    /// of its copies could be neither sent nor hinted. Default: `"report"`.
    #[serde(default)]
    pub on_not_stored: OnNotStored,

    /// Whether a write of a [`PointsWriter`](crate::PointsWriter) is an error as soon as its level
    /// cannot be reached any more, with some copies still under way; else only when the fate of
    /// each copy is known. Default: true.
    #[serde(default = "defaults::fail_early")]
    pub fail_early: bool,

    /// How long one ping or one send of replay may take. One that takes longer has failed and is
    /// tried again: with half as many hints, or, if it was a single one, within twice the time, up
    /// to ten times. A limit that the host's writer has itself does the same from half of this on.
    /// Default 10 s, minimum 1 ms, maximum 1 day.
    #[serde(default = "defaults::send_timeout", with = "humantime_serde")]
    pub send_timeout: Duration,

    /// Sends of replay to one node at a time, at most one a shard. Default 8, minimum 1, maximum
    /// 1,024.
    #[serde(default = "defaults::max_in_flight")]
    pub max_in_flight: usize,

    /// Sends of replay to all nodes together at a time. While more nodes are being sent to than
    /// that, each has one, in turn; nodes that took nothing since they failed have half of all.
    /// Default 256, minimum 1, maximum 65,536.
    #[serde(default = "defaults::max_sends")]
    pub max_sends: usize,

    /// Payload bytes in all these sends, in KiB rounded up; a send that is larger goes alone.
    /// Default 64 MiB, minimum 1.
    #[serde(
        default = "defaults::max_bytes_in_flight",
        with = "sizes::max_bytes_in_flight"
    )]
    pub max_bytes_in_flight: u64,

    /// How many hints of a node replay holds in memory that were read and not taken yet. Shards
    /// that are left alone make room for others. Default 8,192, minimum 1, maximum 16,384.
    #[serde(default = "defaults::window_hints")]
    pub window_hints: usize,

    /// The same in payload bytes; at least one hint is held, however large. While hints are sent to
    /// many nodes at once, all their windows share 32 MiB. Default 8 MiB, minimum 1, maximum 64
    /// MiB.
    #[serde(default = "defaults::window_bytes", with = "sizes::window_bytes")]
    pub window_bytes: u64,

    /// A hint whose sends have failed this often becomes a dead letter; the last try is for it
    /// alone. 0 is no limit. A ping that fails is no attempt, but a node that answers pings and
    /// fails all sends uses them up. With 1 every hint is sent alone. Default 0.
    #[serde(default)]
    pub max_attempts: u32,

    /// Dead letters that are kept of a node; when there are more the oldest is discarded, which the
    /// loss journal tells. A node that got those of another by a rename may have more until its
    /// next hint becomes one. Default 10,000, minimum 1.
    #[serde(default = "defaults::max_dead_letters")]
    pub max_dead_letters: u64,

    /// The same in payload bytes; the newest is kept, however large. Default 256 MiB, minimum 1.
    #[serde(
        default = "defaults::max_dead_letter_bytes",
        with = "sizes::max_dead_letter_bytes"
    )]
    pub max_dead_letter_bytes: u64,

    /// How long a shutdown lets sends in flight finish before it abandons them; what is abandoned
    /// is sent again after the next open. Default 5 s, minimum 0, maximum 1 day.
    #[serde(default = "defaults::shutdown_grace", with = "humantime_serde")]
    pub shutdown_grace: Duration,

    /// How long one commit may take before everybody who waits is told that the outcome is unknown,
    /// and that the process must be restarted unless it comes back. Time in which the whole process
    /// is stopped does not count. Default 30 s, minimum 1 s, maximum 1 day.
    #[serde(default = "defaults::commit_timeout", with = "humantime_serde")]
    pub commit_timeout: Duration,

    /// New hints, and transactions and batches that write rows, are refused while less bytes than
    /// this are free on the store's file system, so that draining always has room; with
    /// [`WhenFull::Block`] hints wait for it first. What a transaction makes of hints that it
    /// acknowledges may use half of it. Default 128 MiB, minimum 64 MiB (eight segments); 0 turns
    /// the check off.
    #[serde(default = "defaults::min_free_disk", with = "sizes::min_free_disk")]
    pub min_free_disk: u64,

    /// Hints older than this leave undelivered, whether their node is up or down, and are counted
    /// ([`NodeStats::expired`](crate::NodeStats::expired)) and logged. Age is counted from the
    /// enqueue, by a clock that nobody sets for hints of this life, by the wall clock for those of
    /// earlier ones. A hint may outlive this by a second or so, longer while its node is being sent
    /// to; those of earlier lives while expiry is suspended for them
    /// ([`expiry_grace`](Config::expiry_grace)). 0 is no limit. Default 0, minimum 1 s, maximum 10
    /// years of 365 days: a write that a node missed is kept until it can be delivered, unless you
    /// say otherwise.
    #[serde(default, with = "humantime_serde")]
    pub max_age: Duration,

    /// How long nothing that an earlier life stored expires after open, and after the wall clock
    /// was set (by more than a second and a half; it is looked at every ten seconds at least): time
    /// for the clock to be set right. Default 60 s, maximum 1 day, minimum 0.
    #[serde(default = "defaults::expiry_grace", with = "humantime_serde")]
    pub expiry_grace: Duration,

    /// Hints that may be pending for one node. All four such limits count what is durable and not
    /// acknowledged, and what is on its way there. Default: none, minimum 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hints_per_node: Option<u64>,

    /// Payload bytes that may be pending for one node. Default: none, minimum 1. A hint larger than
    /// this is always refused.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "sizes::max_bytes_per_node"
    )]
    pub max_bytes_per_node: Option<u64>,

    /// Hints that may be pending for all nodes together. Default: none, minimum 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hints: Option<u64>,

    /// Payload bytes that may be pending for all nodes together. Default: none, minimum 1. A hint
    /// larger than this is always refused.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "sizes::max_bytes"
    )]
    pub max_bytes: Option<u64>,

    /// Bytes that the store may take on the disk. Near that a hint is refused, waits or has the
    /// oldest dropped, as [`when_full`](Config::when_full) says, unless there is room among what
    /// left; delivery goes on. Space is kept for what gives space back. It does not count what was
    /// moved aside as damaged, nor the copy that is made of a log after a failed fsync. Not for a
    /// shared database, whose log is the host's. Default: none, minimum 256 MiB.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "sizes::max_disk_bytes"
    )]
    pub max_disk_bytes: Option<u64>,

    /// What becomes of a hint that a limit has no room for. Default: `"reject"`.
    #[serde(default)]
    pub when_full: WhenFull,

    /// How long a write waits for room with [`WhenFull::Block`]. Default 10 s, minimum 1 ms,
    /// maximum 1 day.
    #[serde(default = "defaults::block_timeout", with = "humantime_serde")]
    pub block_timeout: Duration,

    /// Nodes whose hints are never replayed: they wait until the host takes them with a
    /// [`Consumer`](crate::Consumer). Default: none.
    #[serde(default)]
    pub manual_nodes: BTreeSet<NodeId>,

    /// How long the hints of a node are kept that
    /// [`retain_nodes`](crate::HintedHandoff::retain_nodes) did not name; then they are discarded.
    /// Looked at once a minute, and not before a minute after an open, so that the host can say
    /// first who is in the cluster. Time counts as for [`max_age`](Config::max_age): of a node that
    /// was parked before the last open nothing is discarded for
    /// [`expiry_grace`](Config::expiry_grace) after the open and after the wall clock was set. 0
    /// keeps them for ever. Default 7 days, minimum 1 minute, maximum 10 years of 365 days.
    #[serde(default = "defaults::purge_after", with = "humantime_serde")]
    pub purge_after: Duration,

    /// What to do when the store on disk cannot be opened. Default: `"fail"`.
    #[serde(default)]
    pub on_unopenable: OnUnopenable,

    /// Whether a write of a [`PointsWriter`](crate::PointsWriter) may reach a node before older
    /// ones that wait for it. Default: `"bypass"`.
    #[serde(default)]
    pub ordering: WriteOrdering,

    /// Opens with all replay paused, as by
    /// [`pause_all`](crate::HintedHandoff::pause_all) with
    /// [`Pause::UntilRestart`](crate::Pause::UntilRestart) before anything is pinged or sent:
    /// hints are accepted and wait until [`resume_all`](crate::HintedHandoff::resume_all). Nothing
    /// of it is on disk. Where all replay is paused to last already, it stays so, beyond this life.
    /// Nodes in [`manual_nodes`](Config::manual_nodes) are not concerned. Default: false.
    #[serde(default)]
    pub start_paused: bool,

    /// Gives the store a new [`StoreId`](crate::StoreId) at open. Needed once after the directory
    /// was restored from a backup, since receivers have seen its sequences before. Default: false.
    #[serde(default)]
    pub reset_identity: bool,
}

impl Config {
    /// The defaults, for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            durability: Durability::default(),
            retry_interval: defaults::retry_interval(),
            retry_max_interval: defaults::retry_max_interval(),
            retry_rate_limit: 0,
            retry_rate_limit_total: 0,
            batch_bytes: defaults::batch_bytes(),
            max_entry_bytes: defaults::max_entry_bytes(),
            write_timeout: defaults::write_timeout(),
            hint_after: defaults::hint_after(),
            max_outstanding: defaults::max_outstanding(),
            max_outstanding_bytes: defaults::max_outstanding_bytes(),
            answer: AnswerWhen::default(),
            on_not_stored: OnNotStored::default(),
            fail_early: defaults::fail_early(),
            send_timeout: defaults::send_timeout(),
            max_in_flight: defaults::max_in_flight(),
            max_sends: defaults::max_sends(),
            max_bytes_in_flight: defaults::max_bytes_in_flight(),
            window_hints: defaults::window_hints(),
            window_bytes: defaults::window_bytes(),
            max_attempts: 0,
            max_dead_letters: defaults::max_dead_letters(),
            max_dead_letter_bytes: defaults::max_dead_letter_bytes(),
            shutdown_grace: defaults::shutdown_grace(),
            commit_timeout: defaults::commit_timeout(),
            min_free_disk: defaults::min_free_disk(),
            max_age: Duration::ZERO,
            expiry_grace: defaults::expiry_grace(),
            max_hints_per_node: None,
            max_bytes_per_node: None,
            max_hints: None,
            max_bytes: None,
            max_disk_bytes: None,
            when_full: WhenFull::default(),
            block_timeout: defaults::block_timeout(),
            manual_nodes: BTreeSet::new(),
            purge_after: defaults::purge_after(),
            on_unopenable: OnUnopenable::default(),
            ordering: WriteOrdering::default(),
            start_paused: false,
            reset_identity: false,
        }
    }
}

#[cfg(test)]
mod tests;
