//! Making blocks: hints become a body, the body is compressed, header and body are cut into chunks.

use bytes::{BufMut, Bytes};
use zstd::zstd_safe::CParameter;

use crate::{
    store::format::{
        block::{
            CODEC_NONE, CODEC_ZSTD, HEADER_BYTES, Header, Hint, NO_LIFETIME, WITH_LIFETIMES,
            WITH_ORIGINS, WITH_RUNS, WITH_WRITES, chunk_bytes,
        },
        checksum::checksum,
        keys::{CHUNK_KEY_BYTES, Keyspace, Place, QueueRef, WAL},
        wal_record::{WalDraft, put_run},
    },
    types::{QueueId, Sequence},
};

/// Level 1 gives 0.18 of line protocol, 0.25 where its digits are at random; higher levels cost
/// more time than they save in writing, and negative ones more in writing than they save: -1 stores
/// 1.6 times as much, -5 1.8 times.
const ZSTD_LEVEL: i32 = 1;
/// Level 1's table of matches is 64 KiB and more; one that stays in the processor's first cache is
/// 6% to 16% faster and finds as much. One of 8 KiB is 2% to 3% faster than one of 16 and its
/// blocks are up to 2% smaller; one of 4 KiB takes 3% more in large blocks.
const ZSTD_HASH_LOG: u32 = 11;
/// Below this zstd's own frame eats what it saves.
const COMPRESS_FROM_BYTES: usize = 128;

/// A block ready to be stored: its chunks in key order.
#[derive(Debug)]
pub struct EncodedBlock {
    pub queue: QueueRef,
    pub header: Header,
    keyspace: Keyspace,
    chunks: Vec<Box<[u8]>>,
    /// What was compressed, if it is to be read soon.
    pub body: Option<Bytes>,
}

impl EncodedBlock {
    /// Bytes handed to the engine for it.
    pub fn bytes(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| chunk.len() + CHUNK_KEY_BYTES)
            .sum()
    }

    /// Keys and values in the order of writing: from the last chunk down, so that chunk 0, which
    /// makes the block valid, comes last.
    pub fn into_writes(self) -> impl Iterator<Item = ([u8; CHUNK_KEY_BYTES], Box<[u8]>)> {
        let (keyspace, queue, first) = (self.keyspace, self.queue, self.header.first);
        let numbered = (0..=u16::MAX).zip(self.chunks);
        let mut writes: Vec<_> = numbered
            .map(|(number, chunk)| (queue.chunk_key_in(keyspace, first, number), chunk))
            .collect();
        writes.reverse();
        writes.into_iter()
    }
}

/// Encodes blocks; keeps its zstd context and its buffers, since making a context costs 3% at group
/// size 1.
///
/// Both buffers begin with room for the header, so that the chunks are cut out of one of them as
/// they are.
pub struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    raw: Vec<u8>,
    /// Never shorter than what was compressed before: only its beginning counts.
    compressed: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Self {
        Encoder {
            // Without a context blocks are stored as they are: larger, but right.
            zstd: compressor().ok(),
            raw: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Encodes `hints`, which become the sequences from `first` on, behind `bytes_before` payload
    /// bytes of the queue.
    ///
    /// The caller bounds the sum of the hints by one commit group, or gives a single hint of any
    /// allowed size.
    pub fn encode<'a>(
        &mut self,
        queue: QueueRef,
        first: Sequence,
        bytes_before: u64,
        hints: impl IntoIterator<Item = &'a Hint, IntoIter: Clone>,
    ) -> EncodedBlock {
        self.encode_in(Keyspace::Queue, queue, first, bytes_before, hints)
    }

    /// The block that holds a dead letter.
    pub fn encode_letter(&mut self, place: Place, hint: &Hint) -> EncodedBlock {
        self.encode_in(Keyspace::Letters, place.queue, place.sequence, 0, [hint])
    }

    /// A WAL record.
    pub fn encode_wal(&mut self, draft: &WalDraft) -> EncodedBlock {
        self.begin();
        // Not origins: a group that brings a dead letter back has no WAL record.
        let all = draft.runs.iter().flat_map(|run| &run.hints);
        let flags = WITH_RUNS | (fields_of(all) & (WITH_WRITES | WITH_LIFETIMES));
        for run in &draft.runs {
            put_run(&mut self.raw, run);
            run.hints.iter().for_each(|hint| self.put(hint, flags));
        }
        let hints = draft.hints() as u32;
        self.finish(Keyspace::Queue, WAL, draft.first, 0, hints, flags)
    }

    fn encode_in<'a>(
        &mut self,
        keyspace: Keyspace,
        queue: QueueRef,
        first: Sequence,
        bytes_before: u64,
        hints: impl IntoIterator<Item = &'a Hint, IntoIter: Clone>,
    ) -> EncodedBlock {
        self.begin();
        let hints = hints.into_iter();
        let flags = fields_of(hints.clone());
        let mut count = 0;
        for hint in hints {
            count += 1;
            self.put(hint, flags);
        }
        self.finish(keyspace, queue, first, bytes_before, count, flags)
    }

    fn begin(&mut self) {
        self.raw.clear();
        self.raw.resize(HEADER_BYTES, 0);
    }

    fn put(&mut self, hint: &Hint, flags: u8) {
        self.raw.put_u8(0);
        self.raw.put_u16(hint.format);
        self.raw.put_u64(hint.shard.0);
        self.raw.put_u64(hint.enqueued_unix_ms);
        self.raw.put_u32(hint.payload.len() as u32);
        if flags & WITH_ORIGINS != 0 {
            let (queue, sequence) = hint.origin.unwrap_or((QueueId(0), Sequence(0)));
            self.raw.put_u64(queue.0);
            self.raw.put_u64(sequence.0);
        }
        if flags & WITH_WRITES != 0 {
            let (boot, counter) = hint.write.map_or((0, 0), |it| (it.boot, it.counter));
            self.raw.put_u64(boot);
            self.raw.put_u64(counter);
        }
        if flags & WITH_LIFETIMES != 0 {
            self.raw.put_u64(hint.lifetime_ms.unwrap_or(NO_LIFETIME));
        }
        self.raw.put_slice(&hint.payload);
    }

    /// Makes a block of what was put down.
    fn finish(
        &mut self,
        keyspace: Keyspace,
        queue: QueueRef,
        first: Sequence,
        bytes_before: u64,
        hints: u32,
        flags: u8,
    ) -> EncodedBlock {
        let raw_bytes = self.raw.len() - HEADER_BYTES;
        let (codec, stored) = match self.compress() {
            Some(length) => (CODEC_ZSTD, self.compressed.get_mut(..HEADER_BYTES + length)),
            None => (CODEC_NONE, Some(self.raw.as_mut_slice())),
        };
        let stored = stored.unwrap_or_default();
        let stored_bytes = stored.len().saturating_sub(HEADER_BYTES);
        let mut header = Header {
            codec,
            flags,
            queue: queue.queue,
            first,
            hints,
            chunks: stored.len().div_ceil(chunk_bytes()) as u16,
            stored_bytes: stored_bytes as u32,
            raw_bytes: raw_bytes as u32,
            bytes_before,
            crc: 0,
        };
        let head = header.encode();
        if let Some((room, body)) = stored.split_at_mut_checked(HEADER_BYTES) {
            header.crc = checksum(&[&queue.chunk_key_in(keyspace, first, 0), &head, body]);
            let mut room = room;
            room.put_slice(&head);
            room.put_u32(header.crc);
        }
        let chunks = stored.chunks(chunk_bytes()).map(Box::from).collect();
        let block = EncodedBlock {
            queue,
            header,
            keyspace,
            chunks,
            body: None,
        };
        self.give_back_after_a_large_hint();
        block
    }

    /// The body of the block that was encoded last, as it was before it was compressed; `None` if
    /// that was a large one.
    pub fn body(&self, header: &Header) -> Option<Bytes> {
        let body = self.raw.get(HEADER_BYTES..)?;
        let is_there = body.len() == header.raw_bytes as usize;
        is_there.then(|| Bytes::copy_from_slice(body))
    }

    /// The length of a shorter form of `raw`'s body, which stands in `compressed` then.
    fn compress(&mut self) -> Option<usize> {
        let body = self.raw.get(HEADER_BYTES..)?;
        if body.len() < COMPRESS_FROM_BYTES {
            return None;
        }
        let most = HEADER_BYTES + zstd::zstd_safe::compress_bound(body.len());
        if self.compressed.len() < most {
            self.compressed.resize(most, 0);
        }
        let room = self.compressed.get_mut(HEADER_BYTES..)?;
        let compressed = self.zstd.as_mut()?.compress_to_buffer(body, room);
        compressed.ok().filter(|length| *length < body.len())
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

/// Which fields any of these hints needs beside those that every hint has.
fn fields_of<'a>(hints: impl IntoIterator<Item = &'a Hint>) -> u8 {
    hints.into_iter().fold(0, |flags, hint| {
        let origin = hint.origin.map_or(0, |_| WITH_ORIGINS);
        let lifetime = hint.lifetime_ms.map_or(0, |_| WITH_LIFETIMES);
        flags | origin | lifetime | hint.write.map_or(0, |_| WITH_WRITES)
    })
}

fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    zstd.set_parameter(CParameter::HashLog(ZSTD_HASH_LOG))?;
    Ok(zstd)
}
