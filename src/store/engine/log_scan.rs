//! Reading sled's log past damage: what is intact in it, record by record, whether sled would find
//! it or not.
//!
//! sled stops reading a segment at the first record that fails its checksum, wipes what stands
//! behind one in the last segment, and opens nothing at all if a page that it needs is gone. But
//! each record has a checksum of its own, so what stands behind a damaged one can be found again by
//! looking for the next that passes. Keys and values come out in the order in which they were
//! written, so of several values for a key the last is the newest. Removals are not told: whoever
//! asks knows what is done with.
//!
//! The format is that of sled 0.34.7 (`pagecache/logger.rs`, `serialization.rs`, `node.rs`):
//!
//! ```text
//! segment  header | messages | zeros, or what an earlier use left
//! header   CRC32 ^ ffffffff u32 | lsn ^ 7fff… i64 | highest stable lsn ^ 7fff… i64
//!          little endian
//! message  CRC32 u32 LE | kind u8 | body length | segment number | page | body
//!          numbers in 1 to 9 bytes, see `take_number`
//!          the checksum covers the body, then kind to page, inverted
//! node     next | merging child | merging u8 | prefix length u8 | lo | hi |
//!          leaf 0 or index 1 u8 | entries | keys | values
//! link     set 0 u8 | key | value; removal 1 u8 | key; others are of no use here
//!          byte strings after their length
//! ```
//! Keys in a node, and in a link to it, lack the prefix, which are the first bytes of the node's
//! `lo`.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::{error::StorageError, store::bounds::SEGMENT_BYTES};

pub const SEGMENT_HEADER_BYTES: usize = 20;
/// sled begins no message closer to a segment's end than this.
pub(super) const MESSAGE_HEADER_MAX: usize = 32;

pub(super) const CAP: u8 = 2;
pub(super) const MANIFEST: u8 = 3;
pub(super) const NODE: u8 = 8;
pub(super) const LINK: u8 = 10;
const KINDS: std::ops::RangeInclusive<u8> = 1..=11;

/// A message whose checksum is right.
pub struct Message<'a> {
    pub at: usize,
    pub end: usize,
    pub(super) kind: u8,
    pub(super) segment: u64,
    pub(super) page: u64,
    pub(super) body: &'a [u8],
}

/// A segment's place in the file and its number in the order of writing.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub offset: u64,
    /// `None` if its header is damaged.
    pub number: Option<u64>,
    /// All of the log below this was on disk when the segment was begun, sled thinks.
    pub highest_stable: u64,
}

/// Calls `each` with every key and value that is intact, oldest first. Stops at the first error
/// that it returns.
pub fn scan(
    log: &Path,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    scan_log(log, |_, key, value| each(key, value))
        .map_err(|error| StorageError::new("read the damaged log", error))?
}

/// The same, with the message that each stands in. The inner error is that of `each`.
pub(super) fn scan_log<E>(
    log: &Path,
    mut each: impl FnMut(&Message<'_>, &[u8], &[u8]) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let file = File::open(log)?;
    let (mut buffer, mut prefixes) = (Vec::new(), Prefixes::new());
    // A link comes after the node that it belongs to, so segments are gone through in the order of
    // their numbers.
    for (number, offset) in in_order(&file)? {
        read_segment(&file, offset, &mut buffer)?;
        let scanned = scan_segment(&buffer, number, &mut prefixes, &mut each);
        if scanned.is_err() {
            return Ok(scanned);
        }
    }
    Ok(Ok(()))
}

/// Number and offset of every segment with anything in it, in the order of writing. One whose
/// header is damaged has the number of what stands in it.
pub(super) fn in_order(file: &File) -> io::Result<BTreeSet<(u64, u64)>> {
    let mut order = BTreeSet::new();
    let mut buffer = Vec::new();
    for segment in segments(file)? {
        let number = match segment.number {
            Some(number) => Some(number),
            None => {
                read_segment(file, segment.offset, &mut buffer)?;
                // What an earlier use left has a lower number.
                messages(&buffer, None).map(|found| found.segment).max()
            }
        };
        if let Some(number) = number {
            order.insert((number, segment.offset));
        }
    }
    Ok(order)
}

/// By page, the bytes that its keys lack.
pub type Prefixes = HashMap<u64, Vec<u8>>;

/// Calls `each` with what is intact in one segment, and the message that it stands in.
pub fn scan_segment<E>(
    segment: &[u8],
    number: u64,
    prefixes: &mut Prefixes,
    mut each: impl FnMut(&Message<'_>, &[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    for message in messages(segment, Some(number)) {
        match message.kind {
            NODE => {
                let Some(node) = TreeNode::parse(message.body) else {
                    continue;
                };
                for (key, value) in &node.entries {
                    each(&message, &[node.prefix, key].concat(), value)?;
                }
                prefixes.insert(message.page, node.prefix.to_vec());
            }
            LINK => {
                if let (Some(prefix), Some((key, value))) =
                    (prefixes.get(&message.page), set(message.body))
                {
                    each(&message, &[prefix, key].concat(), value)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Every segment that the file has room for, in the order of the file.
pub fn segments(file: &File) -> io::Result<Vec<Segment>> {
    let length = file.metadata()?.len();
    let mut found = Vec::new();
    for offset in (0..length).step_by(SEGMENT_BYTES) {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let whole = length - offset >= SEGMENT_HEADER_BYTES as u64;
        if whole {
            file.read_exact_at(&mut header, offset)?;
        }
        let (number, highest_stable) = match parse_segment_header(&header) {
            Some((lsn, stable)) => (Some(lsn / SEGMENT_BYTES as u64), stable),
            None => (None, 0),
        };
        found.push(Segment {
            offset,
            number,
            highest_stable,
        });
    }
    Ok(found)
}

/// The log sequence number of the segment's first byte, and the highest that was stable when it was
/// begun.
fn parse_segment_header(header: &[u8; SEGMENT_HEADER_BYTES]) -> Option<(u64, u64)> {
    let (crc, rest) = header.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc) ^ u32::MAX != crc32fast::hash(rest) {
        return None;
    }
    let (lsn, rest) = rest.split_first_chunk::<8>()?;
    let (stable, _) = rest.split_first_chunk::<8>()?;
    let plain = |bytes: &[u8; 8]| u64::try_from(i64::from_le_bytes(*bytes) ^ i64::MAX);
    let lsn = plain(lsn)
        .ok()
        .filter(|lsn| lsn.is_multiple_of(SEGMENT_BYTES as u64))?;
    Some((lsn, plain(stable).unwrap_or(0)))
}

pub fn read_segment(file: &File, offset: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(SEGMENT_BYTES, 0);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// The messages of a segment that pass their checksum, in order, whatever stands between them. Ends
/// at the cap, which stands behind the last message of a full segment.
pub fn messages(segment: &[u8], number: Option<u64>) -> impl Iterator<Item = Message<'_>> {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut capped = false;
    std::iter::from_fn(move || {
        while !capped {
            // The file may end with a message that is shorter than that.
            if at + MESSAGE_HEADER_MAX > SEGMENT_BYTES {
                return None;
            }
            if let Some(message) = message_at(segment, at, number) {
                at = message.end;
                capped = message.kind == CAP;
                return Some(message);
            }
            at += 1;
            // Nothing begins in zeros: the kind is the fifth byte of a message and no zero.
            let kind_at = at + 4;
            let zeros = segment.get(kind_at..)?.iter().position(|byte| *byte != 0)?;
            at += zeros;
        }
        None
    })
}

/// The message at this place, if its checksum is right and its segment is `number`, where that is
/// given.
pub fn message_at(segment: &[u8], at: usize, number: Option<u64>) -> Option<Message<'_>> {
    let message = segment.get(at..)?;
    let (crc, header) = message.split_first_chunk::<4>()?;
    let (&kind, mut rest) = header.split_first()?;
    if !KINDS.contains(&kind) {
        return None;
    }
    let length = usize::try_from(take_number(&mut rest)?).ok()?;
    let its_segment = take_number(&mut rest)?;
    if number.is_some_and(|number| number != its_segment) {
        return None;
    }
    let page = take_number(&mut rest)?;
    let body = rest.get(..length)?;
    let header = header.get(..header.len() - rest.len())?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(header);
    if hasher.finalize() ^ u32::MAX != u32::from_le_bytes(*crc) {
        return None;
    }
    Some(Message {
        at,
        end: at + 4 + header.len() + length,
        kind,
        segment: its_segment,
        page,
        body,
    })
}

/// A leaf: the keys that it is there for, from `lo` on and below `hi` (an empty one is no bound),
/// the prefix that its keys lack, and its entries.
pub(super) struct TreeNode<'a> {
    /// The page of the leaf with the keys from `hi` on.
    pub(super) next: Option<u64>,
    pub(super) lo: &'a [u8],
    pub(super) hi: &'a [u8],
    pub(super) prefix: &'a [u8],
    pub(super) entries: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> TreeNode<'a> {
    /// `None` for an index, which holds no values, and for what is no node.
    pub(super) fn parse(mut body: &'a [u8]) -> Option<TreeNode<'a>> {
        let next = take_number(&mut body)?;
        let _merging_child = take_number(&mut body)?;
        let (&[_merging, prefix_bytes], rest) = body.split_first_chunk::<2>()?;
        body = rest;
        let lo = take_bytes(&mut body)?;
        let hi = take_bytes(&mut body)?;
        let (&kind, rest) = body.split_first()?;
        body = rest;
        if kind != 0 {
            return None;
        }
        let entries = take_number(&mut body)?;
        // Every key takes a byte at least.
        let keys = (0..entries.min(body.len() as u64))
            .map(|_| take_bytes(&mut body))
            .collect::<Option<Vec<_>>>()?;
        let values = keys
            .iter()
            .map(|_| take_bytes(&mut body))
            .collect::<Option<Vec<_>>>()?;
        Some(TreeNode {
            next: (next != 0).then_some(next),
            lo,
            hi,
            prefix: lo.get(..usize::from(prefix_bytes))?,
            entries: keys.into_iter().zip(values).collect(),
        })
    }
}

/// Key and value of a link that sets one.
pub(super) fn set(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0, mut body) = body.split_first().map(|(kind, rest)| (*kind, rest))? else {
        return None;
    };
    Some((take_bytes(&mut body)?, take_bytes(&mut body)?))
}

/// The key of a link that removes one.
pub(super) fn removed(body: &[u8]) -> Option<&[u8]> {
    let (1, mut body) = body.split_first().map(|(kind, rest)| (*kind, rest))? else {
        return None;
    };
    take_bytes(&mut body)
}

/// A message with the right checksum, which no fuzzer finds by itself. Of numbers only small ones
/// are of use here.
#[cfg(feature = "internals")]
pub fn message(kind: u8, segment: u8, page: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let header = [&[kind, 251], length.as_slice(), &[segment, page]].concat();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&header);
    let crc = (hasher.finalize() ^ u32::MAX).to_le_bytes();
    [crc.as_slice(), &header, body].concat()
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

/// Numbers up to 240 are one byte, up to 2,287 two, up to 67,823 three; larger ones a byte that
/// tells their length, then that many bytes, little endian.
fn take_number(from: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = from.split_first()?;
    let (number, rest) = match first {
        0..=240 => (u64::from(first), rest),
        241..=248 => {
            let (&second, rest) = rest.split_first()?;
            (
                240 + 256 * (u64::from(first) - 241) + u64::from(second),
                rest,
            )
        }
        249 => {
            let (&[second, third], rest) = rest.split_first_chunk::<2>()?;
            (2288 + 256 * u64::from(second) + u64::from(third), rest)
        }
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first) - 247)?;
            let number = bytes
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte));
            (number, rest)
        }
    };
    *from = rest;
    Some(number)
}

#[cfg(test)]
mod tests;
