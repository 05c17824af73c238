//! Where points go: a database, and a shard of the queue.

use crc32fast::Hasher;
use hinted_handoff::ShardId;
use serde::{Deserialize, Serialize};

use super::Precision;

/// Where the points of a write go, and the unit of their times: the parameters of `/write`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// `db`.
    pub database: String,
    /// `rp`; `None` for the default one of the database.
    pub retention_policy: Option<String>,
    /// `precision`.
    pub precision: Precision,
}

/// Shards that the series of one retention policy are spread over.
///
/// Points of one series are always of one shard, in which order is kept; those of two shards are
/// sent side by side. More would cut small writes into more requests. It is part of what is on
/// disk: with another number a series could be in two shards at a time.
pub const STRIPES: u8 = 8;

/// The shard of a series: its retention policy, and one of [`STRIPES`].
///
/// A database that a server does not have keeps only its own shards waiting. Two that share a
/// number, which is a chance of 1 in 500 million for each pair, wait for each other, and no more.
pub fn shard_of(target: &Target, stripe: u8) -> ShardId {
    let mut hasher = Hasher::new();
    hasher.update(target.database.as_bytes());
    // No name has a byte that UTF-8 does not have.
    hasher.update(&[0xff]);
    match &target.retention_policy {
        Some(policy) => hasher.update(policy.as_bytes()),
        None => hasher.update(&[0xff]),
    }
    ShardId(u64::from(hasher.finalize()) << 8 | u64::from(stripe))
}
