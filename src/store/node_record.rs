//! A node's record in the tree `hh/nodes`: its ordered list of queues and whether it was removed.
//!
//! ```text
//! key    node u64
//! value  version u8 = 1 | state u8 (0 active, 1 removed) | queues u32
//!        a queue: node u64, queue u64, life u8 (0 live, 1 retired)
//!        CRC32C over key and all of the above u32
//! ```
//! All big endian. A retired queue is empty or was removed; it is listed until the last of its keys is trimmed, so that
//! a crash in between cannot make it look like a queue that lost its record.

use bytes::{Buf, BufMut};

use super::{
    keys::QueueRef,
    sealed::{DecodeError, seal, unseal},
};
use crate::types::{NodeId, QueueId};

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 17;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRecord {
    /// A tombstone: the host removed the node. A new hint revives it.
    pub removed: bool,
    /// Drained in this order.
    pub live: Vec<QueueRef>,
    /// Waiting to be trimmed.
    pub retired: Vec<QueueRef>,
}

impl NodeRecord {
    pub fn key(node: NodeId) -> [u8; 8] {
        node.0.to_be_bytes()
    }

    pub fn encode(&self, node: NodeId) -> Vec<u8> {
        let entries = self.live.len() + self.retired.len();
        let mut bytes = Vec::with_capacity(10 + entries * ENTRY_BYTES);
        bytes.put_u8(VERSION);
        bytes.put_u8(u8::from(self.removed));
        bytes.put_u32(u32::try_from(entries).unwrap_or(u32::MAX));
        let live = self.live.iter().map(|queue| (queue, 0));
        let retired = self.retired.iter().map(|queue| (queue, 1));
        for (queue, life) in live.chain(retired) {
            bytes.put_u64(queue.node.0);
            bytes.put_u64(queue.queue.0);
            bytes.put_u8(life);
        }
        seal(&Self::key(node), bytes)
    }

    pub fn decode(node: NodeId, value: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = unseal(&Self::key(node), value)?;
        match bytes.try_get_u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let removed = match bytes.try_get_u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("its state is unknown")),
        };
        let entries = bytes.try_get_u32()?;
        if u64::from(entries) * ENTRY_BYTES as u64 != bytes.len() as u64 {
            return Err(DecodeError::Invalid("its length does not fit its queues"));
        }
        let mut record = NodeRecord {
            removed,
            ..NodeRecord::default()
        };
        for _ in 0..entries {
            let queue = QueueRef {
                node: NodeId(bytes.try_get_u64()?),
                queue: QueueId(bytes.try_get_u64()?),
            };
            match bytes.try_get_u8()? {
                0 => record.live.push(queue),
                1 => record.retired.push(queue),
                _ => return Err(DecodeError::Invalid("the life of a queue is unknown")),
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_damage_anywhere_is_noticed() {
        let queue = |queue| QueueRef {
            node: NodeId(1),
            queue: QueueId(queue),
        };
        let record = NodeRecord {
            removed: true,
            live: vec![queue(4), queue(9)],
            retired: vec![queue(2)],
        };
        let value = record.encode(NodeId(1));
        assert_eq!(NodeRecord::decode(NodeId(1), &value), Ok(record));
        assert!(NodeRecord::decode(NodeId(2), &value).is_err());
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                NodeRecord::decode(NodeId(1), &flipped).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_record_that_claims_a_billion_queues_allocates_nothing() {
        let mut bytes = vec![VERSION, 0];
        bytes.put_u32(1_000_000_000);
        let value = seal(&NodeRecord::key(NodeId(1)), bytes);
        assert_eq!(
            NodeRecord::decode(NodeId(1), &value),
            Err(DecodeError::Invalid("its length does not fit its queues"))
        );
    }
}
