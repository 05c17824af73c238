//! `CLEAN`: what a clean shutdown leaves, so that the next open notices if the disk gave back less
//! than it was given.
//!
//! ```text
//! "HHCLEAN1" | store id, 16 bytes | next queue id u64 | queues u32 | queues with dead letters u32
//! a queue: node u64, queue u64, drained for node u64, next sequence u64,
//!     payload bytes before it u64, cursor u64, payload bytes below it u64,
//!     closed u8 (0 no, 1 yes)
//! a queue with dead letters: node u64, queue u64, kept for node u64, dead letters u64,
//!     payload bytes of them u64, first sequence u64, last sequence u64 (they stand between)
//! CRC32C over all of the above u32
//! ```
//! All big endian. The first node is the one in the queue's keys.
//!
//! A summary that names another store tells nothing of this one: a directory may have been
//! exchanged under the one that wrote it.

use bytes::{Buf, BufMut};

use crate::{
    store::format::{
        checksum::{DecodeError, with_checksum, without_checksum},
        dead_letter_count::LetterTally,
        keys::QueueRef,
    },
    types::{Amount, NodeId, QueueId, Sequence, StoreId},
};

const MAGIC: u64 = u64::from_be_bytes(*b"HHCLEAN1");
/// What a summary that names no store would have; it is never written.
const NO_STORE: StoreId = StoreId([0; 16]);
const QUEUE_BYTES: u64 = 57;
const LETTERS_BYTES: u64 = 56;

/// All that a clean shutdown knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Whose it is. `None` in memory alone, for a generation that is being made: nothing is in it.
    pub store: Option<StoreId>,
    /// No queue id from here on was given out. Queues that are gone leave no other trace of theirs.
    pub next_queue: u64,
    /// Every queue that was not done with, those of a node in its order. One that is found and not
    /// named here was retired or removed.
    pub queues: Vec<CleanQueue>,
    /// Every queue that has dead letters, or what points to hints that were some.
    pub letters: Vec<CleanLetters>,
}

/// Where a queue stood when the store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanQueue {
    pub queue: QueueRef,
    /// The node that it is drained for.
    pub node: NodeId,
    /// The sequence that the next hint would have got.
    pub next: Sequence,
    /// Payload bytes of all hints the queue ever held.
    pub bytes: u64,
    /// The cursor.
    pub cursor: Sequence,
    /// Payload bytes of all hints below the cursor.
    pub cursor_bytes: u64,
    /// Whether it takes no new hints: an unclean stop may have lost sequences above `next`, so none
    /// is given out again.
    pub closed: bool,
}

/// What a queue held of dead letters when the store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanLetters {
    pub queue: QueueRef,
    /// The node that lists them.
    pub node: NodeId,
    pub tally: LetterTally,
}

impl Summary {
    /// Whether it says that it is of another store.
    pub fn is_of_another(&self, store: StoreId) -> bool {
        self.store.is_some_and(|named| named != store)
    }
}

impl CleanQueue {
    /// A queue of a node without any hint yet.
    pub fn begun(node: NodeId, queue: QueueRef) -> Self {
        CleanQueue {
            queue,
            node,
            next: Sequence(1),
            bytes: 0,
            cursor: Sequence(1),
            cursor_bytes: 0,
            closed: false,
        }
    }
}

fn count(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}

pub fn encode(summary: &Summary) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(MAGIC);
    bytes.put_slice(&summary.store.unwrap_or(NO_STORE).0);
    bytes.put_u64(summary.next_queue);
    bytes.put_u32(count(summary.queues.len()));
    bytes.put_u32(count(summary.letters.len()));
    for entry in &summary.queues {
        bytes.put_u64(entry.queue.node.0);
        bytes.put_u64(entry.queue.queue.0);
        bytes.put_u64(entry.node.0);
        bytes.put_u64(entry.next.0);
        bytes.put_u64(entry.bytes);
        bytes.put_u64(entry.cursor.0);
        bytes.put_u64(entry.cursor_bytes);
        bytes.put_u8(u8::from(entry.closed));
    }
    for CleanLetters { queue, node, tally } in &summary.letters {
        bytes.put_u64(queue.node.0);
        bytes.put_u64(queue.queue.0);
        bytes.put_u64(node.0);
        bytes.put_u64(tally.amount.hints);
        bytes.put_u64(tally.amount.bytes);
        bytes.put_u64(tally.first.0);
        bytes.put_u64(tally.last.0);
    }
    with_checksum(&[], bytes)
}

pub fn decode(file: &[u8]) -> Result<Summary, DecodeError> {
    let mut bytes = without_checksum(&[], file)?;
    if bytes.try_get_u64()? != MAGIC {
        return Err(DecodeError::Invalid("it does not start with HHCLEAN1"));
    }
    let store = StoreId(bytes.try_get_u128()?.to_be_bytes());
    if store == NO_STORE {
        return Err(DecodeError::Invalid("it names no store"));
    }
    let next_queue = bytes.try_get_u64()?;
    let (queues, letters) = (bytes.try_get_u32()?, bytes.try_get_u32()?);
    let wanted = u64::from(queues) * QUEUE_BYTES + u64::from(letters) * LETTERS_BYTES;
    if wanted != bytes.len() as u64 {
        return Err(DecodeError::Invalid("its length does not fit its queues"));
    }
    let queues = (0..queues).map(|_| decode_queue(&mut bytes));
    let queues = queues.collect::<Result<_, _>>()?;
    let letters = (0..letters).map(|_| decode_letters(&mut bytes));
    Ok(Summary {
        store: Some(store),
        next_queue,
        queues,
        letters: letters.collect::<Result<_, _>>()?,
    })
}

fn decode_at(bytes: &mut &[u8]) -> Result<QueueRef, DecodeError> {
    Ok(QueueRef {
        node: NodeId(bytes.try_get_u64()?),
        queue: QueueId(bytes.try_get_u64()?),
    })
}

fn decode_queue(bytes: &mut &[u8]) -> Result<CleanQueue, DecodeError> {
    Ok(CleanQueue {
        queue: decode_at(bytes)?,
        node: NodeId(bytes.try_get_u64()?),
        next: Sequence(bytes.try_get_u64()?),
        bytes: bytes.try_get_u64()?,
        cursor: Sequence(bytes.try_get_u64()?),
        cursor_bytes: bytes.try_get_u64()?,
        closed: match bytes.try_get_u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("whether a queue is closed is unknown")),
        },
    })
}

fn decode_letters(bytes: &mut &[u8]) -> Result<CleanLetters, DecodeError> {
    Ok(CleanLetters {
        queue: decode_at(bytes)?,
        node: NodeId(bytes.try_get_u64()?),
        tally: LetterTally {
            amount: Amount {
                hints: bytes.try_get_u64()?,
                bytes: bytes.try_get_u64()?,
            },
            first: Sequence(bytes.try_get_u64()?),
            last: Sequence(bytes.try_get_u64()?),
            ..LetterTally::none()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(node: u64, queue: u64) -> QueueRef {
        QueueRef {
            node: NodeId(node),
            queue: QueueId(queue),
        }
    }

    #[test]
    fn a_summary_reads_back_and_any_flipped_bit_is_noticed() {
        let queues = [1, 2].map(|id| CleanQueue {
            queue: queue(id, id * 10),
            node: NodeId(2),
            next: Sequence(8),
            bytes: 700,
            cursor: Sequence(3),
            cursor_bytes: 200,
            closed: id == 1,
        });
        let mut tally = LetterTally::none();
        let one = Amount { hints: 1, bytes: 7 };
        tally.add(Sequence(4), one);
        tally.add(Sequence(2), one);
        let letters = [tally, LetterTally::none()].map(|tally| CleanLetters {
            queue: queue(1, 10),
            node: NodeId(3),
            tally,
        });
        let summary = Summary {
            store: Some(StoreId([7; 16])),
            next_queue: 21,
            queues: queues.to_vec(),
            letters: letters.to_vec(),
        };
        let file = encode(&summary);
        assert_eq!(decode(&file).unwrap(), summary);
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        for cut in 0..file.len() {
            assert!(decode(&file[..cut]).is_err(), "cut {cut}");
        }
    }

    #[test]
    fn another_layout_and_a_summary_of_no_store_are_refused() {
        let refused = |change: fn(&mut Vec<u8>)| {
            let summary = Summary {
                store: Some(StoreId([7; 16])),
                ..Summary::default()
            };
            let mut bytes = without_checksum(&[], &encode(&summary)).unwrap().to_vec();
            change(&mut bytes);
            decode(&with_checksum(&[], bytes)).unwrap_err()
        };
        let magic = refused(|bytes| bytes[7] = b'2');
        assert_eq!(
            magic,
            DecodeError::Invalid("it does not start with HHCLEAN1")
        );
        let store = refused(|bytes| bytes[8..24].fill(0));
        assert_eq!(store, DecodeError::Invalid("it names no store"));
    }

    #[test]
    fn what_claims_more_than_it_holds_allocates_nothing() {
        for (queues, letters) in [(u32::MAX, 0), (0, u32::MAX)] {
            let mut bytes = Vec::new();
            bytes.put_u64(MAGIC);
            bytes.put_u128(7);
            bytes.put_u64(1);
            bytes.put_u32(queues);
            bytes.put_u32(letters);
            assert_eq!(
                decode(&with_checksum(&[], bytes)),
                Err(DecodeError::Invalid("its length does not fit its queues"))
            );
        }
    }

    /// Found by fuzzing: any byte but 0 was taken for yes, so two files meant the same.
    #[test]
    fn a_queue_is_closed_or_not_and_nothing_else() {
        let closed = CleanQueue {
            closed: true,
            ..CleanQueue::begun(NodeId(1), queue(1, 1))
        };
        let summary = Summary {
            store: Some(StoreId([7; 16])),
            next_queue: 2,
            queues: vec![closed],
            letters: Vec::new(),
        };
        let mut bytes = without_checksum(&[], &encode(&summary)).unwrap().to_vec();
        assert_eq!(bytes.last(), Some(&1));
        *bytes.last_mut().unwrap() = 2;
        assert!(matches!(
            decode(&with_checksum(&[], bytes)),
            Err(DecodeError::Invalid(_))
        ));
    }
}
