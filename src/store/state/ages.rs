//! Since when the hints of a queue wait, and when the first of their own lifetimes is over, without
//! reading them.
//!
//! A queue keeps marks: from this sequence on, no hint was enqueued before this time, and none has
//! a lifetime that ends before that one. A mark comes with each block that is published, and one
//! with each head that is read; there are so few of them that a backlog of any length costs no more
//! than two kilobytes.

use std::collections::VecDeque;

use crate::types::Sequence;

/// Beyond this every second mark goes, and the one before it speaks for its hints too.
const MARKS_MAX: usize = 64;

/// The marks of a queue, in the order of their sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ages {
    marks: VecDeque<AgeMark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AgeMark {
    from: Sequence,
    /// The earliest enqueue time among the hints from here to the next mark, in milliseconds since
    /// 1970; never later than it was.
    unix_ms: u64,
    /// The earliest end of a lifetime among them, `u64::MAX` if there is none; never later than it
    /// is. 0 if nobody has looked.
    due_unix_ms: u64,
}

/// Consecutive hints of a queue that a mark speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub from: Sequence,
    /// The first behind it; `None` if it goes to the end.
    pub until: Option<Sequence>,
    pub due_unix_ms: u64,
}

impl Ages {
    pub const fn new() -> Self {
        Ages {
            marks: VecDeque::new(),
        }
    }

    /// A block was stored whose first hint is `from`. What is below `head` has left.
    pub fn push(&mut self, from: Sequence, unix_ms: u64, due_unix_ms: u64, head: Sequence) {
        self.forget_below(head);
        if let Some(last) = self.marks.back_mut()
            && last.from >= from
        {
            last.unix_ms = last.unix_ms.min(unix_ms);
            last.due_unix_ms = last.due_unix_ms.min(due_unix_ms);
            return;
        }
        // Hints of the same moment need no mark of their own, and a lone writer's come one a block.
        if let Some(last) = self.marks.back_mut()
            && last.unix_ms == unix_ms
        {
            last.due_unix_ms = last.due_unix_ms.min(due_unix_ms);
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            self.thin();
        }
        self.marks.push_back(AgeMark {
            from,
            unix_ms,
            due_unix_ms,
        });
    }

    /// The hint at `at` was read: this is when it was enqueued. What is below `head` has left.
    pub fn read(&mut self, at: Sequence, unix_ms: u64, head: Sequence) {
        self.forget_below(head);
        let behind = self.marks.partition_point(|mark| mark.from < at);
        match self.marks.get_mut(behind).filter(|mark| mark.from == at) {
            Some(known) => known.unix_ms = unix_ms,
            None => {
                let before = behind.checked_sub(1).and_then(|it| self.marks.get(it));
                let mark = AgeMark {
                    from: at,
                    unix_ms,
                    due_unix_ms: before.map_or(0, |it| it.due_unix_ms),
                };
                self.marks.insert(behind, mark);
            }
        }
        self.forget_below(head);
        if self.marks.len() > MARKS_MAX {
            self.thin();
        }
    }

    /// The time before which the hint at `at` was not enqueued; `None` if none of it was stored or
    /// read in this life.
    pub fn at(&self, at: Sequence) -> Option<u64> {
        let behind = self.marks.partition_point(|mark| mark.from <= at);
        let mark = self.marks.get(behind.checked_sub(1)?)?;
        Some(mark.unix_ms)
    }

    /// The time that was found when the hint at `at` was read, or that its block was stored with;
    /// `None` if it is not the first that a mark speaks for.
    pub fn found_at(&self, at: Sequence) -> Option<u64> {
        let mark = self.marks.iter().find(|mark| mark.from == at)?;
        Some(mark.unix_ms)
    }

    /// All of a queue from `head` on, as the marks divide it. What none speaks for was there at
    /// open.
    pub fn stretches(&self, head: Sequence) -> impl Iterator<Item = Stretch> {
        let first = self.marks.front().map(|mark| mark.from);
        let unknown = first.is_none_or(|from| from > head).then_some(Stretch {
            from: head,
            until: first,
            due_unix_ms: 0,
        });
        let following = self.marks.iter().skip(1).map(|mark| Some(mark.from));
        let untils = following.chain([None]);
        let known = self
            .marks
            .iter()
            .zip(untils)
            .map(move |(mark, until)| Stretch {
                from: mark.from.max(head),
                until,
                due_unix_ms: mark.due_unix_ms,
            });
        let known = known.filter(move |it| it.until.is_none_or(|until| until > head));
        unknown.into_iter().chain(known)
    }

    /// What is stored from `next` on, the next sequence of the queue, is no part of the last
    /// stretch.
    pub fn end_at(&mut self, next: Sequence) {
        if self.marks.back().is_none_or(|last| last.from < next) {
            self.marks.push_back(AgeMark {
                from: next,
                unix_ms: u64::MAX,
                due_unix_ms: u64::MAX,
            });
        }
    }

    /// A stretch up to before `until` was looked through: this is the earliest end of a lifetime in
    /// it, and none of its hints was enqueued before that time. Means nothing if it is no stretch
    /// any more, since others have become part of it.
    pub fn searched(&mut self, from: Sequence, until: Sequence, due_unix_ms: u64, unix_ms: u64) {
        let behind = self.marks.partition_point(|mark| mark.from <= from);
        if self.marks.get(behind).is_none_or(|next| next.from != until) {
            return;
        }
        match behind.checked_sub(1).and_then(|it| self.marks.get_mut(it)) {
            Some(mark) => mark.due_unix_ms = due_unix_ms,
            None => self.marks.push_front(AgeMark {
                from,
                unix_ms,
                due_unix_ms,
            }),
        }
    }

    fn forget_below(&mut self, head: Sequence) {
        while self.marks.get(1).is_some_and(|next| next.from <= head) {
            self.marks.pop_front();
        }
    }

    fn thin(&mut self) {
        let marks = self.marks.make_contiguous();
        let merged = marks.chunks(2).filter_map(|pair| {
            Some(AgeMark {
                from: pair.first()?.from,
                unix_ms: pair.iter().map(|mark| mark.unix_ms).min()?,
                due_unix_ms: pair.iter().map(|mark| mark.due_unix_ms).min()?,
            })
        });
        self.marks = merged.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEVER: u64 = u64::MAX;

    #[test]
    fn a_long_backlog_keeps_few_marks_and_none_makes_a_hint_younger_than_it_is() {
        let mut ages = Ages::default();
        for block in 0..10_000_u64 {
            ages.push(Sequence(block * 10 + 1), block * 1000, NEVER, Sequence(1));
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
        ages.push(Sequence(9), 900, NEVER, Sequence(3));
        assert_eq!(ages.at(Sequence(7)), None);
        ages.read(Sequence(3), 100, Sequence(3));
        assert_eq!(
            (ages.at(Sequence(7)), ages.at(Sequence(9))),
            (Some(100), Some(900))
        );
        assert_eq!(ages.found_at(Sequence(9)), Some(900));
        assert_eq!(ages.found_at(Sequence(7)), None);
    }

    #[test]
    fn a_stretch_is_due_with_the_first_of_its_lifetimes_until_it_was_looked_through() {
        let mut ages = Ages::default();
        let stretch = |from, until: Option<u64>, due_unix_ms| Stretch {
            from: Sequence(from),
            until: until.map(Sequence),
            due_unix_ms,
        };
        let all = |ages: &Ages, head| ages.stretches(Sequence(head)).collect::<Vec<_>>();
        assert_eq!(all(&ages, 3), [stretch(3, None, 0)]);
        ages.push(Sequence(9), 900, 950, Sequence(3));
        ages.push(Sequence(10), 900, 920, Sequence(3));
        ages.push(Sequence(12), 901, NEVER, Sequence(3));
        let known = [stretch(9, Some(12), 920), stretch(12, None, NEVER)];
        assert_eq!(
            all(&ages, 3),
            [&[stretch(3, Some(9), 0)], &known[..]].concat()
        );
        assert_eq!(all(&ages, 9), known);
        // The head is read, and then all up to what is known.
        ages.read(Sequence(3), 100, Sequence(3));
        assert_eq!(all(&ages, 3)[0], stretch(3, Some(9), 0));
        ages.searched(Sequence(3), Sequence(9), NEVER, 100);
        assert_eq!(all(&ages, 3)[0], stretch(3, Some(9), NEVER));
        ages.searched(Sequence(10), Sequence(12), 950, 900);
        assert_eq!(all(&ages, 10), [stretch(10, Some(12), 950), known[1]]);
        // One that others became part of meanwhile.
        ages.searched(Sequence(10), Sequence(11), NEVER, 900);
        assert_eq!(all(&ages, 10)[0], stretch(10, Some(12), 950));
    }

    #[test]
    fn what_is_stored_while_the_last_stretch_is_looked_through_is_no_part_of_it() {
        let mut ages = Ages::default();
        ages.push(Sequence(1), 900, 950, Sequence(1));
        ages.end_at(Sequence(5));
        ages.push(Sequence(5), 900, 920, Sequence(1));
        ages.searched(Sequence(1), Sequence(5), NEVER, 900);
        let dues: Vec<_> = ages
            .stretches(Sequence(1))
            .map(|it| it.due_unix_ms)
            .collect();
        assert_eq!(dues, [NEVER, 920]);
        assert_eq!(ages.at(Sequence(5)), Some(900));
        // Of what was there at open.
        let mut ages = Ages::default();
        ages.end_at(Sequence(5));
        ages.searched(Sequence(3), Sequence(5), 500, 100);
        let first = ages.stretches(Sequence(4)).next().map(|it| it.due_unix_ms);
        assert_eq!((first, ages.at(Sequence(4))), (Some(500), Some(100)));
    }

    proptest! {
        #[test]
        fn a_mark_is_never_later_than_the_hints_it_speaks_for(times in proptest::collection::vec(0_u64..1000, 1..400)) {
            let mut ages = Ages::default();
            for (index, time) in times.iter().enumerate() {
                let due = if time % 3 == 0 { time + 7 } else { NEVER };
                ages.push(Sequence(index as u64 + 1), *time, due, Sequence(1));
            }
            prop_assert!(ages.marks.len() <= MARKS_MAX);
            for (index, time) in times.iter().enumerate().filter(|(_, time)| *time % 3 == 0) {
                let at = Sequence(index as u64 + 1);
                let mut stretches = ages.stretches(Sequence(1));
                let stretch = stretches.find(|it| it.from <= at && it.until.is_none_or(|until| at < until));
                prop_assert!(stretch.unwrap().due_unix_ms <= *time + 7);
            }
            for (index, time) in times.iter().enumerate() {
                prop_assert!(ages.at(Sequence(index as u64 + 1)).unwrap() <= *time);
            }
        }
    }
}
