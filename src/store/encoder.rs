//! Making blocks: hints become a body, the body is compressed, header and body are cut into chunks.

use bytes::BufMut;

use super::{
    block::{CODEC_NONE, CODEC_ZSTD, HEADER_BYTES, Header, NewHint, WITH_ORIGINS, chunk_bytes},
    keys::{CHUNK_KEY_BYTES, Place, QueueRef, Shelf},
    sealed::checksum,
};
use crate::types::{QueueId, Sequence};

/// Level 1 gives 0.18 of line protocol; higher levels cost more time than they save in writing.
const ZSTD_LEVEL: i32 = 1;
/// Below this zstd's own frame eats what it saves.
const COMPRESS_FROM_BYTES: usize = 128;

/// A block ready to be stored: its chunks in key order.
#[derive(Debug)]
pub struct EncodedBlock {
    pub queue: QueueRef,
    pub header: Header,
    shelf: Shelf,
    /// The earliest enqueue time of its hints.
    pub oldest_unix_ms: u64,
    chunks: Vec<Vec<u8>>,
}

impl EncodedBlock {
    /// Bytes handed to the engine for it.
    pub fn bytes(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| chunk.len() + CHUNK_KEY_BYTES)
            .sum()
    }

    /// Keys and values in the order of writing: from the last chunk down, so that chunk 0, which makes the block
    /// valid, comes last.
    pub fn into_writes(self) -> impl Iterator<Item = ([u8; CHUNK_KEY_BYTES], Vec<u8>)> {
        let (shelf, queue, first) = (self.shelf, self.queue, self.header.first);
        let numbered = (0..=u16::MAX).zip(self.chunks);
        let mut writes: Vec<_> = numbered
            .map(|(number, chunk)| (queue.chunk_key_on(shelf, first, number), chunk))
            .collect();
        writes.reverse();
        writes.into_iter()
    }
}

/// Encodes blocks; keeps its zstd context and its buffers, since making a context costs 3% at group size 1.
pub struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    raw: Vec<u8>,
    compressed: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Self {
        Encoder {
            // Without a context blocks are stored as they are: larger, but right.
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(),
            raw: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Encodes `hints`, which become the sequences from `first` on, behind `bytes_before` payload bytes of the queue.
    ///
    /// The caller bounds the sum of the hints by one commit group, or gives a single hint of any allowed size.
    pub fn encode<'a>(
        &mut self,
        queue: QueueRef,
        first: Sequence,
        bytes_before: u64,
        hints: impl IntoIterator<Item = &'a NewHint, IntoIter: Clone>,
    ) -> EncodedBlock {
        self.encode_on(Shelf::Queue, queue, first, bytes_before, hints)
    }

    /// The block that holds a dead letter.
    pub fn encode_letter(&mut self, place: Place, hint: &NewHint) -> EncodedBlock {
        self.encode_on(Shelf::Letters, place.queue, place.sequence, 0, [hint])
    }

    fn encode_on<'a>(
        &mut self,
        shelf: Shelf,
        queue: QueueRef,
        first: Sequence,
        bytes_before: u64,
        hints: impl IntoIterator<Item = &'a NewHint, IntoIter: Clone>,
    ) -> EncodedBlock {
        self.raw.clear();
        let hints = hints.into_iter();
        let with_origins = hints.clone().any(|hint| hint.origin.is_some());
        let (mut count, mut oldest_unix_ms) = (0, u64::MAX);
        for hint in hints {
            count += 1;
            oldest_unix_ms = oldest_unix_ms.min(hint.enqueued_unix_ms);
            self.raw.put_u8(0);
            self.raw.put_u16(hint.format);
            self.raw.put_u64(hint.shard.0);
            self.raw.put_u64(hint.enqueued_unix_ms);
            self.raw.put_u32(hint.payload.len() as u32);
            if with_origins {
                let (queue, sequence) = hint.origin.unwrap_or((QueueId(0), Sequence(0)));
                self.raw.put_u64(queue.0);
                self.raw.put_u64(sequence.0);
            }
            self.raw.put_slice(&hint.payload);
        }
        let (codec, body) = match self.compress() {
            true => (CODEC_ZSTD, &self.compressed),
            false => (CODEC_NONE, &self.raw),
        };
        let mut header = Header {
            codec,
            flags: if with_origins { WITH_ORIGINS } else { 0 },
            queue: queue.queue,
            first,
            hints: count,
            chunks: (HEADER_BYTES + body.len()).div_ceil(chunk_bytes()) as u16,
            stored_bytes: body.len() as u32,
            raw_bytes: self.raw.len() as u32,
            bytes_before,
            crc: 0,
        };
        let head = header.encode();
        header.crc = checksum(&[&queue.chunk_key_on(shelf, first, 0), &head, body]);

        let (in_first, rest) = body.split_at(body.len().min(chunk_bytes() - HEADER_BYTES));
        let mut chunk0 = Vec::with_capacity(HEADER_BYTES + in_first.len());
        chunk0.put_slice(&head);
        chunk0.put_u32(header.crc);
        chunk0.put_slice(in_first);
        let mut chunks = vec![chunk0];
        chunks.extend(rest.chunks(chunk_bytes()).map(<[u8]>::to_vec));
        let block = EncodedBlock {
            queue,
            header,
            shelf,
            oldest_unix_ms,
            chunks,
        };
        self.give_back_after_a_large_hint();
        block
    }

    /// Whether `compressed` now holds a shorter form of `raw`.
    fn compress(&mut self) -> bool {
        let Some(zstd) = self.zstd.as_mut() else {
            return false;
        };
        if self.raw.len() < COMPRESS_FROM_BYTES {
            return false;
        }
        self.compressed.clear();
        self.compressed
            .reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        zstd.compress_to_buffer(&self.raw, &mut self.compressed)
            .is_ok_and(|length| length < self.raw.len())
    }

    fn give_back_after_a_large_hint(&mut self) {
        const KEPT_BYTES: usize = 4 * 1024 * 1024;
        for buffer in [&mut self.raw, &mut self.compressed] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}
