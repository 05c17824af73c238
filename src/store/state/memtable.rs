//! Hints of WAL records that are in no block of their queue yet, for those who read them.
//!
//! One mutex guards all of it; nothing else is taken while it is held. The commit thread puts hints
//! here once they are durable and before anybody hears of them, and takes them away once they stand
//! in a block, or have left their queue. So a reader that looks here first and in the engine then
//! finds every hint that is pending. What is here is bounded by `flush.rs`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    store::format::{
        block::{Block, Header, Hint},
        keys::QueueRef,
        run::Draft,
    },
    types::Sequence,
};

/// Hints that a reader is given at once.
const HINTS_READ: usize = 64;
/// What a hint takes besides its payload.
const HINT_BYTES: usize = size_of::<MemtableHint>();

/// A hint, and where it stands.
#[derive(Debug, Clone)]
struct MemtableHint {
    sequence: Sequence,
    /// Payload bytes of the queue before it.
    bytes_before: u64,
    hint: Hint,
}

#[derive(Default)]
pub struct Memtable {
    state: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    /// In order, with gaps where blocks hold what is between.
    queues: BTreeMap<QueueRef, VecDeque<MemtableHint>>,
    bytes: usize,
}

impl MemtableHint {
    fn bytes(&self) -> usize {
        HINT_BYTES + self.hint.payload.len()
    }
}

impl Memtable {
    /// Memory that is taken, about.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().queues.is_empty()
    }

    /// Takes the hints of a queue, which come behind those that are here.
    ///
    /// Payloads are copied: those of a host may be slices of something much larger, which must not
    /// stay as long as they do.
    pub fn put(&self, draft: Draft) {
        let mut bytes_before = draft.bytes_before;
        let numbered = (draft.first.0..).map(Sequence).zip(draft.hints);
        let held = numbered.map(|(sequence, mut hint)| {
            hint.payload = Bytes::copy_from_slice(&hint.payload);
            let before = bytes_before;
            bytes_before += hint.payload.len() as u64;
            MemtableHint {
                sequence,
                bytes_before: before,
                hint,
            }
        });
        let held: Vec<MemtableHint> = held.collect();
        let mut state = self.state.lock();
        state.bytes += held.iter().map(MemtableHint::bytes).sum::<usize>();
        state.queues.entry(draft.queue).or_default().extend(held);
    }

    /// The queues that have hints here, each with the last of these.
    pub fn queues(&self) -> Vec<(QueueRef, Sequence)> {
        let state = self.state.lock();
        let last = |held: &VecDeque<MemtableHint>| held.back().map(|it| it.sequence);
        let queues = state.queues.iter();
        queues
            .filter_map(|(queue, held)| Some((*queue, last(held)?)))
            .collect()
    }

    /// The next consecutive hints of a queue from `from` to `through`, as many as so many bytes
    /// hold, but one at least.
    pub fn next(
        &self,
        queue: QueueRef,
        from: Sequence,
        through: Sequence,
        bytes: usize,
    ) -> Option<Draft> {
        let state = self.state.lock();
        let held = state.queues.get(&queue)?;
        let start = held.partition_point(|it| it.sequence < from);
        let first = held.get(start).filter(|it| it.sequence <= through)?;
        let (mut next, mut left) = (first.sequence, bytes);
        let hints = held.range(start..).map_while(|it| {
            let fits = it.sequence == first.sequence || it.hint.raw_bytes() <= left;
            let is_next = it.sequence == next && it.sequence <= through && fits;
            next = Sequence(next.0 + 1);
            left = left.saturating_sub(it.hint.raw_bytes());
            is_next.then(|| it.hint.clone())
        });
        Some(Draft {
            node: queue.node,
            queue,
            first: first.sequence,
            bytes_before: first.bytes_before,
            hints: hints.collect(),
            with_body: false,
        })
    }

    /// Takes away the hints of a queue up to one; whether there were any.
    pub fn forget(&self, queue: QueueRef, through: Sequence) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(held) = state.queues.get_mut(&queue) else {
            return false;
        };
        let count = held.partition_point(|it| it.sequence <= through);
        let bytes: usize = held.drain(..count).map(|it| it.bytes()).sum();
        state.bytes -= bytes;
        if held.is_empty() {
            state.queues.remove(&queue);
        }
        count > 0
    }

    /// Takes all away.
    pub fn clear(&self) {
        *self.state.lock() = Contents::default();
    }

    /// Some hints from one on, if it is here.
    pub fn read(&self, queue: QueueRef, sequence: Sequence) -> Option<Block> {
        let state = self.state.lock();
        let held = state.queues.get(&queue)?;
        let start = held.partition_point(|it| it.sequence < sequence);
        let first = held.get(start).filter(|it| it.sequence == sequence)?;
        let following = (sequence.0..).map(Sequence).zip(held.range(start..));
        let hints = following.take(HINTS_READ);
        let hints = hints.take_while(|(sequence, it)| it.sequence == *sequence);
        let hints: Vec<_> = hints.map(|(_, it)| it.hint.clone()).collect();
        let count = hints.len() as u32;
        Some(Block {
            queue,
            header: Header::in_memory(queue, sequence, count, first.bytes_before),
            hints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, QueueId, ShardId};

    const QUEUE: QueueRef = QueueRef {
        node: NodeId(1),
        queue: QueueId(2),
    };

    fn draft(first: u64, hints: u64) -> Draft {
        let hint = |number: u64| Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: vec![number as u8; 100].into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        Draft {
            node: QUEUE.node,
            queue: QUEUE,
            first: Sequence(first),
            bytes_before: (first - 1) * 100,
            hints: (first..first + hints).map(hint).collect(),
            with_body: false,
        }
    }

    fn filled() -> Memtable {
        let memtable = Memtable::default();
        memtable.put(draft(5, 3));
        memtable.put(draft(8, 2));
        // What is between is in a block.
        memtable.put(draft(20, 100));
        memtable
    }

    #[test]
    fn a_reader_is_given_what_follows_up_to_the_next_gap() {
        let memtable = filled();
        for (sequence, hints) in [(5, 5), (7, 3), (9, 1), (20, 64), (84, 36)] {
            let block = memtable.read(QUEUE, Sequence(sequence)).unwrap();
            assert_eq!(block.header.first, Sequence(sequence));
            assert_eq!(block.header.last(), Sequence(sequence + hints - 1));
            assert_eq!(block.header.bytes_before, (sequence - 1) * 100);
            assert_eq!(block.hints.len() as u64, hints);
            assert_eq!(block.hints[0].payload[0], sequence as u8);
        }
        for nowhere in [4, 10, 19, 120] {
            assert!(memtable.read(QUEUE, Sequence(nowhere)).is_none());
        }
    }

    #[test]
    fn what_is_to_be_flushed_is_cut_at_gaps_at_the_end_of_a_pass_and_when_it_is_large() {
        let memtable = filled();
        let next = |from, through, bytes| {
            let draft = memtable.next(QUEUE, Sequence(from), Sequence(through), bytes)?;
            Some((draft.first.0, draft.last().0, draft.bytes_before))
        };
        let large = usize::MAX;
        assert_eq!(next(1, 119, large), Some((5, 9, 400)));
        assert_eq!(next(10, 119, large), Some((20, 119, 1900)));
        assert_eq!(next(10, 50, large), Some((20, 50, 1900)));
        let three = 3 * draft(1, 1).bytes();
        assert_eq!(next(10, 50, three), Some((20, 22, 1900)));
        assert_eq!(next(10, 50, 1), Some((20, 20, 1900)), "one at least");
        assert_eq!(next(10, 19, large), None);
        assert_eq!(next(120, 200, large), None);
    }

    #[test]
    fn what_is_forgotten_is_not_there_and_takes_nothing() {
        let memtable = filled();
        assert_eq!(memtable.queues(), [(QUEUE, Sequence(119))]);
        assert_eq!(memtable.bytes(), 105 * (100 + HINT_BYTES));
        assert!(!memtable.forget(QUEUE, Sequence(4)));
        assert!(memtable.forget(QUEUE, Sequence(8)));
        assert!(memtable.read(QUEUE, Sequence(8)).is_none());
        assert!(memtable.read(QUEUE, Sequence(9)).is_some());
        assert!(memtable.forget(QUEUE, Sequence(u64::MAX)));
        assert!(memtable.is_empty() && memtable.bytes() == 0);
        assert!(!memtable.forget(QUEUE, Sequence(u64::MAX)));
    }
}
