//! The keys of the tree `hh/hints`.
//!
//! ```text
//! <node> <queue> 00                      cursor
//! <node> <queue> 01 <sequence> <chunk>   a chunk of the block that begins with this sequence;
//!                                        empty: a padding key (`leaf_padding.rs`), or a chunk to
//!                                        be filled
//! <node> <queue> 02 <sequence> <chunk>   a chunk of the block that holds a dead letter
//! <node> <queue> 03 <sequence>           what became of a hint that was a dead letter
//! ```
//! Nodes, queues and sequences are u64 BE, chunks u16 BE.
//!
//! The node in a key is the one that the hint was first meant for. Big endian, so that keys sort as
//! numbers do.

use bytes::Buf;

use crate::types::{NodeId, QueueId, Sequence};

const CURSOR: u8 = 0;
const BLOCK: u8 = 1;
const LETTER_BLOCK: u8 = 2;
const LETTER: u8 = 3;
const END: u8 = u8::MAX;

/// Length of a block chunk's key.
pub const CHUNK_KEY_BYTES: usize = 27;
/// Length of a dead letter's key.
pub const LETTER_KEY_BYTES: usize = 25;
/// Length of a cursor's key.
pub const CURSOR_KEY_BYTES: usize = 17;

/// Where a queue's keys are: the node that its hints were first meant for, and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueRef {
    /// The node that its hints were first meant for.
    pub node: NodeId,
    /// Its id.
    pub queue: QueueId,
}

/// What a key of the hints tree stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Cursor(QueueRef),
    Chunk {
        queue: QueueRef,
        first: Sequence,
        chunk: u16,
    },
    LetterChunk {
        queue: QueueRef,
        sequence: Sequence,
        chunk: u16,
    },
    Letter(Place),
    Other(QueueRef),
}

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyspace {
    /// In its queue.
    Queue,
    /// Among the queue's dead letters, with one hint in it.
    Letters,
}

/// Where WAL records stand: queue ids begin at 1, so it is no node's, and behind all of them.
pub const WAL: QueueRef = QueueRef {
    node: NodeId(u64::MAX),
    queue: QueueId(0),
};

/// A hint's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The queue.
    pub queue: QueueRef,
    /// The position there.
    pub sequence: Sequence,
}

impl Place {
    /// The next one in the queue.
    pub fn next(self) -> Place {
        Place {
            sequence: Sequence(self.sequence.0.saturating_add(1)),
            ..self
        }
    }

    /// The keys of the block that holds it as a dead letter.
    pub fn block_keys(self) -> std::ops::Range<Vec<u8>> {
        let keyspace = Keyspace::Letters;
        let from = self.queue.chunk_key_in(keyspace, self.sequence, 0);
        let to = self.queue.chunk_key_in(keyspace, self.next().sequence, 0);
        from.to_vec()..to.to_vec()
    }

    /// The key of what is known of it as a dead letter.
    pub fn letter_key(self) -> [u8; LETTER_KEY_BYTES] {
        let mut key = [0; LETTER_KEY_BYTES];
        let (prefix, sequence) = key.split_at_mut(CURSOR_KEY_BYTES);
        prefix.copy_from_slice(&self.queue.prefixed(LETTER));
        sequence.copy_from_slice(&self.sequence.0.to_be_bytes());
        key
    }
}

impl QueueRef {
    fn prefixed(self, kind: u8) -> [u8; CURSOR_KEY_BYTES] {
        let mut key = [kind; CURSOR_KEY_BYTES];
        let (node, rest) = key.split_at_mut(8);
        node.copy_from_slice(&self.node.0.to_be_bytes());
        let (queue, _) = rest.split_at_mut(8);
        queue.copy_from_slice(&self.queue.0.to_be_bytes());
        key
    }

    /// The cursor's key, which is also the smallest key of the queue.
    pub fn cursor_key(self) -> [u8; CURSOR_KEY_BYTES] {
        self.prefixed(CURSOR)
    }

    /// A key above all keys of the queue that are in use.
    pub fn end_key(self) -> [u8; CURSOR_KEY_BYTES] {
        self.prefixed(END)
    }

    /// A key above all block keys of the queue, and below everything else it may hold.
    pub fn blocks_end_key(self) -> [u8; CURSOR_KEY_BYTES] {
        self.prefixed(BLOCK + 1)
    }

    /// The keys of everything that is known of its dead letters, from one of its sequences on.
    pub fn letter_keys(self, from: Sequence) -> std::ops::Range<Vec<u8>> {
        let from = Place {
            queue: self,
            sequence: from,
        };
        from.letter_key().to_vec()..self.prefixed(LETTER + 1).to_vec()
    }

    /// The key of chunk `chunk` of the block that starts at `first`.
    pub fn chunk_key(self, first: Sequence, chunk: u16) -> [u8; CHUNK_KEY_BYTES] {
        self.chunk_key_in(Keyspace::Queue, first, chunk)
    }

    /// The key of a chunk, wherever its block stands.
    pub fn chunk_key_in(
        self,
        keyspace: Keyspace,
        first: Sequence,
        chunk: u16,
    ) -> [u8; CHUNK_KEY_BYTES] {
        let kind = match keyspace {
            Keyspace::Queue => BLOCK,
            Keyspace::Letters => LETTER_BLOCK,
        };
        let mut key = [0; CHUNK_KEY_BYTES];
        let (prefix, rest) = key.split_at_mut(CURSOR_KEY_BYTES);
        prefix.copy_from_slice(&self.prefixed(kind));
        let (sequence, number) = rest.split_at_mut(8);
        sequence.copy_from_slice(&first.0.to_be_bytes());
        number.copy_from_slice(&chunk.to_be_bytes());
        key
    }
}

impl Key {
    /// Reads a key; `None` for one that is not ours.
    pub fn parse(mut bytes: &[u8]) -> Option<Key> {
        let queue = QueueRef {
            node: NodeId(bytes.try_get_u64().ok()?),
            queue: QueueId(bytes.try_get_u64().ok()?),
        };
        let key = match bytes.try_get_u8().ok()? {
            CURSOR => Key::Cursor(queue),
            BLOCK => Key::Chunk {
                queue,
                first: Sequence(bytes.try_get_u64().ok()?),
                chunk: bytes.try_get_u16().ok()?,
            },
            LETTER_BLOCK => Key::LetterChunk {
                queue,
                sequence: Sequence(bytes.try_get_u64().ok()?),
                chunk: bytes.try_get_u16().ok()?,
            },
            LETTER => Key::Letter(Place {
                queue,
                sequence: Sequence(bytes.try_get_u64().ok()?),
            }),
            _ => return Some(Key::Other(queue)),
        };
        bytes.is_empty().then_some(key)
    }

    /// The queue the key belongs to.
    pub fn queue(self) -> QueueRef {
        match self {
            Key::Cursor(queue)
            | Key::Chunk { queue, .. }
            | Key::LetterChunk { queue, .. }
            | Key::Other(queue) => queue,
            Key::Letter(place) => place.queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueRef = QueueRef {
        node: NodeId(2),
        queue: QueueId(3),
    };

    #[test]
    fn keys_are_the_documented_bytes_and_read_back() {
        let chunk = QUEUE.chunk_key(Sequence(0x0102), 0x0304);
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4,
        ];
        assert_eq!(chunk, expected);
        assert_eq!(
            Key::parse(&chunk),
            Some(Key::Chunk {
                queue: QUEUE,
                first: Sequence(0x0102),
                chunk: 0x0304
            })
        );
        assert_eq!(Key::parse(&QUEUE.cursor_key()), Some(Key::Cursor(QUEUE)));
    }

    #[test]
    fn a_queue_sorts_as_cursor_blocks_in_order_then_the_rest_then_the_next_queue() {
        let next = QueueRef {
            queue: QueueId(4),
            ..QUEUE
        };
        let sorted: [&[u8]; 7] = [
            &QUEUE.cursor_key(),
            &QUEUE.chunk_key(Sequence(1), 0),
            &QUEUE.chunk_key(Sequence(1), u16::MAX),
            &QUEUE.chunk_key(Sequence(256), 0),
            &QUEUE.blocks_end_key(),
            &QUEUE.end_key(),
            &next.cursor_key(),
        ];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn a_key_cut_anywhere_or_too_long_is_not_ours() {
        let chunk = QUEUE.chunk_key(Sequence(1), 0);
        for cut in 0..chunk.len() {
            assert_ne!(
                Key::parse(&chunk[..cut]),
                Key::parse(&chunk),
                "cut at {cut}"
            );
        }
        assert_eq!(Key::parse(&[chunk.as_slice(), &[0]].concat()), None);
    }
}
