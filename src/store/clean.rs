//! `CLEAN`: what a clean shutdown leaves, so that the next open notices if the disk gave back less than it was given.
//!
//! ```text
//! "HHCLEAN1" | next queue id u64 | queues u32
//! a queue: node u64, queue u64, next sequence u64, payload bytes before it u64,
//!          cursor u64, payload bytes below it u64, sealed u8 (0 no, 1 yes)
//! CRC32C over all of the above u32
//! ```
//! All big endian.

use bytes::{Buf, BufMut};

use super::{
    keys::QueueRef,
    sealed::{DecodeError, seal, unseal},
};
use crate::types::{NodeId, QueueId, Sequence};

const MAGIC: u64 = u64::from_be_bytes(*b"HHCLEAN1");
const ENTRY_BYTES: u64 = 49;

/// All that a clean shutdown knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// No queue id from here on was given out. Queues that are gone leave no other trace of theirs.
    pub next_queue: u64,
    /// Every queue that was not done with. One that is found and not named here was retired or removed.
    pub queues: Vec<CleanQueue>,
}

/// Where a queue stood when the store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanQueue {
    pub queue: QueueRef,
    /// The sequence that the next hint would have got.
    pub next: Sequence,
    /// Payload bytes of all hints the queue ever held.
    pub bytes: u64,
    /// The cursor.
    pub cursor: Sequence,
    /// Payload bytes of all hints below the cursor.
    pub cursor_bytes: u64,
    /// Whether it takes no new hints: an unclean stop may have lost sequences above `next`, so none is given out again.
    pub sealed: bool,
}

impl CleanQueue {
    /// A queue without any hint yet.
    pub fn begun(queue: QueueRef) -> Self {
        CleanQueue {
            queue,
            next: Sequence(1),
            bytes: 0,
            cursor: Sequence(1),
            cursor_bytes: 0,
            sealed: false,
        }
    }
}

pub fn encode(summary: &Summary) -> Vec<u8> {
    let queues = &summary.queues;
    let mut bytes = Vec::new();
    bytes.put_u64(MAGIC);
    bytes.put_u64(summary.next_queue);
    bytes.put_u32(u32::try_from(queues.len()).unwrap_or(u32::MAX));
    for entry in queues {
        bytes.put_u64(entry.queue.node.0);
        bytes.put_u64(entry.queue.queue.0);
        bytes.put_u64(entry.next.0);
        bytes.put_u64(entry.bytes);
        bytes.put_u64(entry.cursor.0);
        bytes.put_u64(entry.cursor_bytes);
        bytes.put_u8(u8::from(entry.sealed));
    }
    seal(&[], bytes)
}

pub fn decode(file: &[u8]) -> Result<Summary, DecodeError> {
    let mut bytes = unseal(&[], file)?;
    if bytes.try_get_u64()? != MAGIC {
        return Err(DecodeError::Invalid("it does not start with HHCLEAN1"));
    }
    let next_queue = bytes.try_get_u64()?;
    let entries = bytes.try_get_u32()?;
    if u64::from(entries) * ENTRY_BYTES != bytes.len() as u64 {
        return Err(DecodeError::Invalid("its length does not fit its queues"));
    }
    let queues = (0..entries)
        .map(|_| {
            Ok::<_, DecodeError>(CleanQueue {
                queue: QueueRef {
                    node: NodeId(bytes.try_get_u64()?),
                    queue: QueueId(bytes.try_get_u64()?),
                },
                next: Sequence(bytes.try_get_u64()?),
                bytes: bytes.try_get_u64()?,
                cursor: Sequence(bytes.try_get_u64()?),
                cursor_bytes: bytes.try_get_u64()?,
                sealed: match bytes.try_get_u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Invalid("whether a queue is sealed is unknown")),
                },
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Summary { next_queue, queues })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_reads_back_and_any_flipped_bit_is_noticed() {
        let queues = [1, 2].map(|id| CleanQueue {
            queue: QueueRef {
                node: NodeId(id),
                queue: QueueId(id * 10),
            },
            next: Sequence(8),
            bytes: 700,
            cursor: Sequence(3),
            cursor_bytes: 200,
            sealed: id == 1,
        });
        let summary = Summary {
            next_queue: 21,
            queues: queues.to_vec(),
        };
        let file = encode(&summary);
        assert_eq!(decode(&file).unwrap(), summary);
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        assert!(decode(&[]).is_err());
    }

    /// Found by fuzzing: any byte but 0 was taken for yes, so two files meant the same.
    #[test]
    fn a_queue_is_sealed_or_not_and_nothing_else() {
        let queue = QueueRef {
            node: NodeId(1),
            queue: QueueId(1),
        };
        let summary = Summary {
            next_queue: 2,
            queues: vec![CleanQueue {
                queue,
                next: Sequence(1),
                bytes: 0,
                cursor: Sequence(1),
                cursor_bytes: 0,
                sealed: true,
            }],
        };
        let mut bytes = unseal(&[], &encode(&summary)).unwrap().to_vec();
        assert_eq!(bytes.last(), Some(&1));
        *bytes.last_mut().unwrap() = 2;
        assert!(matches!(
            decode(&seal(&[], bytes)),
            Err(DecodeError::Invalid(_))
        ));
    }
}
