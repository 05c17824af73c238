//! A node's record in the tree `hh/nodes`: its ordered list of queues and whether it was removed.
//!
//! ```text
//! key    node u64
//! value  version u8 = 1 | state u8 (0 active, 1 removed) | flags u8 (bit 0: paused, bit 1: leaves)
//!        parked since u64 (unix ms, 0: not parked)
//!        queues u32 | a queue: node u64, queue u64, life u8 (0 live, 1 retired, 2 has dead
//!        letters)
//!        CRC32C over key and all of the above u32
//! ```
//! All big endian. A retired queue is empty or was removed; it is listed until the last of its keys
//! is trimmed, so that a crash in between cannot make it look like a queue that lost its record. A
//! queue with dead letters is listed a second time for them, and stays when it is otherwise gone.

use bytes::{Buf, BufMut};

use crate::{
    store::format::{
        checksum::{DecodeError, with_checksum, without_checksum},
        keys::QueueRef,
    },
    types::{NodeId, QueueId},
};

const VERSION: u8 = 1;
const PAUSED: u8 = 1;
const LEAVES: u8 = 2;
const ENTRY_BYTES: usize = 17;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRecord {
    /// A tombstone: the host removed the node. A new hint revives it.
    pub removed: bool,
    /// Drained in this order.
    pub live: Vec<QueueRef>,
    /// Waiting to be trimmed.
    pub retired: Vec<QueueRef>,
    /// Live, retired or gone, these have dead letters of the node.
    pub dead: Vec<QueueRef>,
    /// The host paused its replay, to last.
    pub paused: bool,
    /// The host wants it removed once nothing is pending.
    pub leaves: bool,
    /// Since when the host has said that it is not in the cluster, by the wall clock, in
    /// milliseconds since 1970.
    pub parked_since: Option<u64>,
}

impl NodeRecord {
    pub fn key(node: NodeId) -> [u8; 8] {
        node.0.to_be_bytes()
    }

    pub fn encode(&self, node: NodeId) -> Vec<u8> {
        let entries = self.live.len() + self.retired.len() + self.dead.len();
        let mut bytes = Vec::with_capacity(19 + entries * ENTRY_BYTES);
        bytes.put_u8(VERSION);
        bytes.put_u8(u8::from(self.removed));
        let paused = if self.paused { PAUSED } else { 0 };
        bytes.put_u8(paused | if self.leaves { LEAVES } else { 0 });
        bytes.put_u64(self.parked_since.unwrap_or(0));
        bytes.put_u32(u32::try_from(entries).unwrap_or(u32::MAX));
        let live = self.live.iter().map(|queue| (queue, 0));
        let retired = self.retired.iter().map(|queue| (queue, 1));
        let dead = self.dead.iter().map(|queue| (queue, 2));
        for (queue, life) in live.chain(retired).chain(dead) {
            bytes.put_u64(queue.node.0);
            bytes.put_u64(queue.queue.0);
            bytes.put_u8(life);
        }
        with_checksum(&Self::key(node), bytes)
    }

    pub fn decode(node: NodeId, value: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = without_checksum(&Self::key(node), value)?;
        let version = bytes.try_get_u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let removed = match bytes.try_get_u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("its state is unknown")),
        };
        let (flags, parked_since) = (bytes.try_get_u8()?, bytes.try_get_u64()?);
        if flags & !(PAUSED | LEAVES) != 0 {
            return Err(DecodeError::Invalid("a flag is unknown"));
        }
        let entries = bytes.try_get_u32()?;
        if u64::from(entries) * ENTRY_BYTES as u64 != bytes.len() as u64 {
            return Err(DecodeError::Invalid("its length does not fit its queues"));
        }
        let mut record = NodeRecord {
            removed,
            paused: flags & PAUSED != 0,
            leaves: flags & LEAVES != 0,
            parked_since: (parked_since != 0).then_some(parked_since),
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
                2 => record.dead.push(queue),
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
            dead: vec![queue(4), queue(1)],
            paused: true,
            leaves: true,
            parked_since: Some(1_700_000_000_000),
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
    fn another_version_is_refused() {
        let mut bytes = vec![VERSION + 1, 0, 0];
        bytes.put_u64(0);
        bytes.put_u32(0);
        let value = with_checksum(&NodeRecord::key(NodeId(1)), bytes);
        assert_eq!(
            NodeRecord::decode(NodeId(1), &value),
            Err(DecodeError::Version(VERSION + 1))
        );
    }

    #[test]
    fn a_record_that_claims_a_billion_queues_allocates_nothing() {
        let mut bytes = vec![VERSION, 0, 0];
        bytes.put_u64(0);
        bytes.put_u32(1_000_000_000);
        let value = with_checksum(&NodeRecord::key(NodeId(1)), bytes);
        assert_eq!(
            NodeRecord::decode(NodeId(1), &value),
            Err(DecodeError::Invalid("its length does not fit its queues"))
        );
    }
}
