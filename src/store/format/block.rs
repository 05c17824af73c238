//! A block: the hints of one queue that one commit group stored together. `encoder.rs` makes them.
//!
//! ```text
//! header  version u8 = 1 | header length u8 = 46 | codec u8 (0 none, 1 zstd) | flags u8
//!         (bit 0: with origins; bit 1: a WAL record, see `wal_record.rs`; bit 2: with write ids;
//!         bit 3: with lifetimes)
//!         queue u64 | first sequence u64 | hints u32 | chunks u16
//!         stored body bytes u32 | raw body bytes u32
//!         payload bytes of the queue before this block u64
//!         CRC32C over chunk 0's key, the header up to here and the stored body u32
//! body    a hint: flags u8 = 0 | payload format u16 | shard u64 | enqueue time u64 (unix ms) |
//!         length u32 | payload
//!         with origins, before the payload: queue u64,
//!         sequence u64 that it had before it was a dead letter; 0, 0 if it was none
//!         with write ids, before the payload: boot u64, counter u64 of its write; 0, 0 if it has
//!         none, since no boot is 0
//!         with lifetimes, before the payload: ms u64 from its enqueue; u64::MAX if it has none
//! ```
//! All big endian. Header and stored body, one behind the other, are cut into chunks of 16 KiB
//! under consecutive keys (docs/sled.md rule 3: no value may become a blob). Exactly `chunks` keys
//! belong to a block. The hints before a block are `first sequence - 1`, so together with the bytes
//! before it depth is known from the last block alone.

use bytes::{Buf, BufMut, Bytes};

use crate::{
    config::MAX_ENTRY_BYTES_CEILING,
    store::{
        failpoints::{Safeguard, is_off},
        format::{
            checksum::{DecodeError, checksum},
            keys::{Keyspace, QueueRef, WAL},
        },
    },
    types::{HintId, QueueId, Sequence, ShardId, StoreId, WriteId},
};

const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 46;
const CRC_BYTES: usize = 4;
/// Every hint of the block has room for an origin.
pub(crate) const WITH_ORIGINS: u8 = 1;
/// Its body has runs of hints of many queues.
pub(crate) const WITH_RUNS: u8 = 2;
/// Every hint of the block has room for the id of its write.
pub(crate) const WITH_WRITES: u8 = 4;
/// Every hint of the block has room for a lifetime.
pub(crate) const WITH_LIFETIMES: u8 = 8;
pub(crate) const CODEC_NONE: u8 = 0;
pub(crate) const CODEC_ZSTD: u8 = 1;

/// docs/sled.md rule 3: with 16 values a leaf and 8 MiB segments, 64 KiB keep every page below a
/// segment's quarter. It is a quarter of that because of rule 13: sled keeps some 16,000 pages
/// whatever it is told, so memory follows the size of values (measured: 1,000 producers 326 MiB
/// with 64 KiB, 145 MiB with 16 KiB, at the same speed).
pub const CHUNK_BYTES: usize = 16 * 1024;
/// [`CHUNK_BYTES`], unless a control wants to see what they are for.
pub fn chunk_bytes() -> usize {
    match is_off(Safeguard::Chunks) {
        true => RAW_BYTES_MAX as usize + HEADER_BYTES,
        false => CHUNK_BYTES,
    }
}

/// What a hint takes in a body beside its payload and what not every hint has.
const HINT_OVERHEAD_BYTES: usize = 23;
const ORIGIN_BYTES: usize = 16;
const WRITE_BYTES: usize = 16;
const LIFETIME_BYTES: usize = 8;
/// What stands for none.
pub(crate) const NO_LIFETIME: u64 = u64::MAX;
/// The most that a hint takes beside its payload.
pub(crate) const HINT_OVERHEAD_BYTES_MAX: usize =
    HINT_OVERHEAD_BYTES + ORIGIN_BYTES + WRITE_BYTES + LIFETIME_BYTES;
/// No block is larger than one hint of the largest size, so nothing larger is ever allocated for
/// one.
const RAW_BYTES_MAX: u64 = MAX_ENTRY_BYTES_CEILING + HINT_OVERHEAD_BYTES_MAX as u64;

/// A hint on its way into the store, or as it came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The shard it is for.
    pub shard: ShardId,
    /// The host's version of the payload's encoding.
    pub format: u16,
    /// When it was enqueued, by the wall clock, in milliseconds since 1970.
    pub enqueued_unix_ms: u64,
    /// The encoded points; of what came back, a slice of the block that was read.
    pub payload: Bytes,
    /// Where it stood before it was a dead letter, if it was.
    pub origin: Option<(QueueId, Sequence)>,
    /// The write of a [`PointsWriter`](crate::PointsWriter) that it is a copy of, if it is.
    pub write: Option<WriteId>,
    /// After so long from its enqueue it is not to be delivered any more, in milliseconds.
    pub lifetime_ms: Option<u64>,
}

impl Hint {
    /// Bytes it takes in a body, at most.
    pub fn raw_bytes(&self) -> usize {
        HINT_OVERHEAD_BYTES_MAX + self.payload.len()
    }

    /// The id that it had before it was a dead letter the first time, if it was.
    pub fn redriven_from(&self, store: StoreId) -> Option<HintId> {
        let (queue, sequence) = self.origin?;
        Some(HintId {
            store,
            queue,
            sequence,
        })
    }

    /// When its own lifetime is over, counted from its stamp.
    pub fn due_unix_ms(&self) -> Option<u64> {
        Some(self.enqueued_unix_ms.saturating_add(self.lifetime_ms?))
    }

    /// Bytes that it counts for.
    pub fn payload_bytes(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// What a block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub(crate) codec: u8,
    pub(crate) flags: u8,
    pub(crate) queue: QueueId,
    pub first: Sequence,
    pub hints: u32,
    pub chunks: u16,
    pub(crate) stored_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub bytes_before: u64,
    pub(crate) crc: u32,
}

/// A block that was read and verified.
#[derive(Debug, Clone)]
pub struct Block {
    pub queue: QueueRef,
    pub header: Header,
    pub hints: Vec<Hint>,
}

impl Header {
    /// Of hints that are in no block yet.
    pub fn in_memory(queue: QueueRef, first: Sequence, hints: u32, bytes_before: u64) -> Self {
        Header {
            codec: CODEC_NONE,
            flags: 0,
            queue: queue.queue,
            first,
            hints,
            chunks: 0,
            stored_bytes: 0,
            raw_bytes: 0,
            bytes_before,
            crc: 0,
        }
    }

    /// The last sequence of the block.
    pub fn last(&self) -> Sequence {
        Sequence(
            self.first
                .0
                .saturating_add(u64::from(self.hints))
                .saturating_sub(1),
        )
    }

    /// Payload bytes of the queue up to and including this block.
    pub fn bytes_through(&self) -> u64 {
        let overhead = u64::from(self.hints) * hint_overhead(self.flags);
        let payload = u64::from(self.raw_bytes).saturating_sub(overhead);
        self.bytes_before.saturating_add(payload)
    }

    /// The header without its checksum.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES - CRC_BYTES] {
        let mut header = [0; HEADER_BYTES - CRC_BYTES];
        let mut out = header.as_mut_slice();
        out.put_u8(VERSION);
        out.put_u8(HEADER_BYTES as u8);
        out.put_u8(self.codec);
        out.put_u8(self.flags);
        out.put_u64(self.queue.0);
        out.put_u64(self.first.0);
        out.put_u32(self.hints);
        out.put_u16(self.chunks);
        out.put_u32(self.stored_bytes);
        out.put_u32(self.raw_bytes);
        out.put_u64(self.bytes_before);
        header
    }

    /// Reads the header at the start of chunk 0 and checks that its fields fit together and fit its
    /// key. Its checksum covers the body, so only [`decode`] proves it.
    pub fn parse(queue: QueueRef, first: Sequence, chunk0: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = chunk0;
        match bytes.try_get_u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        if usize::from(bytes.try_get_u8()?) != HEADER_BYTES {
            return Err(DecodeError::Invalid("its header length is not 46"));
        }
        let (codec, flags) = (bytes.try_get_u8()?, bytes.try_get_u8()?);
        let known = match queue == WAL {
            true => flags & !(WITH_WRITES | WITH_LIFETIMES) == WITH_RUNS,
            false => flags & !(WITH_ORIGINS | WITH_WRITES | WITH_LIFETIMES) == 0,
        };
        if codec > CODEC_ZSTD || !known {
            return Err(DecodeError::Invalid("its codec or flags are unknown"));
        }
        let header = Header {
            codec,
            flags,
            queue: QueueId(bytes.try_get_u64()?),
            first: Sequence(bytes.try_get_u64()?),
            hints: bytes.try_get_u32()?,
            chunks: bytes.try_get_u16()?,
            stored_bytes: bytes.try_get_u32()?,
            raw_bytes: bytes.try_get_u32()?,
            bytes_before: bytes.try_get_u64()?,
            crc: bytes.try_get_u32()?,
        };
        header.check(queue, first)?;
        Ok(header)
    }

    /// Bounds everything before anything is allocated for it.
    fn check(&self, queue: QueueRef, first: Sequence) -> Result<(), DecodeError> {
        if self.queue != queue.queue || self.first != first || first.0 == 0 {
            return Err(DecodeError::Invalid("it belongs under another key"));
        }
        let (raw, stored) = (u64::from(self.raw_bytes), u64::from(self.stored_bytes));
        if raw > RAW_BYTES_MAX || stored > raw {
            return Err(DecodeError::Invalid("its lengths are over the limit"));
        }
        if self.hints == 0 || u64::from(self.hints) * hint_overhead(self.flags) > raw {
            return Err(DecodeError::Invalid("its hints do not fit its length"));
        }
        if first.0.checked_add(u64::from(self.hints)).is_none() {
            return Err(DecodeError::Invalid("its sequences overflow"));
        }
        let chunks = (HEADER_BYTES as u64 + stored).div_ceil(chunk_bytes() as u64);
        if u64::from(self.chunks) != chunks {
            return Err(DecodeError::Invalid("its chunks do not fit its length"));
        }
        Ok(())
    }
}

/// What each hint of a block with these flags takes in the body beside its payload.
pub fn hint_overhead(flags: u8) -> u64 {
    let mut bytes = HINT_OVERHEAD_BYTES;
    if flags & WITH_ORIGINS != 0 {
        bytes += ORIGIN_BYTES;
    }
    if flags & WITH_WRITES != 0 {
        bytes += WRITE_BYTES;
    }
    if flags & WITH_LIFETIMES != 0 {
        bytes += LIFETIME_BYTES;
    }
    bytes as u64
}

/// Verifies a block of a queue and takes it apart. `body` is what follows the header, over all
/// chunks.
pub fn decode(queue: QueueRef, header: &Header, body: &[u8]) -> Result<Vec<Hint>, DecodeError> {
    decode_in(Keyspace::Queue, queue, header, body)
}

/// The same, wherever the block stands.
pub fn decode_in(
    keyspace: Keyspace,
    queue: QueueRef,
    header: &Header,
    body: &[u8],
) -> Result<Vec<Hint>, DecodeError> {
    split_hints(verify(keyspace, queue, header, body)?, header)
}

/// Verifies a block, and decompresses its body.
pub fn verify(
    keyspace: Keyspace,
    queue: QueueRef,
    header: &Header,
    body: &[u8],
) -> Result<Bytes, DecodeError> {
    if body.len() as u64 != u64::from(header.stored_bytes) {
        return Err(DecodeError::Short {
            found: body.len(),
            wanted: header.stored_bytes as usize,
        });
    }
    let key = queue.chunk_key_in(keyspace, header.first, 0);
    let computed = checksum(&[&key, &header.encode(), body]);
    if computed != header.crc && !is_off(Safeguard::Checksums) {
        return Err(DecodeError::Checksum {
            found: header.crc,
            computed,
        });
    }
    let raw = match header.codec {
        CODEC_ZSTD => decompress(body, header.raw_bytes as usize)?,
        _ => Bytes::copy_from_slice(body),
    };
    if raw.len() != header.raw_bytes as usize {
        return Err(DecodeError::Invalid("its raw length is not what it says"));
    }
    Ok(raw)
}

/// The queue and the first sequence that a chunk 0 names, whatever its key is.
pub fn named_in(mut chunk0: &[u8]) -> Option<(QueueId, Sequence)> {
    let is_header = chunk0.try_get_u16().ok()? == u16::from(VERSION) << 8 | HEADER_BYTES as u16;
    let _codec_and_flags = chunk0.try_get_u16().ok()?;
    let named = (chunk0.try_get_u64().ok()?, chunk0.try_get_u64().ok()?);
    is_header.then_some((QueueId(named.0), Sequence(named.1)))
}

/// Where the body starts in chunk 0.
pub fn body_of_chunk0(chunk0: &[u8]) -> &[u8] {
    chunk0.get(HEADER_BYTES..).unwrap_or_default()
}

/// Takes a body apart that is not compressed any more.
pub fn split_hints(mut raw: Bytes, header: &Header) -> Result<Vec<Hint>, DecodeError> {
    // `Header::check` bounded the count by the raw length.
    let stored = take_hints(&mut raw, header.hints, header.flags)?;
    if !raw.is_empty() {
        return Err(DecodeError::Invalid("bytes are left behind its last hint"));
    }
    Ok(stored)
}

/// Takes so many hints off the front of a body that has room for them.
pub fn take_hints(raw: &mut Bytes, hints: u32, flags: u8) -> Result<Vec<Hint>, DecodeError> {
    let mut stored = Vec::with_capacity(hints as usize);
    for _ in 0..hints {
        if raw.try_get_u8()? != 0 {
            return Err(DecodeError::Invalid("a hint has unknown flags"));
        }
        let format = raw.try_get_u16()?;
        let shard = ShardId(raw.try_get_u64()?);
        let enqueued_unix_ms = raw.try_get_u64()?;
        let length = raw.try_get_u32()? as usize;
        let origin = match flags & WITH_ORIGINS {
            0 => None,
            _ => Some((QueueId(raw.try_get_u64()?), Sequence(raw.try_get_u64()?))),
        };
        let write = match flags & WITH_WRITES {
            0 => None,
            _ => Some(WriteId {
                boot: raw.try_get_u64()?,
                counter: raw.try_get_u64()?,
            }),
        };
        let lifetime_ms = match flags & WITH_LIFETIMES {
            0 => None,
            _ => Some(raw.try_get_u64()?).filter(|ms| *ms != NO_LIFETIME),
        };
        if length > raw.len() {
            return Err(DecodeError::Short {
                found: raw.len(),
                wanted: length,
            });
        }
        stored.push(Hint {
            shard,
            format,
            enqueued_unix_ms,
            payload: raw.split_to(length),
            origin: origin.filter(|(queue, _)| queue.0 != 0),
            write: write.filter(|write| write.boot != 0),
            lifetime_ms,
        });
    }
    Ok(stored)
}

fn decompress(body: &[u8], raw_bytes: usize) -> Result<Bytes, DecodeError> {
    use std::cell::RefCell;
    thread_local! {
        // One context a thread that reads, not one a node.
        static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let failed = |error: std::io::Error| DecodeError::Decompress(error.to_string());
    ZSTD.with_borrow_mut(|slot| {
        let zstd = match slot {
            Some(zstd) => zstd,
            None => slot.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
        };
        zstd.decompress(body, raw_bytes)
            .map(Bytes::from)
            .map_err(failed)
    })
}

#[cfg(test)]
mod tests;
