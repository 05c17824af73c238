//! Empty keys that have sled split its leaves before there is anything in them.
//!
//! sled splits a leaf in the middle once it has more than 16 keys, and writes both halves to its
//! log as a whole. A queue whose blocks simply follow one another has each chunk written four to
//! five times so. But a chunk that is put between two keys of a leaf that nothing will split any
//! more is written once. So before every few chunks eight empty keys are put behind the place where
//! these will stand:
//!
//! ```text
//! chunks, padding | chunks, padding | padding, last padding key of all | where sled's leaves end
//!                            ^ the next chunk goes here
//! ```
//!
//! Together with the last padding key of all, which stands at the very end of the queue's keys, the
//! 8 padding keys before them make a leaf of 9; with 8 more it has 17 and is split right behind the
//! older ones. Nothing depends on it: where other keys come between, some chunks are written twice.
//!
//! A padding key is a chunk without a chunk 0, which readers take for what a crash left of a block:
//! it is no block, and is trimmed with what stands around it. So are the other chunks of a large
//! block, whose keys are made before they are filled.

use crate::{
    store::format::{
        block::Header,
        keys::{CHUNK_KEY_BYTES, QueueRef},
    },
    types::Sequence,
};

/// Half of what sled splits.
const PADDING_KEYS: u16 = 8;
/// Chunks between padding keys. sled writes a leaf as a whole, too, instead of the tenth change to
/// it since it last did: filling and trimming so few makes eight.
const CHUNKS: u16 = 4;
/// For less than this two more keys cost more than having it written four times.
const WORTH_IT_BYTES: u32 = 4096;
/// No block has as many chunks.
const FIRST_PADDING_KEY: u16 = u16::MAX - PADDING_KEYS;

/// Until where a queue's leaves are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafPadding {
    /// What starts below this stands before the last padding keys.
    until: Sequence,
    /// Chunks that have room there.
    room: u16,
    has_last: bool,
}

impl Default for LeafPadding {
    fn default() -> Self {
        LeafPadding {
            until: Sequence(0),
            room: 0,
            has_last: false,
        }
    }
}

impl LeafPadding {
    /// The empty keys to be written before the chunks of a block, in this order.
    pub fn before(&mut self, queue: QueueRef, block: &Header) -> Vec<[u8; CHUNK_KEY_BYTES]> {
        if block.stored_bytes < WORTH_IT_BYTES {
            return Vec::new();
        }
        if block.first < self.until && block.chunks <= self.room {
            self.room -= block.chunks;
            return Vec::new();
        }
        let mut keys = Vec::with_capacity(usize::from(PADDING_KEYS) + 1);
        if !self.has_last {
            keys.push(queue.chunk_key(Sequence(u64::MAX), u16::MAX));
            self.has_last = true;
        }
        // As many blocks like this one fit; those to come may be others.
        let blocks = u64::from(CHUNKS / block.chunks.clamp(1, CHUNKS));
        let hints = u64::from(block.hints).saturating_mul(blocks);
        self.until = Sequence(block.first.0.saturating_add(hints));
        self.room = CHUNKS.saturating_sub(block.chunks);
        let last = Sequence(self.until.0.saturating_sub(1));
        keys.extend(
            (0..PADDING_KEYS).map(|number| queue.chunk_key(last, FIRST_PADDING_KEY + number)),
        );
        if block.chunks > CHUNKS {
            keys.extend((1..block.chunks).map(|chunk| queue.chunk_key(block.first, chunk)));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        store::{
            engine::generation::Engine,
            format::{block::Hint, encoder::Encoder},
        },
        types::{NodeId, QueueId, ShardId},
    };

    const QUEUE: QueueRef = QueueRef {
        node: NodeId(1),
        queue: QueueId(1),
    };

    /// Bytes that do not compress.
    fn payload(bytes: usize) -> Bytes {
        let mut payload = vec![0; bytes];
        fastrand::Rng::with_seed(1).fill(&mut payload);
        payload.into()
    }

    /// Bytes of sled's log for each byte of so many blocks of one hint each.
    fn log_bytes_per_byte(blocks: u64, payload_bytes: usize, padded: bool) -> f64 {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Arc::default()).unwrap();
        let (mut encoder, mut padding) = (Encoder::new(), LeafPadding::default());
        let hint = Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: payload(payload_bytes),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        for first in 1..=blocks {
            let block = encoder.encode(QUEUE, Sequence(first), 0, [&hint]);
            if padded {
                for key in padding.before(QUEUE, &block.header) {
                    engine.hints.0.insert(key, Vec::new()).unwrap();
                }
            }
            for (key, value) in block.into_writes() {
                engine.hints.0.insert(key, value).unwrap();
            }
            engine.commit().unwrap();
        }
        let log = dir.path().join("db").metadata().unwrap().len();
        log as f64 / (blocks * payload_bytes as u64) as f64
    }

    /// A log is some whole segments, so that there is a little more to it at these sizes; and what
    /// was written again and again is used again meanwhile, so that there is less to it than was
    /// written.
    #[test]
    fn between_padding_keys_a_chunk_is_written_once_where_it_would_be_several_times() {
        for payload_bytes in [15_000, 60_000, 600_000] {
            let blocks = 24_000_000 / payload_bytes as u64;
            let close = log_bytes_per_byte(blocks, payload_bytes, false);
            let padded = log_bytes_per_byte(blocks, payload_bytes, true);
            assert!(close > 2.0, "{payload_bytes} bytes: {close}");
            assert!(padded < 1.6, "{payload_bytes} bytes: {padded}");
        }
    }

    #[test]
    fn a_block_stands_before_the_latest_padding_whatever_blocks_come() {
        let mut padding = LeafPadding::default();
        let mut next = 1;
        let mut latest = Vec::new();
        for (hints, chunks, makes_padding) in [
            (1, 1, true),
            (1, 1, false),
            (64, 2, false),
            (1, 1, true),
            (3, 1, false),
            (500, 4, true),
            (1, 70, true),
            (9, 3, true),
            // There is no room for the last of these, though it starts before the padding keys.
            (1, 1, true),
            (1, 2, false),
            (1, 2, true),
        ] {
            let header = Header {
                codec: 0,
                flags: 0,
                queue: QUEUE.queue,
                first: Sequence(next),
                hints,
                chunks,
                stored_bytes: u32::from(chunks) * WORTH_IT_BYTES,
                raw_bytes: 0,
                bytes_before: 0,
                crc: 0,
            };
            let made = padding.before(QUEUE, &header);
            let number = |key: &[u8; CHUNK_KEY_BYTES]| u16::from_be_bytes([key[25], key[26]]);
            let keys = made.iter().filter(|key| number(key) >= FIRST_PADDING_KEY);
            let keys: Vec<_> = keys.copied().collect();
            assert_eq!(!keys.is_empty(), makes_padding, "block {next}");
            let filled_later = made.len() - keys.len();
            let is_large = makes_padding && chunks > CHUNKS;
            assert_eq!(
                filled_later,
                if is_large { usize::from(chunks) - 1 } else { 0 }
            );
            if makes_padding {
                assert!(keys.len() >= usize::from(PADDING_KEYS));
                latest = keys;
            }
            let last_chunk = QUEUE.chunk_key(Sequence(next), chunks - 1);
            assert!(latest.iter().all(|key| *key > last_chunk));
            next += u64::from(hints);
        }
    }
}
