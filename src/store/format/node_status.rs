//! How delivery to a node went lately, so that a restart does not forget it: beside the node's
//! record in `hh/nodes`.
//!
//! ```text
//! key    node u64 | 01
//! value  version u8 = 1 | the fields of Status in postcard's encoding |
//!        CRC32C over key and all before it u32
//! ```
//! The order of the fields is part of the format. Nobody waits for it: it is written with the next
//! group, and a crash may bring back an older one.

use serde::{Deserialize, Serialize};

use crate::{
    store::format::checksum::{DecodeError, decode_record, encode_record},
    types::{NodeId, QueueId, Sequence, ShardId},
};

const VERSION: u8 = 1;
const KIND: u8 = 1;

/// Heads of shards that are remembered.
pub const HEADS_MAX: usize = 64;
/// Bytes of an error's text that are remembered.
const ERROR_BYTES_MAX: usize = 1024;

/// How delivery to a node went lately.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Pings and sends that failed since the last send that did not.
    pub attempts: u64,
    /// What the last of them said, and when, by the wall clock, in milliseconds since 1970.
    pub last_error: Option<(String, u64)>,
    /// Shards whose next hint was tried and not taken.
    pub heads: Vec<HeadStatus>,
}

/// How often the next hint of a shard was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadStatus {
    /// The shard.
    pub shard: ShardId,
    /// The hint's queue, and the node in its keys.
    pub queue: QueueId,
    /// See `queue`.
    pub meant_for: NodeId,
    /// The hint's position there.
    pub sequence: Sequence,
    /// Sends that failed.
    pub attempts: u32,
    /// When the first of them failed, by the wall clock, in milliseconds since 1970.
    pub first_failed_unix_ms: u64,
    /// When the last of them failed.
    pub last_failed_unix_ms: u64,
}

impl Status {
    pub(crate) fn key(node: NodeId) -> [u8; 9] {
        let mut key = [KIND; 9];
        let (prefix, _) = key.split_at_mut(8);
        prefix.copy_from_slice(&node.0.to_be_bytes());
        key
    }

    /// The node whose status is under this key; `None` if it is another key.
    pub(crate) fn node_of(key: &[u8]) -> Option<NodeId> {
        let (node, kind) = key.split_first_chunk::<8>()?;
        (kind == [KIND]).then(|| NodeId(u64::from_be_bytes(*node)))
    }

    pub(crate) fn encode(&self, node: NodeId) -> Vec<u8> {
        let bounded = Status {
            attempts: self.attempts,
            last_error: self
                .last_error
                .as_ref()
                .map(|(text, at)| (shortened(text), *at)),
            heads: self.heads.iter().take(HEADS_MAX).cloned().collect(),
        };
        encode_record(&Self::key(node), VERSION, &bounded)
    }

    pub(crate) fn decode(node: NodeId, value: &[u8]) -> Result<Status, DecodeError> {
        decode_record(&Self::key(node), VERSION, value)
    }
}

fn shortened(text: &str) -> String {
    let mut bytes = 0;
    let fits = |letter: &char| {
        bytes += letter.len_utf8();
        bytes <= ERROR_BYTES_MAX
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back_bounded_and_damage_is_noticed() {
        let status = Status {
            attempts: 3,
            last_error: Some(("ä".repeat(1000), 1_700_000_000_000)),
            heads: (0..100)
                .map(|shard| HeadStatus {
                    shard: ShardId(shard),
                    queue: QueueId(1),
                    meant_for: NodeId(7),
                    sequence: Sequence(shard + 1),
                    attempts: 2,
                    first_failed_unix_ms: 5,
                    last_failed_unix_ms: 6,
                })
                .collect(),
        };
        let value = status.encode(NodeId(7));
        let back = Status::decode(NodeId(7), &value).unwrap();
        assert_eq!(back.heads, status.heads[..HEADS_MAX]);
        assert_eq!(back.last_error.unwrap().0, "ä".repeat(512));
        assert!(Status::decode(NodeId(8), &value).is_err());
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 1;
            assert!(Status::decode(NodeId(7), &damaged).is_err(), "byte {at}");
        }
        assert_eq!(Status::node_of(&Status::key(NodeId(7))), Some(NodeId(7)));
        assert_eq!(Status::node_of(&[0; 8]), None);
    }
}
