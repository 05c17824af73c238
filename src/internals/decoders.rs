//! The decoders of what is on disk by themselves, for the fuzz targets in `fuzz/`.
//!
//! Each takes bytes as a disk may give them back and returns what it read encoded again, or why it
//! refused. All records end in a checksum that no fuzzer finds by itself, so there is a way to put
//! it on, too.

use std::cell::RefCell;

use bytes::Bytes;

use super::{Hint, Place, QueueRef};
use crate::{
    store::formats::{
        CHUNK_BYTES, Cursor, EncodedBlock, Encoder, Header, Keyspace, Letter, NodeRecord, Prefixes,
        WAL, WalDraft, body_of_chunk0, checksum, decode_clean, decode_mark, decode_meta,
        encode_clean, encode_loss_again, encode_mark, message, scan_segment, split_hints,
        split_runs, verify, with_checksum,
    },
    types::{NodeId, Sequence},
};

/// The records of the tree `hh/meta`.
pub const META_RECORDS: [&str; 3] = ["schema", "store", "next_queue"];

const CHECKSUM_BYTES: usize = 4;
/// Where a block's fields are, as `store/format/block.rs` spells them out.
const CHUNKS: std::ops::Range<usize> = 24..26;
const STORED_BYTES: std::ops::Range<usize> = 26..30;
const CRC: std::ops::Range<usize> = 42..46;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A cursor, encoded again.
///
/// # Errors
/// Why it was refused.
pub fn cursor(queue: QueueRef, value: &[u8]) -> Result<Vec<u8>, String> {
    let cursor = Cursor::decode(queue, value).map_err(text)?;
    Ok(cursor.encode(queue))
}

/// A node's record, encoded again: queues in use first, retired ones behind
/// them, then those with dead letters.
///
/// # Errors
/// Why it was refused.
pub fn node_record(node: NodeId, value: &[u8]) -> Result<Vec<u8>, String> {
    let record = NodeRecord::decode(node, value).map_err(text)?;
    Ok(record.encode(node))
}

/// What is known of a dead letter, encoded again.
///
/// # Errors
/// Why it was refused.
pub fn letter(place: Place, value: &[u8]) -> Result<Vec<u8>, String> {
    let letter = Letter::decode(place, value).map_err(text)?;
    Ok(letter.encode(place))
}

/// A record of the loss journal, encoded again.
///
/// # Errors
/// Why it was refused.
pub fn loss(key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
    encode_loss_again(key, value).map_err(text)
}

/// A mark of applied hints, encoded again.
///
/// # Errors
/// Why it was refused.
pub fn mark(key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
    let number = decode_mark(key, value).map_err(text)?;
    Ok(with_checksum(key, encode_mark(number)))
}

/// One of [`META_RECORDS`], encoded again.
///
/// # Errors
/// Why it was refused.
pub fn meta(record: &'static str, value: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = match record {
        "schema" => decode_meta::<4>(record, value).map(Vec::from),
        "store" => decode_meta::<16>(record, value).map(Vec::from),
        _ => decode_meta::<8>(record, value).map(Vec::from),
    };
    Ok(with_checksum(record.as_bytes(), bytes.map_err(text)?))
}

/// A `CLEAN` file, encoded again.
///
/// # Errors
/// Why it was refused.
pub fn clean(file: &[u8]) -> Result<Vec<u8>, String> {
    let summary = decode_clean(file).map_err(text)?;
    Ok(encode_clean(&summary))
}

/// Puts the right checksum over `key` and `record` in place of the record's last four bytes.
pub fn checksum_again(key: &[u8], record: &[u8]) -> Vec<u8> {
    let kept = record.len().saturating_sub(CHECKSUM_BYTES);
    with_checksum(key, record.iter().copied().take(kept).collect())
}

/// What is found in a segment of sled's log that holds these bytes: as they are, then as the body
/// of a node and as that of a link to it, both with the right checksum. Returns keys with their
/// values.
pub fn log(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    const SEGMENT: u8 = 3;
    let header = vec![0; 20];
    let (node, link) = (
        message(8, SEGMENT, 1, bytes),
        message(10, SEGMENT, 1, bytes),
    );
    // Behind the last message there is room for a header.
    let segment = [header, bytes.to_vec(), node, link, vec![0; 64]].concat();
    let mut found = Vec::new();
    let scanned = scan_segment(
        &segment,
        u64::from(SEGMENT),
        &mut Prefixes::new(),
        |_, key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok::<(), std::convert::Infallible>(())
        },
    );
    match scanned {
        Ok(()) => found,
    }
}

/// A block that was verified and taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its hints.
    pub hints: Vec<Hint>,
    /// The sequence of the last of them.
    pub last: Sequence,
    /// Payload bytes of the queue before it.
    pub bytes_before: u64,
    /// Payload bytes of the queue up to its end.
    pub bytes_through: u64,
}

/// A block from the values of its keys in order. As in the store, values behind its last chunk are
/// not looked at and one that is missing leaves it short.
///
/// # Errors
/// Why it was refused.
pub fn block<C: AsRef<[u8]>>(
    queue: QueueRef,
    first: Sequence,
    chunks: &[C],
) -> Result<Block, String> {
    let (header, raw) = verified(queue, first, chunks)?;
    Ok(Block {
        hints: split_hints(raw, &header).map_err(text)?,
        last: header.last(),
        bytes_before: header.bytes_before,
        bytes_through: header.bytes_through(),
    })
}

/// A WAL record from the values of its keys in order, encoded again.
///
/// # Errors
/// Why it was refused.
pub fn wal_record<C: AsRef<[u8]>>(first: Sequence, chunks: &[C]) -> Result<Vec<Vec<u8>>, String> {
    let (header, raw) = verified(WAL, first, chunks)?;
    let runs = split_runs(raw, &header).map_err(text)?;
    let draft = WalDraft { first, runs };
    Ok(values(Encoder::new().encode_wal(&draft)))
}

/// What a block says of itself, and its body.
fn verified<C: AsRef<[u8]>>(
    queue: QueueRef,
    first: Sequence,
    chunks: &[C],
) -> Result<(Header, Bytes), String> {
    let chunk0 = chunks.first().ok_or("there is no chunk 0")?.as_ref();
    let header = Header::parse(queue, first, chunk0).map_err(text)?;
    let mut body = body_of_chunk0(chunk0).to_vec();
    let rest = chunks.iter().take(header.chunks.into()).skip(1);
    rest.for_each(|chunk| body.extend_from_slice(chunk.as_ref()));
    let raw = verify(Keyspace::Queue, queue, &header, &body).map_err(text)?;
    Ok((header, raw))
}

/// The values of a block in the order of its keys.
fn values(block: EncodedBlock) -> Vec<Vec<u8>> {
    let mut values: Vec<_> = block
        .into_writes()
        .map(|(_, value)| value.to_vec())
        .collect();
    values.reverse();
    values
}

/// The values of a block of `hints` in the order of their keys.
pub fn encode_block(
    queue: QueueRef,
    first: Sequence,
    bytes_before: u64,
    hints: &[Hint],
) -> Vec<Vec<u8>> {
    thread_local! {
        static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
    }
    values(ENCODER.with_borrow_mut(|encoder| encoder.encode(queue, first, bytes_before, hints)))
}

/// Header and body, one behind the other, as they are cut into the values of a block's keys.
pub fn cut(block: &[u8]) -> Vec<&[u8]> {
    block.chunks(CHUNK_BYTES).collect()
}

/// Puts the right checksum into a block that is not cut yet, and the right stored length and number
/// of chunks, which nobody guesses either. One that is shorter than a header is left as it is.
pub fn checksum_block_again(queue: QueueRef, first: Sequence, block: &mut [u8]) {
    let stored = block.len().saturating_sub(CRC.end);
    let chunks = block.len().div_ceil(CHUNK_BYTES);
    let mut put = |field: std::ops::Range<usize>, bytes: &[u8]| {
        if let Some(field) = block.get_mut(field) {
            field.copy_from_slice(bytes);
        }
    };
    put(CHUNKS, &(chunks as u16).to_be_bytes());
    put(STORED_BYTES, &(stored as u32).to_be_bytes());
    let Some((header, body)) = block.split_at_checked(CRC.end) else {
        return;
    };
    let (header, _) = header.split_at(CRC.start);
    let crc = checksum(&[&queue.chunk_key(first, 0), header, body]);
    if let Some(field) = block.get_mut(CRC) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueId, ShardId};

    const QUEUE: QueueRef = QueueRef {
        node: NodeId(2),
        queue: QueueId(3),
    };

    /// Or the targets would fuzz nothing but the checksum.
    #[test]
    fn what_is_checksummed_here_is_what_the_store_takes() {
        let checksummed = Cursor::start().encode(QUEUE);
        let mut spoilt = checksummed.clone();
        spoilt.splice(checksummed.len() - CHECKSUM_BYTES.., [0; CHECKSUM_BYTES]);
        assert!(cursor(QUEUE, &spoilt).is_err());
        assert_eq!(checksum_again(&QUEUE.cursor_key(), &spoilt), checksummed);
        assert_eq!(cursor(QUEUE, &checksummed), Ok(checksummed));

        for (record, length) in META_RECORDS.into_iter().zip([4, 16, 8]) {
            let value = with_checksum(record.as_bytes(), vec![7; length]);
            assert_eq!(meta(record, &value), Ok(value));
        }

        let mut random = fastrand::Rng::with_seed(1);
        let mut hint = |length| Hint {
            shard: ShardId(7),
            format: 1,
            enqueued_unix_ms: 1,
            payload: (0..length).map(|_| random.u8(..)).collect(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let hints = [hint(100_000), hint(1)];
        let stored = encode_block(QUEUE, Sequence(5), 9, &hints);
        assert!(stored.len() > 1, "of several chunks");
        let mut value = stored.concat();
        for field in [CHUNKS, STORED_BYTES, CRC] {
            value[field].fill(0);
        }
        assert!(block(QUEUE, Sequence(5), &cut(&value)).is_err());
        checksum_block_again(QUEUE, Sequence(5), &mut value);
        assert_eq!(cut(&value), stored);
        let read = block(QUEUE, Sequence(5), &stored).unwrap();
        assert_eq!((read.hints.len(), read.last), (2, Sequence(6)));
        assert_eq!((read.bytes_before, read.bytes_through), (9, 100_010));
    }
}
