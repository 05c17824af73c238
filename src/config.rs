//! Settings, their defaults and their rules.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    error::ConfigError,
    types::{Durability, NodeId},
};

const MIB: u64 = 1024 * 1024;

/// The largest `max_entry_bytes` that can be set.
pub const MAX_ENTRY_BYTES_CEILING: u64 = 64 * MIB;

/// What left out of order is listed in a queue's cursor, which must stay below 64 KiB: every second hint of this takes 40.
const WINDOW_HINTS_CEILING: usize = 16_384;

/// Settings of a hinted handoff. Durations are written as humantime does: `retry_interval = "1s"`.
///
/// Unknown keys are an error, so that a typing mistake does not become a default.
///
/// ```
/// use std::time::Duration;
///
/// let config: hinted_handoff::Config = toml::from_str(r#"
///     dir = "data/hints"
///     retry_interval = "500ms"
///     retry_rate_limit = 1048576
/// "#)?;
/// assert_eq!(config.retry_interval, Duration::from_millis(500));
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

    /// First wait after a ping that failed, for the node, or after a send that failed, for its shard; doubles up to
    /// `retry_max_interval`. The wait itself is drawn between half and the whole of this. A node whose shards all fail waits as one.
    /// Default 1 s, minimum 1 ms.
    #[serde(default = "defaults::retry_interval", with = "humantime_serde")]
    pub retry_interval: Duration,

    /// Longest wait between two attempts. Default 60 s, minimum `retry_interval`.
    #[serde(default = "defaults::retry_max_interval", with = "humantime_serde")]
    pub retry_max_interval: Duration,

    /// Payload bytes a second that replay sends to one node; bursts of `batch_bytes` are allowed. 0 is no limit.
    /// Default 0, maximum 4,294,967,295.
    #[serde(default)]
    pub retry_rate_limit: u64,

    /// The most payload bytes that one send of replay carries, all of one shard, unless a single hint is larger. Default 512,000,
    /// minimum 1, maximum 64 MiB.
    #[serde(default = "defaults::batch_bytes")]
    pub batch_bytes: u64,

    /// Largest hint, in bytes of the encoded points. Default 16 MiB, minimum 1, maximum 64 MiB.
    #[serde(default = "defaults::max_entry_bytes")]
    pub max_entry_bytes: u64,

    /// How long one direct write to a node may take. Default 10 s, minimum 1 ms.
    #[serde(default = "defaults::write_timeout", with = "humantime_serde")]
    pub write_timeout: Duration,

    /// How long one ping or one send of replay may take. One that takes longer counts as failed and is tried again. Default 10 s,
    /// minimum 1 ms.
    #[serde(default = "defaults::send_timeout", with = "humantime_serde")]
    pub send_timeout: Duration,

    /// Sends of replay to one node at a time, at most one a shard. Default 8, minimum 1, maximum 1,024.
    #[serde(default = "defaults::max_in_flight")]
    pub max_in_flight: usize,

    /// How many hints replay may look ahead of the oldest one that a node has not taken: a shard that stalls holds up others of its
    /// node only beyond this, and at most so many come again after a crash, besides what was acknowledged in the moment before it. Default 8,192, minimum 1, maximum 16,384.
    #[serde(default = "defaults::window_hints")]
    pub window_hints: usize,

    /// The same in payload bytes; at least one hint is looked at, however large. While hints are sent to many nodes at once, all their
    /// windows share 64 MiB. Default 8 MiB, minimum 1, maximum 64 MiB.
    #[serde(default = "defaults::window_bytes")]
    pub window_bytes: u64,

    /// A hint whose sends have failed this often becomes a dead letter; the last try is for it alone. 0 is no limit. A ping that
    /// fails is no attempt, but a node that answers pings and fails all sends uses them up. With 1 every hint is sent alone. Default 0.
    #[serde(default)]
    pub max_attempts: u32,

    /// Dead letters that are kept of a node; when there are more the oldest is discarded, which the loss journal tells. Default 10,000,
    /// minimum 1.
    #[serde(default = "defaults::max_dead_letters")]
    pub max_dead_letters: u64,

    /// The same in payload bytes; the newest is kept, however large. Default 256 MiB, minimum 1.
    #[serde(default = "defaults::max_dead_letter_bytes")]
    pub max_dead_letter_bytes: u64,

    /// How long a shutdown lets sends in flight finish before it abandons them; what is abandoned is sent again
    /// after the next open. Default 5 s, minimum 0.
    #[serde(default = "defaults::shutdown_grace", with = "humantime_serde")]
    pub shutdown_grace: Duration,

    /// How long one commit may take before everybody who waits is told that the outcome is unknown and the process
    /// must be restarted. Default 30 s, minimum 1 s.
    #[serde(default = "defaults::commit_timeout", with = "humantime_serde")]
    pub commit_timeout: Duration,

    /// New hints, and transactions and batches that write rows, are refused while less bytes than this are free on the store's file system,
    /// so that draining always has room; with [`WhenFull::Block`] hints wait for it first. What a transaction makes of hints that it acknowledges may use half of it. Default 128 MiB, minimum 64 MiB (eight segments); 0 turns the check off.
    #[serde(default = "defaults::min_free_disk")]
    pub min_free_disk: u64,

    /// Hints older than this leave undelivered, whether their node is up or down, and are counted
    /// ([`NodeStats::expired`](crate::NodeStats::expired)) and logged. A hint's age is counted from its enqueue by the wall clock; it
    /// may outlive this by a second or so, longer while its node is being sent to, and while expiry is suspended
    /// ([`expiry_grace`](Config::expiry_grace)). 0 is no limit. Default 0, minimum 1 s: a write that a node missed is kept until it
    /// can be delivered, unless you say otherwise.
    #[serde(default, with = "humantime_serde")]
    pub max_age: Duration,

    /// How long nothing expires after open, and after the wall clock jumped against the monotonic one (by more than a second, and a
    /// thousandth of the time between two looks, which are a minute apart at most): time for the clock to be set right. Default 60 s,
    /// maximum 1 day, minimum 0.
    #[serde(default = "defaults::expiry_grace", with = "humantime_serde")]
    pub expiry_grace: Duration,

    /// Hints that may be pending for one node. All four such limits count what is durable and not acknowledged, and what is on its way
    /// there. Default: none, minimum 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hints_per_node: Option<u64>,

    /// Payload bytes that may be pending for one node. Default: none, minimum 1. A hint larger than this is always refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_node: Option<u64>,

    /// Hints that may be pending for all nodes together. Default: none, minimum 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hints: Option<u64>,

    /// Payload bytes that may be pending for all nodes together. Default: none, minimum 1. A hint larger than this is always refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,

    /// What becomes of a hint that a limit has no room for. Default: `"reject"`.
    #[serde(default)]
    pub when_full: WhenFull,

    /// How long a write waits for room with [`WhenFull::Block`]. Default 10 s, minimum 1 ms, maximum 1 day.
    #[serde(default = "defaults::block_timeout", with = "humantime_serde")]
    pub block_timeout: Duration,

    /// Nodes whose hints are never replayed: they wait until the host takes them with a
    /// [`Consumer`](crate::Consumer). Default: none.
    #[serde(default)]
    pub manual_nodes: BTreeSet<NodeId>,

    /// How long the hints of a node are kept that [`retain_nodes`](crate::HintedHandoff::retain_nodes) did not name; then they are
    /// discarded. Looked at once a minute, and not before a minute after an open, so that the host can say first who is in the
    /// cluster. For a node that was parked before the last open this goes by the wall clock, or, if that was set back behind the
    /// moment of parking, by how long the store has been open. 0 keeps them for ever. Default 7 days, minimum 1 minute.
    #[serde(default = "defaults::purge_after", with = "humantime_serde")]
    pub purge_after: Duration,

    /// What to do when the store on disk cannot be opened. Default: `"fail"`.
    #[serde(default)]
    pub on_unopenable: OnUnopenable,

    /// Whether a write of a [`PointsWriter`](crate::PointsWriter) may reach a node before older ones that wait for it. Default: `"bypass"`.
    #[serde(default)]
    pub ordering: WriteOrdering,

    /// Gives the store a new [`StoreId`](crate::StoreId) at open. Needed once after the directory was restored from a
    /// backup, since receivers have seen its sequences before. Default: false.
    #[serde(default)]
    pub reset_identity: bool,
}

/// What becomes of a hint that one of the limits `max_hints_per_node`, `max_bytes_per_node`, `max_hints` and `max_bytes` has no room for.
///
/// A hint that is being sent is never taken to make room; one that a [`Consumer`](crate::Consumer) has peeked at may be, and is not the
/// next one any more when it is acknowledged. With too little disk ([`Config::min_free_disk`]) hints are
/// refused with `Reject` and `DropOldest` alike, since what is dropped frees no space on the disk; `Block` waits for that too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It is refused with [`EnqueueError::QueueFull`](crate::EnqueueError::QueueFull), and what is pending stays.
    #[default]
    Reject,
    /// As many of the oldest hints leave undelivered as make room for it, and no more: of the same node if its own limit is met, of the
    /// node with the oldest hint if a limit of the store is. They are counted ([`NodeStats::dropped`](crate::NodeStats::dropped)) and
    /// gone durably before the new hint enters. If all are being sent this is as `Reject`.
    DropOldest,
    /// The write waits, before it enters the pipeline, until hints have left; after [`Config::block_timeout`] it is refused as by `Reject`.
    /// Others pass who find room: the wait is no queue.
    Block,
}

/// What to do with a store that cannot be opened. Neither choice deletes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnopenable {
    /// Leave it where it is and return [`OpenError::Unopenable`](crate::OpenError::Unopenable).
    #[default]
    Fail,
    /// Move it aside whole, log where to, and start with an empty store.
    StartEmpty,
}

/// What a write of a [`PointsWriter`](crate::PointsWriter) does while older hints of the same (node, shard) wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOrdering {
    /// It is sent directly, past them: the node has the newest writes first and the missed ones later. For hosts whose writes can be
    /// applied in any order.
    #[default]
    Bypass,
    /// It is sent directly only if nothing of the (node, shard) waits or is being sent, and else becomes a hint behind what waits:
    /// no newer write overtakes an older one.
    ///
    /// **In order** are the writes of all `PointsWriter`s of a handoff to a (node, shard): as their futures were first polled, each
    /// receiver is sent the first copy of a write before that of any later one. So are hints of `write_shard` and of transactions before
    /// writes that begin after the call has returned. One direct write of a (node, shard) is under way at a time; shards do not wait
    /// for each other. After open, all shards of a node count as backlogged until what was found there is delivered, and again
    /// when a failed store has opened itself again. While the store does not serve, nothing is sent directly, and a write is an error.
    ///
    /// **Not in order** is what the host must fence, best by a number of its own in the points (an epoch or a counter a writer and
    /// shard) that the receiver keeps with its rows, refusing older ones:
    /// - A direct write that timed out, failed or panicked may have left already: it may arrive late, after newer writes, beside its hint.
    ///   A host that closes the connection on each failure bounds that to what is on the wire.
    /// - A hint comes again if its acknowledgement was lost (a crash, a storage error, a send whose reply was lost), and then newer direct
    ///   writes may have come in between. `AppliedHints` refuses such repetitions by the hint's id.
    /// - A direct write and a hint of `write_shard` or a transaction that are under way at the same time.
    ///
    /// **It costs** a reply's time for each direct write to the same (node, shard), and a failure that takes long (`write_timeout`) holds
    /// up those behind it once. A transaction that enqueues hints is answered when it is durable, with
    /// [`Buffered`](Durability::Buffered) too.
    Strict,
}

mod defaults {
    use super::{Duration, MIB};

    pub fn retry_interval() -> Duration {
        Duration::from_secs(1)
    }
    pub fn retry_max_interval() -> Duration {
        Duration::from_secs(60)
    }
    pub fn batch_bytes() -> u64 {
        512_000
    }
    pub fn max_entry_bytes() -> u64 {
        16 * MIB
    }
    pub fn write_timeout() -> Duration {
        Duration::from_secs(10)
    }
    pub fn send_timeout() -> Duration {
        Duration::from_secs(10)
    }
    pub fn max_in_flight() -> usize {
        8
    }
    pub fn window_hints() -> usize {
        8192
    }
    pub fn window_bytes() -> u64 {
        8 * MIB
    }
    pub fn max_dead_letters() -> u64 {
        10_000
    }
    pub fn max_dead_letter_bytes() -> u64 {
        256 * MIB
    }
    pub fn shutdown_grace() -> Duration {
        Duration::from_secs(5)
    }
    pub fn expiry_grace() -> Duration {
        Duration::from_secs(60)
    }
    pub fn block_timeout() -> Duration {
        Duration::from_secs(10)
    }
    pub fn commit_timeout() -> Duration {
        Duration::from_secs(30)
    }
    pub fn min_free_disk() -> u64 {
        128 * MIB
    }
    pub fn purge_after() -> Duration {
        Duration::from_secs(7 * 86_400)
    }
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
            batch_bytes: defaults::batch_bytes(),
            max_entry_bytes: defaults::max_entry_bytes(),
            write_timeout: defaults::write_timeout(),
            send_timeout: defaults::send_timeout(),
            max_in_flight: defaults::max_in_flight(),
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
            when_full: WhenFull::default(),
            block_timeout: defaults::block_timeout(),
            manual_nodes: BTreeSet::new(),
            purge_after: defaults::purge_after(),
            on_unopenable: OnUnopenable::default(),
            ordering: WriteOrdering::default(),
            reset_identity: false,
        }
    }

    /// Checks every setting against its rule; [`HintedHandoff::open`](crate::HintedHandoff::open) does so too.
    ///
    /// # Errors
    /// The first setting that is out of range, with its value and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let millisecond = Duration::from_millis(1);
        let duration = |value: Duration| humantime::format_duration(value).to_string();
        let rules: [(&'static str, bool, String, &'static str); 17] = [
            (
                "dir",
                !self.dir.as_os_str().is_empty(),
                format!("{:?}", self.dir),
                "a directory must be named",
            ),
            (
                "retry_interval",
                self.retry_interval >= millisecond,
                duration(self.retry_interval),
                "at least 1ms",
            ),
            (
                "retry_max_interval",
                self.retry_max_interval >= self.retry_interval,
                duration(self.retry_max_interval),
                "at least retry_interval",
            ),
            (
                "retry_rate_limit",
                u32::try_from(self.retry_rate_limit).is_ok(),
                self.retry_rate_limit.to_string(),
                "at most 4294967295 bytes a second (0 for no limit)",
            ),
            (
                "batch_bytes",
                (1..=MAX_ENTRY_BYTES_CEILING).contains(&self.batch_bytes),
                self.batch_bytes.to_string(),
                "between 1 and 67108864",
            ),
            (
                "max_entry_bytes",
                (1..=MAX_ENTRY_BYTES_CEILING).contains(&self.max_entry_bytes),
                self.max_entry_bytes.to_string(),
                "between 1 and 67108864",
            ),
            (
                "write_timeout",
                self.write_timeout >= millisecond,
                duration(self.write_timeout),
                "at least 1ms",
            ),
            (
                "send_timeout",
                self.send_timeout >= millisecond,
                duration(self.send_timeout),
                "at least 1ms",
            ),
            (
                "max_in_flight",
                (1..=1024).contains(&self.max_in_flight),
                self.max_in_flight.to_string(),
                "between 1 and 1024",
            ),
            (
                "window_hints",
                (1..=WINDOW_HINTS_CEILING).contains(&self.window_hints),
                self.window_hints.to_string(),
                "between 1 and 16384",
            ),
            (
                "window_bytes",
                (1..=MAX_ENTRY_BYTES_CEILING).contains(&self.window_bytes),
                self.window_bytes.to_string(),
                "between 1 and 67108864",
            ),
            (
                "max_dead_letters",
                self.max_dead_letters > 0,
                self.max_dead_letters.to_string(),
                "at least 1",
            ),
            (
                "max_dead_letter_bytes",
                self.max_dead_letter_bytes > 0,
                self.max_dead_letter_bytes.to_string(),
                "at least 1",
            ),
            (
                "shutdown_grace",
                self.shutdown_grace <= Duration::from_secs(86_400),
                duration(self.shutdown_grace),
                "at most 1day",
            ),
            (
                "commit_timeout",
                self.commit_timeout >= Duration::from_secs(1),
                duration(self.commit_timeout),
                "at least 1s",
            ),
            (
                "min_free_disk",
                self.min_free_disk == 0 || self.min_free_disk >= 64 * MIB,
                self.min_free_disk.to_string(),
                "0 (off) or at least 67108864",
            ),
            (
                "purge_after",
                self.purge_after.is_zero() || self.purge_after >= Duration::from_secs(60),
                duration(self.purge_after),
                "0s (never) or at least 1m",
            ),
        ];
        for (field, holds, value, rule) in rules.into_iter().chain(self.limit_rules()) {
            if !holds {
                return Err(ConfigError { field, value, rule });
            }
        }
        Ok(())
    }

    /// The rules of what bounds a queue. A limit of zero would refuse everything: whoever wants none leaves it out.
    fn limit_rules(&self) -> [(&'static str, bool, String, &'static str); 7] {
        let duration = |value: Duration| humantime::format_duration(value).to_string();
        let day = Duration::from_secs(86_400);
        let limit = |field: &'static str, value: Option<u64>| {
            let text = value.map_or("none".to_owned(), |value| value.to_string());
            (
                field,
                value != Some(0),
                text,
                "at least 1, or left out for no limit",
            )
        };
        [
            (
                "max_age",
                self.max_age.is_zero() || self.max_age >= Duration::from_secs(1),
                duration(self.max_age),
                "0s (no limit) or at least 1s",
            ),
            (
                "expiry_grace",
                self.expiry_grace <= day,
                duration(self.expiry_grace),
                "at most 1day",
            ),
            limit("max_hints_per_node", self.max_hints_per_node),
            limit("max_bytes_per_node", self.max_bytes_per_node),
            limit("max_hints", self.max_hints),
            limit("max_bytes", self.max_bytes),
            (
                "block_timeout",
                (Duration::from_millis(1)..=day).contains(&self.block_timeout),
                duration(self.block_timeout),
                "between 1ms and 1day",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_config_file_of_one_line_gives_the_documented_defaults() {
        let config = parsed("dir = \"d\"").unwrap();
        assert_eq!(config, Config::new("d"));
        assert_eq!(config.durability, Durability::Sync);
        assert_eq!(config.retry_interval, Duration::from_secs(1));
        assert_eq!(config.retry_max_interval, Duration::from_secs(60));
        assert_eq!(config.retry_rate_limit, 0);
        assert_eq!(config.batch_bytes, 512_000);
        assert_eq!(config.max_entry_bytes, 16 << 20);
        assert_eq!(config.write_timeout, Duration::from_secs(10));
        assert_eq!(config.send_timeout, Duration::from_secs(10));
        assert_eq!(config.max_in_flight, 8);
        assert_eq!(config.window_hints, 8192);
        assert_eq!(config.window_bytes, 8 << 20);
        assert_eq!(config.max_attempts, 0);
        assert_eq!(config.max_dead_letters, 10_000);
        assert_eq!(config.max_dead_letter_bytes, 256 << 20);
        assert_eq!(config.shutdown_grace, Duration::from_secs(5));
        assert_eq!(config.commit_timeout, Duration::from_secs(30));
        assert_eq!(config.min_free_disk, 128 << 20);
        assert_eq!(config.max_age, Duration::ZERO);
        assert_eq!(config.expiry_grace, Duration::from_secs(60));
        assert_eq!(config.max_hints_per_node, None);
        assert_eq!(config.max_bytes_per_node, None);
        assert_eq!(config.max_hints, None);
        assert_eq!(config.max_bytes, None);
        assert_eq!(config.when_full, WhenFull::Reject);
        assert_eq!(config.block_timeout, Duration::from_secs(10));
        assert!(config.manual_nodes.is_empty());
        assert_eq!(config.purge_after, Duration::from_secs(7 * 24 * 3600));
        assert_eq!(config.on_unopenable, OnUnopenable::Fail);
        assert_eq!(config.ordering, WriteOrdering::Bypass);
        assert!(!config.reset_identity);
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn every_key_is_read_and_written_back_the_same() {
        let text = r#"
            dir = "hints"
            durability = "buffered"
            retry_interval = "250ms"
            retry_max_interval = "2m"
            retry_rate_limit = 1000
            batch_bytes = 64000
            max_entry_bytes = 1000000
            write_timeout = "3s"
            send_timeout = "4s"
            max_in_flight = 32
            window_hints = 100
            window_bytes = 1000
            max_attempts = 5
            max_dead_letters = 7
            max_dead_letter_bytes = 7000
            shutdown_grace = "0s"
            commit_timeout = "1m"
            min_free_disk = 0
            max_age = "7days"
            expiry_grace = "0s"
            max_hints_per_node = 1000
            max_bytes_per_node = 1000000
            max_hints = 5000
            max_bytes = 5000000
            when_full = "drop_oldest"
            block_timeout = "2s"
            manual_nodes = [3, 9]
            purge_after = "2days"
            on_unopenable = "start_empty"
            ordering = "strict"
            reset_identity = true
        "#;
        let config = parsed(text).unwrap();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.retry_max_interval, Duration::from_secs(120));
        assert_eq!(config.manual_nodes, [NodeId(3), NodeId(9)].into());
        assert_eq!(config.on_unopenable, OnUnopenable::StartEmpty);
        assert_eq!(config.ordering, WriteOrdering::Strict);
        assert_eq!(config.max_age, Duration::from_secs(7 * 86_400));
        assert_eq!(config.max_hints, Some(5000));
        assert_eq!(config.when_full, WhenFull::DropOldest);
        let again = parsed(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn an_unknown_key_and_a_missing_directory_are_errors() {
        let typo = parsed("dir = \"d\"\nretry_intervall = \"1s\"").unwrap_err();
        assert!(typo.to_string().contains("retry_intervall"), "{typo}");
        assert!(parsed("retry_interval = \"1s\"").is_err());
        assert!(parsed("dir = \"d\"\nretry_interval = \"soon\"").is_err());
    }

    #[test]
    fn each_rule_names_its_field() {
        type Break = fn(&mut Config);
        let broken: [(&str, Break); 31] = [
            ("dir", |c| c.dir = PathBuf::new()),
            ("retry_interval", |c| c.retry_interval = Duration::ZERO),
            ("retry_max_interval", |c| {
                c.retry_max_interval = Duration::from_millis(999);
            }),
            ("retry_rate_limit", |c| c.retry_rate_limit = 1 << 32),
            ("batch_bytes", |c| c.batch_bytes = 0),
            ("batch_bytes", |c| c.batch_bytes = (64 << 20) + 1),
            ("max_entry_bytes", |c| c.max_entry_bytes = 0),
            ("max_entry_bytes", |c| c.max_entry_bytes = (64 << 20) + 1),
            ("write_timeout", |c| c.write_timeout = Duration::ZERO),
            ("send_timeout", |c| c.send_timeout = Duration::ZERO),
            ("max_in_flight", |c| c.max_in_flight = 0),
            ("max_in_flight", |c| c.max_in_flight = 1025),
            ("window_hints", |c| c.window_hints = 0),
            ("window_hints", |c| c.window_hints = 16_385),
            ("window_bytes", |c| c.window_bytes = 0),
            ("window_bytes", |c| c.window_bytes = (64 << 20) + 1),
            ("max_dead_letters", |c| c.max_dead_letters = 0),
            ("max_dead_letter_bytes", |c| c.max_dead_letter_bytes = 0),
            ("shutdown_grace", |c| c.shutdown_grace = Duration::MAX),
            ("commit_timeout", |c| {
                c.commit_timeout = Duration::from_millis(999);
            }),
            ("max_age", |c| c.max_age = Duration::from_millis(999)),
            ("expiry_grace", |c| c.expiry_grace = Duration::MAX),
            ("max_hints_per_node", |c| c.max_hints_per_node = Some(0)),
            ("max_bytes_per_node", |c| c.max_bytes_per_node = Some(0)),
            ("max_hints", |c| c.max_hints = Some(0)),
            ("max_bytes", |c| c.max_bytes = Some(0)),
            ("block_timeout", |c| c.block_timeout = Duration::ZERO),
            ("block_timeout", |c| c.block_timeout = Duration::MAX),
            ("min_free_disk", |c| {
                c.min_free_disk = 1;
            }),
            ("min_free_disk", |c| {
                c.min_free_disk = (64 << 20) - 1;
            }),
            ("purge_after", |c| c.purge_after = Duration::from_secs(59)),
        ];
        for (field, break_it) in broken {
            let mut config = Config::new("d");
            break_it(&mut config);
            assert_eq!(config.validate().unwrap_err().field, field);
        }
    }
}
