//! Blocks, found chunk by chunk.

use std::{collections::BTreeMap, io, path::Path};

use bytes::Bytes;

use crate::{
    error::StorageError,
    store::{
        engine::{
            log_scan,
            log_tree::{LogTree, Range},
        },
        format::{
            chunks::Chunks,
            keys::{Key, Keyspace, Place, QueueRef},
        },
    },
    types::Sequence,
};

/// What copies of blocks are held at once that were looked for in the log. Tests have few bytes.
const COPIES_BYTES: usize = match cfg!(test) {
    true => 256 * 1024,
    false => 64 * 1024 * 1024,
};

/// The blocks of a queue in order, as they are stored.
#[derive(Debug)]
pub struct BlockStream<'a> {
    chunks: Range<'a>,
    next: Option<(Sequence, u16, Bytes)>,
}

impl<'a> BlockStream<'a> {
    /// From the block on that starts at `from` or behind.
    pub fn new(tree: &'a LogTree, queue: QueueRef, from: Sequence) -> BlockStream<'a> {
        BlockStream {
            chunks: tree.range(&queue.chunk_key(from, 0), &queue.blocks_end_key()),
            next: None,
        }
    }

    fn next_chunk(&mut self) -> io::Result<Option<(Sequence, u16, Bytes)>> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        for entry in self.chunks.by_ref() {
            let (key, value) = entry?;
            // A padding key is no chunk.
            if let Some(Key::Chunk { first, chunk, .. }) = Key::parse(&key)
                && !value.is_empty()
            {
                return Ok(Some((first, chunk, value)));
            }
        }
        Ok(None)
    }

    /// The next block: where it starts, and what there is of it.
    pub fn next_block(&mut self) -> io::Result<Option<(Sequence, Chunks)>> {
        let Some((first, chunk, value)) = self.next_chunk()? else {
            return Ok(None);
        };
        let mut chunks = Chunks::default();
        chunks.insert(chunk, value);
        while let Some((start, chunk, value)) = self.next_chunk()? {
            if start != first {
                self.next = Some((start, chunk, value));
                break;
            }
            chunks.insert(chunk, value);
        }
        Ok(Some((first, chunks)))
    }
}

/// The block of a dead letter, as it is stored; `None` if nothing is.
pub fn letter_block(tree: &LogTree, place: Place) -> io::Result<Option<Chunks>> {
    let keys = place.block_keys();
    let mut chunks = Chunks::default();
    for entry in tree.range(&keys.start, &keys.end) {
        let (key, value) = entry?;
        if let Some(Key::LetterChunk { chunk, .. }) = Key::parse(&key)
            && !value.is_empty()
        {
            chunks.insert(chunk, value);
        }
    }
    Ok((!chunks.is_empty()).then_some(chunks))
}

/// The highest start of a block of a queue below `end`.
pub fn last_start(tree: &LogTree, queue: QueueRef, end: &[u8]) -> io::Result<Option<Sequence>> {
    let is_start = |key: &[u8], value: &[u8]| {
        matches!(Key::parse(key), Some(Key::Chunk { chunk: 0, .. })) && !value.is_empty()
    };
    let last = tree.last(&queue.chunk_key(Sequence(0), 0), end, is_start)?;
    Ok(match last.and_then(|key| Key::parse(&key)) {
        Some(Key::Chunk { first, .. }) => Some(first),
        _ => None,
    })
}

/// Copies of blocks that were looked for.
#[derive(Debug)]
pub struct Copies {
    /// By where they start.
    pub blocks: BTreeMap<Sequence, Chunks>,
    /// Of blocks that start behind this there may be others.
    pub through: Sequence,
}

/// Looks in the whole log for copies of a queue's blocks that start from `low` on and not behind
/// `high`, whether sled would find them or not: a block is written once under its key, so any copy
/// is right. If they are more than is held at once, those around and behind `next` come first.
pub fn copies(
    log: &Path,
    keyspace: Keyspace,
    queue: QueueRef,
    (low, next, high): (Sequence, Sequence, Sequence),
) -> Result<Copies, StorageError> {
    let mut found = Copies {
        blocks: BTreeMap::new(),
        through: high,
    };
    let mut bytes = 0_usize;
    log_scan::scan(log, |key, value| {
        let (at, first, chunk) = match (keyspace, Key::parse(key)) {
            (
                Keyspace::Queue,
                Some(Key::Chunk {
                    queue,
                    first,
                    chunk,
                }),
            ) => (queue, first, chunk),
            (
                Keyspace::Letters,
                Some(Key::LetterChunk {
                    queue,
                    sequence,
                    chunk,
                }),
            ) => (queue, sequence, chunk),
            _ => return Ok(()),
        };
        if at != queue || value.is_empty() || !(low..=found.through).contains(&first) {
            return Ok(());
        }
        let block = found.blocks.entry(first).or_default();
        let copy = Bytes::copy_from_slice(value);
        // Damage may have left copies of different lengths.
        let replaced = block.insert(chunk, copy);
        bytes = bytes.saturating_sub(replaced.map_or(0, |it| it.len()));
        bytes = bytes.saturating_add(value.len());
        while bytes > COPIES_BYTES && found.blocks.len() > 1 {
            let second = found.blocks.keys().nth(1);
            // The first ends before the second starts: nothing of it is asked for.
            let is_done_with = second.is_some_and(|second| *second <= next);
            let dropped = match is_done_with {
                true => found.blocks.pop_first(),
                false => found.blocks.pop_last(),
            };
            let Some((first, chunks)) = dropped else {
                break;
            };
            bytes = bytes.saturating_sub(chunks.bytes());
            if !is_done_with {
                found.through = Sequence(first.0.saturating_sub(1));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests;
