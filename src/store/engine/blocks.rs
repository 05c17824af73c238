//! Reading blocks back from the hints tree.

use crate::{
    store::{
        engine::table::{self, IVec, Table},
        format::{
            block::{self, Block, CHUNK_BYTES, Header, Hint},
            checksum::DecodeError,
            keys::{Key, Keyspace, Place, QueueRef, WAL},
            run::Draft,
            wal_record::split_runs,
        },
    },
    types::Sequence,
};
use bytes::Bytes;

pub const NO_BLOCK: DecodeError = DecodeError::Invalid("no block holds the sequence");

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed; this says nothing about the block.
    #[error("the engine failed to read a block")]
    Engine(#[from] table::Error),
    /// There is no such block, or it is not what was written.
    #[error("a block is damaged: {0}")]
    Damaged(DecodeError),
}

/// Reads the block that starts at `first`; `None` if there is none.
pub fn read(hints: &Table, queue: QueueRef, first: Sequence) -> Result<Option<Block>, ReadError> {
    read_in(hints, Keyspace::Queue, queue, first)
}

/// Reads the dead letter that stood at `place`; `None` if its block is not there.
pub fn read_letter(hints: &Table, place: Place) -> Result<Option<Hint>, ReadError> {
    let block = read_in(hints, Keyspace::Letters, place.queue, place.sequence)?;
    Ok(block.and_then(|mut block| block.hints.pop()))
}

fn read_in(
    hints: &Table,
    keyspace: Keyspace,
    queue: QueueRef,
    first: Sequence,
) -> Result<Option<Block>, ReadError> {
    let stored = fetch(hints, keyspace, queue, first)?;
    let block = stored.map(|stored| stored.open()).transpose();
    block.map_err(ReadError::Damaged)
}

/// Reads the WAL record that starts at `first`, `None` if there is none.
pub fn read_wal_record(
    hints: &Table,
    first: Sequence,
) -> Result<Option<(Header, Vec<Draft>)>, ReadError> {
    let Some(stored) = fetch(hints, Keyspace::Queue, WAL, first)? else {
        return Ok(None);
    };
    let raw = stored.verify().map_err(ReadError::Damaged)?;
    let runs = split_runs(raw, &stored.header).map_err(ReadError::Damaged)?;
    Ok(Some((stored.header, runs)))
}

/// A block as it is stored: nothing of it is verified but that its header fits its key.
pub struct Stored {
    keyspace: Keyspace,
    queue: QueueRef,
    pub header: Header,
    /// What follows the header, over all chunks; a missing chunk leaves it short, which verifying
    /// reports.
    body: Body,
}

enum Body {
    /// Behind the header in chunk 0.
    InChunk0(IVec),
    Joined(Vec<u8>),
}

impl Stored {
    /// Verifies it, and decompresses its body.
    fn verify(&self) -> Result<Bytes, DecodeError> {
        let body = match &self.body {
            Body::InChunk0(chunk0) => block::body_of_chunk0(chunk0),
            Body::Joined(body) => body,
        };
        block::verify(self.keyspace, self.queue, &self.header, body)
    }

    /// Verifies it and takes it apart.
    pub fn open(&self) -> Result<Block, DecodeError> {
        Ok(Block {
            queue: self.queue,
            header: self.header,
            hints: block::split_hints(self.verify()?, &self.header)?,
        })
    }
}

/// Takes a block out of the tree as it is.
fn fetch(
    hints: &Table,
    keyspace: Keyspace,
    queue: QueueRef,
    first: Sequence,
) -> Result<Option<Stored>, ReadError> {
    let Some(chunk0) = hints.get(queue.chunk_key_in(keyspace, first, 0))? else {
        return Ok(None);
    };
    let header = Header::parse(queue, first, &chunk0).map_err(ReadError::Damaged)?;
    let body = if header.chunks == 1 {
        Body::InChunk0(chunk0)
    } else {
        let mut body = Vec::with_capacity(usize::from(header.chunks) * CHUNK_BYTES);
        body.extend_from_slice(block::body_of_chunk0(&chunk0));
        for chunk in 1..header.chunks {
            if let Some(value) = hints.get(queue.chunk_key_in(keyspace, first, chunk))? {
                body.extend_from_slice(&value);
            }
        }
        Body::Joined(body)
    };
    Ok(Some(Stored {
        keyspace,
        queue,
        header,
        body,
    }))
}

/// The block of a queue that starts at `first`, as it is stored; `None` if there is none.
pub fn fetch_starting(
    hints: &Table,
    queue: QueueRef,
    first: Sequence,
) -> Result<Option<Stored>, ReadError> {
    fetch(hints, Keyspace::Queue, queue, first)
}

/// Reads the block that `sequence` stands in. A sequence in no block is damage: there are no gaps.
pub fn read_covering(
    hints: &Table,
    queue: QueueRef,
    sequence: Sequence,
) -> Result<Block, ReadError> {
    let stored = fetch_covering(hints, queue, sequence)?;
    stored.open().map_err(ReadError::Damaged)
}

/// The same, as it is stored.
pub fn fetch_covering(
    hints: &Table,
    queue: QueueRef,
    sequence: Sequence,
) -> Result<Stored, ReadError> {
    // Mostly the sequence asked for is the first one behind the block read before.
    if let Some(stored) = fetch_starting(hints, queue, sequence)? {
        return Ok(stored);
    }
    if let Some(first) = last_start(hints, queue, sequence)?
        && let Some(stored) = fetch_starting(hints, queue, first)?
        && stored.header.last() >= sequence
    {
        return Ok(stored);
    }
    Err(ReadError::Damaged(NO_BLOCK))
}

/// The highest start of a block that is at most `upto`. Chunks without a chunk 0 are leftovers of a
/// crash and no block.
pub fn last_start(
    hints: &Table,
    queue: QueueRef,
    upto: Sequence,
) -> table::Result<Option<Sequence>> {
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

/// The highest of a queue's dead letters that has any chunk of a block, below a sequence. One seek,
/// however large it is.
pub fn last_letter_block(
    hints: &Table,
    queue: QueueRef,
    below: Option<Sequence>,
) -> table::Result<Option<Place>> {
    let from = queue
        .chunk_key_in(Keyspace::Letters, Sequence(0), 0)
        .to_vec();
    let to = match below {
        Some(below) => queue.chunk_key_in(Keyspace::Letters, below, 0).to_vec(),
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
    hints: &Table,
    queue: QueueRef,
    from: Sequence,
) -> impl Iterator<Item = table::Result<Sequence>> + use<> {
    let (from, end) = (queue.chunk_key(from, 0), queue.blocks_end_key());
    let chunks = hints.range(from.as_slice()..end.as_slice());
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
