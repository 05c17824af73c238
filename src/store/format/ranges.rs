//! Hints that left out of order: ranges of sequences above a cursor, with the payload bytes in
//! each.

use std::collections::BTreeMap;

use crate::types::{Amount, Sequence};

/// One range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub first: Sequence,
    pub last: Sequence,
    pub bytes: u64,
}

impl Range {
    pub fn amount(self) -> Amount {
        Amount {
            hints: self.last.0 - self.first.0 + 1,
            bytes: self.bytes,
        }
    }
}

/// Ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// By first sequence.
    ranges: BTreeMap<Sequence, Range>,
    sum: Amount,
}

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// All that is in them.
    pub fn amount(&self) -> Amount {
        self.sum
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Range> {
        self.ranges.values().copied()
    }

    /// Those that end at or above a sequence, in order.
    pub fn from(&self, sequence: Sequence) -> impl Iterator<Item = Range> {
        let first = self.holding(sequence).map_or(sequence, |it| it.first);
        self.ranges.range(first..).map(|(_, range)| *range)
    }

    /// The range that holds a sequence.
    pub fn holding(&self, sequence: Sequence) -> Option<Range> {
        let (_, range) = self.ranges.range(..=sequence).next_back()?;
        (range.last >= sequence).then_some(*range)
    }

    /// Whether a hint next to this one is in a range.
    pub fn touches(&self, sequence: Sequence) -> bool {
        let before = Sequence(sequence.0.saturating_sub(1));
        let behind = Sequence(sequence.0.saturating_add(1));
        self.holding(before).is_some() || self.holding(behind).is_some()
    }

    /// Adds one hint. It is joined with what it touches; false if it was there before.
    pub fn insert(&mut self, sequence: Sequence, bytes: u64) -> bool {
        let alone = Range {
            first: sequence,
            last: sequence,
            bytes,
        };
        self.insert_range(alone)
    }

    /// Adds a range of which nothing is there yet; else it adds nothing and says so.
    pub fn insert_range(&mut self, mut range: Range) -> bool {
        let before = self.ranges.range(..=range.last).next_back();
        if before.is_some_and(|(_, it)| it.last >= range.first) || range.first > range.last {
            return false;
        }
        self.sum = self.sum.plus(range.amount());
        if let Some((&first, it)) = self.ranges.range(..range.first).next_back()
            && it.last.0 + 1 == range.first.0
        {
            range.first = first;
            range.bytes += it.bytes;
        }
        if let Some(above) = range.last.0.checked_add(1).map(Sequence)
            && let Some(it) = self.ranges.remove(&above)
        {
            range.last = it.last;
            range.bytes += it.bytes;
        }
        self.ranges.insert(range.first, range);
        true
    }

    /// Takes out the lowest range if it begins at or below `through`.
    pub fn take_lowest(&mut self, through: Sequence) -> Option<Range> {
        let lowest = self.ranges.first_entry()?;
        if *lowest.key() > through {
            return None;
        }
        let range = lowest.remove();
        self.sum = self.sum.less(range.amount());
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_what_was_inserted(inserted in proptest::collection::vec(0_u64..40, 0..40)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for sequence in inserted {
                prop_assert_eq!(ranges.insert(Sequence(sequence), sequence), set.insert(sequence));
                let held: BTreeSet<u64> = ranges.iter().flat_map(|it| it.first.0..=it.last.0).collect();
                prop_assert_eq!(&held, &set);
                prop_assert!((0..40).all(|it| ranges.holding(Sequence(it)).is_some() == set.contains(&it)));
                let apart = ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.last.0 + 1 < b.first.0);
                prop_assert!(apart, "{:?}", ranges);
                let amount = Amount { hints: set.len() as u64, bytes: set.iter().sum() };
                prop_assert_eq!(ranges.amount(), amount);
            }
            while let Some(range) = ranges.take_lowest(Sequence(20)) {
                prop_assert!(range.first.0 <= 20);
            }
            prop_assert!(ranges.iter().all(|it| it.first.0 > 20));
            let bytes: u64 = ranges.iter().map(|it| it.bytes).sum();
            prop_assert_eq!(ranges.amount().bytes, bytes);
        }
    }
}
