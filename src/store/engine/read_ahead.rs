//! Reading several blocks of a queue at once, half of them decoded on a second thread.
//!
//! Decoding is what takes longest when a long backlog is replayed, and fetching tells where the
//! next block starts, so all that a reader may want is fetched first.

use std::{collections::VecDeque, ops::RangeInclusive, panic::resume_unwind, thread};

use crate::{
    store::{
        engine::{
            blocks::{self, ReadError, Stored},
            table::Table,
        },
        format::{block::Block, checksum::DecodeError, keys::QueueRef},
    },
    types::Sequence,
};

/// Read at once, but for a first block that is larger, whatever more a reader may want: it keeps
/// what it does not take.
const AHEAD_BYTES: u64 = 1024 * 1024;
/// Half of it takes long enough for starting a thread.
const TWO_FROM_BYTES: u64 = 256 * 1024;

/// Reads the block that the first of these sequences stands in, and those that follow: up to the
/// last of these, and so many hints and bytes.
///
/// # Errors
/// As [`read_covering`](blocks::read_covering), for the first block; before any other that does not
/// read it ends.
pub fn read(
    hints: &Table,
    queue: QueueRef,
    sequences: RangeInclusive<Sequence>,
    most_hints: usize,
    most_bytes: u64,
) -> Result<VecDeque<Block>, ReadError> {
    let first = blocks::fetch_covering(hints, queue, *sequences.start())?;
    let mut left_hints = (most_hints as u64).saturating_sub(first.header.hints.into());
    let mut left_bytes = most_bytes
        .min(AHEAD_BYTES)
        .saturating_sub(first.header.raw_bytes.into());
    let mut next = Sequence(first.header.last().0.saturating_add(1));
    let mut stored = vec![first];
    // What cannot be fetched now is asked for again when it comes first.
    while next <= *sequences.end()
        && let Ok(Some(following)) = blocks::fetch_starting(hints, queue, next)
    {
        let header = &following.header;
        let left = (
            left_hints.checked_sub(header.hints.into()),
            left_bytes.checked_sub(header.raw_bytes.into()),
        );
        let (Some(hints), Some(bytes)) = left else {
            break;
        };
        (left_hints, left_bytes) = (hints, bytes);
        next = Sequence(header.last().0.saturating_add(1));
        stored.push(following);
    }
    let mut blocks = VecDeque::with_capacity(stored.len());
    for block in open_all(&stored) {
        match block {
            Ok(block) => blocks.push_back(block),
            Err(error) if blocks.is_empty() => return Err(ReadError::Damaged(error)),
            Err(_) => break,
        }
    }
    Ok(blocks)
}

/// Decodes all, in order.
fn open_all(stored: &[Stored]) -> Vec<Result<Block, DecodeError>> {
    let open = |stored: &[Stored]| -> Vec<_> { stored.iter().map(Stored::open).collect() };
    let bytes = || stored.iter().map(|it| u64::from(it.header.raw_bytes));
    let (all, mut before) = (bytes().sum::<u64>(), 0);
    let is_half = |bytes| {
        before += bytes;
        before >= all / 2
    };
    let half = bytes().position(is_half).map_or(0, |last| last + 1);
    if all < TWO_FROM_BYTES || half == stored.len() {
        return open(stored);
    }
    let (front, back) = stored.split_at(half);
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("hh-decode".to_owned());
        let second = thread.spawn_scoped(scope, || open(back));
        let mut blocks = open(front);
        blocks.extend(match second.map(|it| it.join()) {
            Ok(Ok(blocks)) => blocks,
            Ok(Err(panic)) => resume_unwind(panic),
            // There is no thread to be had.
            Err(_) => open(back),
        });
        blocks
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::format::{block::Hint, encoder::Encoder},
        types::{NodeId, QueueId, ShardId},
    };

    const QUEUE: QueueRef = QueueRef {
        node: NodeId(1),
        queue: QueueId(2),
    };
    const HINT_BYTES: usize = 30_000;
    const ALL: RangeInclusive<Sequence> = Sequence(1)..=Sequence(80);

    /// Blocks of ten hints: three of them come to less than is read at once, and two to enough for
    /// a second thread.
    fn filled() -> (tempfile::TempDir, Table) {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        let mut encoder = Encoder::new();
        for first in (1..80).step_by(10) {
            let hint = |sequence: u64| Hint {
                shard: ShardId(1),
                format: 0,
                enqueued_unix_ms: 0,
                payload: vec![sequence as u8; HINT_BYTES].into(),
                origin: None,
                write: None,
                lifetime_ms: None,
            };
            let hints: Vec<_> = (first..first + 10).map(hint).collect();
            let before = (first - 1) * HINT_BYTES as u64;
            let block = encoder.encode(QUEUE, Sequence(first), before, &hints);
            for (key, value) in block.into_writes() {
                db.insert(key, value).unwrap();
            }
        }
        (dir, Table((*db).clone()))
    }

    /// Where the blocks that are read begin; each is whole.
    fn read_from(
        tree: &Table,
        sequences: RangeInclusive<Sequence>,
        hints: usize,
        bytes: u64,
    ) -> Option<Vec<u64>> {
        let blocks = read(tree, QUEUE, sequences, hints, bytes).ok()?;
        for block in &blocks {
            assert_eq!((block.queue, block.hints.len()), (QUEUE, 10));
            for (sequence, hint) in (block.header.first.0..).zip(&block.hints) {
                assert_eq!(hint.payload, vec![sequence as u8; HINT_BYTES]);
            }
        }
        Some(blocks.iter().map(|block| block.header.first.0).collect())
    }

    #[test]
    fn as_much_is_read_as_is_wanted_and_not_too_much() {
        let (_dir, tree) = filled();
        let (hints, bytes) = (usize::MAX, u64::MAX);
        let blocks = |sequences, hints, bytes| read_from(&tree, sequences, hints, bytes).unwrap();
        assert_eq!(blocks(ALL, hints, bytes), [1, 11, 21]);
        let from = |first| Sequence(first)..=Sequence(80);
        assert_eq!(blocks(from(15), hints, bytes), [11, 21, 31]);
        assert_eq!(blocks(from(70), hints, bytes), [61, 71]);
        let upto = |last| Sequence(1)..=Sequence(last);
        assert_eq!(blocks(upto(10), hints, bytes), [1]);
        assert_eq!(blocks(upto(11), hints, bytes), [1, 11]);
        assert_eq!(blocks(ALL, 29, bytes), [1, 11]);
        assert_eq!(blocks(ALL, 1, bytes), [1]);
        assert_eq!(blocks(ALL, hints, 700_000), [1, 11]);
        assert_eq!(blocks(ALL, hints, 1), [1], "the first, however large");
    }

    #[test]
    fn it_ends_before_what_does_not_read_on_whichever_thread_and_says_so_of_the_first() {
        let (_dir, tree) = filled();
        let key = |first| QUEUE.chunk_key(Sequence(first), 0);
        let damage = |first| {
            let mut chunk0 = tree.get(key(first)).unwrap().unwrap().to_vec();
            *chunk0.last_mut().unwrap() ^= 1;
            tree.0.insert(key(first), chunk0).unwrap().unwrap()
        };
        for (damaged, left) in [(21, [1, 11].as_slice()), (11, &[1])] {
            let whole = damage(damaged);
            let read = |sequences| read_from(&tree, sequences, usize::MAX, u64::MAX);
            assert_eq!(read(ALL).unwrap(), left);
            assert_eq!(read(Sequence(damaged)..=Sequence(80)), None);
            tree.0.insert(key(damaged), whole).unwrap();
        }
        tree.0.remove(key(21)).unwrap();
        let read = |sequences| read_from(&tree, sequences, usize::MAX, u64::MAX);
        assert_eq!(read(ALL).unwrap(), [1, 11], "one is not there");
        assert_eq!(read(Sequence(25)..=Sequence(80)), None);
    }
}
