//! Since when the hints of a queue wait, without reading them.
//!
//! A queue keeps marks: from this sequence on, no hint was enqueued before this time. One comes with each block that is published,
//! and one with each head that is read; there are so few of them that a backlog of any length costs no more than a kilobyte.

use std::collections::VecDeque;

use crate::types::Sequence;

/// Beyond this every second mark goes, and the one before it speaks for its hints too.
const MARKS_MAX: usize = 64;

/// The marks of a queue, in the order of their sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ages {
    marks: VecDeque<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    from: Sequence,
    /// The earliest enqueue time among the hints from here to the next mark, in milliseconds since 1970; never later than it was.
    unix_ms: u64,
}

impl Ages {
    /// A block was stored whose first hint is `from`. What is below `head` has left.
    pub fn push(&mut self, from: Sequence, unix_ms: u64, head: Sequence) {
        self.forget_below(head);
        if self.marks.back().is_some_and(|last| last.from >= from) {
            return;
        }
        // Hints of the same moment need no mark of their own, and a lone writer's come one a block.
        if let Some(last) = self.marks.back()
            && last.unix_ms == unix_ms
        {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            self.thin();
        }
        self.marks.push_back(Mark { from, unix_ms });
    }

    /// The hint at `at` was read: this is when it was enqueued. What is below `head` has left.
    pub fn read(&mut self, at: Sequence, unix_ms: u64, head: Sequence) {
        self.forget_below(head);
        let mark = Mark { from: at, unix_ms };
        let behind = self.marks.partition_point(|mark| mark.from < at);
        match self.marks.get_mut(behind).filter(|mark| mark.from == at) {
            Some(known) => *known = mark,
            None => self.marks.insert(behind, mark),
        }
        self.forget_below(head);
        if self.marks.len() > MARKS_MAX {
            self.thin();
        }
    }

    /// The time before which the hint at `at` was not enqueued; `None` if none of it was stored or read in this life.
    pub fn at(&self, at: Sequence) -> Option<u64> {
        let behind = self.marks.partition_point(|mark| mark.from <= at);
        let mark = self.marks.get(behind.checked_sub(1)?)?;
        Some(mark.unix_ms)
    }

    /// The time that was found when the hint at `at` was read, or that its block was stored with; `None`
    /// if it is not the first that a mark speaks for.
    pub fn found_at(&self, at: Sequence) -> Option<u64> {
        let mark = self.marks.iter().find(|mark| mark.from == at)?;
        Some(mark.unix_ms)
    }

    fn forget_below(&mut self, head: Sequence) {
        while self.marks.get(1).is_some_and(|next| next.from <= head) {
            self.marks.pop_front();
        }
    }

    fn thin(&mut self) {
        let marks = self.marks.make_contiguous();
        let merged = marks.chunks(2).filter_map(|pair| {
            let earliest = pair.iter().map(|mark| mark.unix_ms).min()?;
            Some(Mark {
                from: pair.first()?.from,
                unix_ms: earliest,
            })
        });
        self.marks = merged.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_backlog_keeps_few_marks_and_none_makes_a_hint_younger_than_it_is() {
        let mut ages = Ages::default();
        for block in 0..10_000_u64 {
            ages.push(Sequence(block * 10 + 1), block * 1000, Sequence(1));
        }
        assert!(ages.marks.len() <= MARKS_MAX);
        assert_eq!(ages.at(Sequence(1)), Some(0));
        for block in (0..10_000_u64).step_by(77) {
            let at = ages.at(Sequence(block * 10 + 5)).unwrap();
            assert!(at <= block * 1000);
        }
        ages.read(Sequence(50_001), 5_000_000, Sequence(50_001));
        assert_eq!(ages.at(Sequence(50_001)), Some(5_000_000));
        assert_eq!(ages.at(Sequence(50_000)), None);
    }

    #[test]
    fn a_head_that_was_not_known_is_known_once_it_was_read() {
        let mut ages = Ages::default();
        assert_eq!(ages.at(Sequence(7)), None);
        ages.push(Sequence(9), 900, Sequence(3));
        assert_eq!(ages.at(Sequence(7)), None);
        ages.read(Sequence(3), 100, Sequence(3));
        assert_eq!(
            (ages.at(Sequence(7)), ages.at(Sequence(9))),
            (Some(100), Some(900))
        );
        assert_eq!(ages.found_at(Sequence(9)), Some(900));
        assert_eq!(ages.found_at(Sequence(7)), None);
    }

    proptest! {
        #[test]
        fn a_mark_is_never_later_than_the_hints_it_speaks_for(times in proptest::collection::vec(0_u64..1000, 1..400)) {
            let mut ages = Ages::default();
            for (index, time) in times.iter().enumerate() {
                ages.push(Sequence(index as u64 + 1), *time, Sequence(1));
            }
            prop_assert!(ages.marks.len() <= MARKS_MAX);
            for (index, time) in times.iter().enumerate() {
                prop_assert!(ages.at(Sequence(index as u64 + 1)).unwrap() <= *time);
            }
        }
    }
}
