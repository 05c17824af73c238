//! Reading blocks back from the hints tree.

use bytes::Bytes;

use super::{
    block::{self, CHUNK_BYTES, Header, StoredHint},
    draft::Draft,
    keys::{Key, Place, QueueRef, Shelf},
    mixed::{MIXED, split_runs},
    sealed::DecodeError,
};
use crate::types::Sequence;

/// A block that was read and verified.
#[derive(Debug, Clone)]
pub struct Block {
    pub queue: QueueRef,
    pub header: Header,
    pub hints: Vec<StoredHint>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed; this says nothing about the block.
    #[error("the engine failed to read a block")]
    Engine(#[from] sled::Error),
    /// There is no such block, or it is not what was written.
    #[error("a block is damaged: {0}")]
    Damaged(DecodeError),
}

/// Reads the block that starts at `first`; `None` if there is none.
pub fn read(
    hints: &sled::Tree,
    queue: QueueRef,
    first: Sequence,
) -> Result<Option<Block>, ReadError> {
    read_on(hints, Shelf::Queue, queue, first)
}

/// Reads the dead letter that stood at `place`; `None` if its block is not there.
pub fn read_letter(hints: &sled::Tree, place: Place) -> Result<Option<StoredHint>, ReadError> {
    let block = read_on(hints, Shelf::Letters, place.queue, place.sequence)?;
    Ok(block.and_then(|mut block| block.hints.pop()))
}

fn read_on(
    hints: &sled::Tree,
    shelf: Shelf,
    queue: QueueRef,
    first: Sequence,
) -> Result<Option<Block>, ReadError> {
    let Some((header, raw)) = read_raw(hints, shelf, queue, first)? else {
        return Ok(None);
    };
    let hints = block::split_hints(raw, &header).map_err(ReadError::Damaged)?;
    Ok(Some(Block {
        queue,
        header,
        hints,
    }))
}

/// Reads the mixed group that starts at `first`, `None` if there is none.
pub fn read_mixed(
    hints: &sled::Tree,
    first: Sequence,
) -> Result<Option<(Header, Vec<Draft>)>, ReadError> {
    let Some((header, raw)) = read_raw(hints, Shelf::Queue, MIXED, first)? else {
        return Ok(None);
    };
    let runs = split_runs(raw, &header).map_err(ReadError::Damaged)?;
    Ok(Some((header, runs)))
}

/// Reads and verifies a block whose hints are still to be taken apart.
fn read_raw(
    hints: &sled::Tree,
    shelf: Shelf,
    queue: QueueRef,
    first: Sequence,
) -> Result<Option<(Header, Bytes)>, ReadError> {
    let Some(chunk0) = hints.get(queue.chunk_key_on(shelf, first, 0))? else {
        return Ok(None);
    };
    let header = Header::parse(queue, first, &chunk0).map_err(ReadError::Damaged)?;
    let in_first = block::body_of_chunk0(&chunk0);
    let raw = if header.chunks == 1 {
        block::verify(shelf, queue, &header, in_first)
    } else {
        let mut body = Vec::with_capacity(usize::from(header.chunks) * CHUNK_BYTES);
        body.extend_from_slice(in_first);
        for chunk in 1..header.chunks {
            // A missing chunk leaves the body short, which decoding reports.
            if let Some(value) = hints.get(queue.chunk_key_on(shelf, first, chunk))? {
                body.extend_from_slice(&value);
            }
        }
        block::verify(shelf, queue, &header, &body)
    };
    Ok(Some((header, raw.map_err(ReadError::Damaged)?)))
}

/// Reads the block that `sequence` stands in. A sequence in no block is damage: there are no gaps.
pub fn read_covering(
    hints: &sled::Tree,
    queue: QueueRef,
    sequence: Sequence,
) -> Result<Block, ReadError> {
    // Mostly the sequence asked for is the first one behind the block read before.
    if let Some(block) = read(hints, queue, sequence)? {
        return Ok(block);
    }
    if let Some(first) = last_start(hints, queue, sequence)?
        && let Some(block) = read(hints, queue, first)?
        && block.header.last() >= sequence
    {
        return Ok(block);
    }
    Err(ReadError::Damaged(DecodeError::Invalid(
        "no block holds the sequence",
    )))
}

/// The highest start of a block that is at most `upto`. Chunks without a chunk 0 are leftovers of a crash and no block.
pub fn last_start(
    hints: &sled::Tree,
    queue: QueueRef,
    upto: Sequence,
) -> Result<Option<Sequence>, sled::Error> {
    let from = queue.chunk_key(Sequence(0), 0);
    let mut chunks = hints.range(from..=queue.chunk_key(upto, u16::MAX));
    while let Some(entry) = chunks.next_back() {
        if let Some(Key::Chunk {
            first, chunk: 0, ..
        }) = Key::parse(&entry?.0)
        {
            return Ok(Some(first));
        }
    }
    Ok(None)
}

/// The highest of a queue's dead letters that has any chunk of a block, below a sequence. One seek, however large it is.
pub fn last_letter_block(
    hints: &sled::Tree,
    queue: QueueRef,
    below: Option<Sequence>,
) -> Result<Option<Place>, sled::Error> {
    let from = queue.chunk_key_on(Shelf::Letters, Sequence(0), 0).to_vec();
    let to = match below {
        Some(below) => queue.chunk_key_on(Shelf::Letters, below, 0).to_vec(),
        None => queue.letter_keys(Sequence(0)).start,
    };
    let Some((key, _)) = hints.range(from..to).next_back().transpose()? else {
        return Ok(None);
    };
    Ok(match Key::parse(&key) {
        Some(Key::LetterChunk {
            queue, sequence, ..
        }) => Some(Place { queue, sequence }),
        _ => None,
    })
}

/// The starts of the queue's blocks from `from` on, in order.
pub fn starts(
    hints: &sled::Tree,
    queue: QueueRef,
    from: Sequence,
) -> impl Iterator<Item = Result<Sequence, sled::Error>> + use<> {
    let (from, end) = (queue.chunk_key(from, 0), queue.blocks_end_key());
    let chunks = hints.range::<&[u8], _>(from.as_slice()..end.as_slice());
    chunks.filter_map(|entry| match entry {
        Ok((key, _)) => match Key::parse(&key) {
            Some(Key::Chunk {
                first, chunk: 0, ..
            }) => Some(Ok(first)),
            _ => None,
        },
        Err(error) => Some(Err(error)),
    })
}
