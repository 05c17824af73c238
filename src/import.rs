//! A hint that comes from another store.

use bytes::Bytes;

use crate::{
    store::{DeadCause, Hint},
    types::{NodeId, ShardId, WriteId},
};

/// A hint to be put into a store, as it was in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The node that it is for.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
    /// The host's version of the payload's encoding.
    pub format: u16,
    /// When it was enqueued, in milliseconds since 1970: its age goes on.
    pub enqueued_unix_ms: u64,
    /// After so long from its enqueue it is not to be delivered any more, in milliseconds.
    pub lifetime_ms: Option<u64>,
    /// The write that it is a copy of: a receiver that remembers these refuses a second copy.
    pub write: Option<WriteId>,
    /// The encoded points.
    pub payload: Bytes,
    /// If it is a dead letter, how it came to be one.
    pub dead: Option<DeadCause>,
}

impl Import {
    /// The node, the hint, and how it came to be a dead letter.
    pub(crate) fn into_hint(self) -> (NodeId, Hint, Option<DeadCause>) {
        let hint = Hint {
            shard: self.shard,
            format: self.format,
            enqueued_unix_ms: self.enqueued_unix_ms,
            payload: self.payload,
            origin: None,
            write: self.write,
            lifetime_ms: self.lifetime_ms,
        };
        (self.node, hint, self.dead)
    }
}
