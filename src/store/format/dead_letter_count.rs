//! How many dead letters each queue has, and between which of its sequences: known without reading
//! them, so that an open can tell whether it finds as many as there were.

use std::collections::BTreeMap;

use crate::{
    store::format::keys::{Place, QueueRef},
    types::{Amount, Sequence},
};

/// The dead letters of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterTally {
    /// How many, and their payload bytes.
    pub amount: Amount,
    /// None of them stands before this.
    pub first: Sequence,
    /// None of them stands behind this.
    pub last: Sequence,
}

impl LetterTally {
    /// Of a queue that has none.
    pub fn none() -> Self {
        LetterTally {
            amount: Amount::default(),
            first: Sequence(u64::MAX),
            last: Sequence(0),
        }
    }

    /// One more.
    pub fn add(&mut self, sequence: Sequence, one: Amount) {
        self.amount = self.amount.plus(one);
        self.first = self.first.min(sequence);
        self.last = self.last.max(sequence);
    }
}

/// The dead letters of a node, by queue. One without any may be among them.
pub type LetterTallies = BTreeMap<QueueRef, LetterTally>;

/// All of them together.
pub fn sum(tallies: &LetterTallies) -> Amount {
    let amounts = tallies.values().map(|tally| tally.amount);
    amounts.fold(Amount::default(), Amount::plus)
}

/// How the dead letters of a node change with a group.
#[derive(Debug, Clone, Default)]
pub struct LettersChange {
    more: LetterTallies,
    less: BTreeMap<QueueRef, Amount>,
    /// Of these, what made room for newer ones.
    pub evicted: Amount,
}

impl LettersChange {
    /// One is buried.
    pub fn add(&mut self, place: Place, one: Amount) {
        let more = self.more.entry(place.queue);
        more.or_insert_with(LetterTally::none)
            .add(place.sequence, one);
    }

    /// One is none any more.
    pub fn take(&mut self, place: Place, one: Amount) {
        let less = self.less.entry(place.queue).or_default();
        *less = less.plus(one);
    }

    /// One that is none any more had to make room.
    pub fn evict(&mut self, one: Amount) {
        self.evicted = self.evicted.plus(one);
    }

    /// What becomes of what a node has in all.
    pub fn of(&self, amount: Amount) -> Amount {
        let less = self.less.values().copied();
        amount
            .plus(sum(&self.more))
            .less(less.fold(Amount::default(), Amount::plus))
    }

    /// What becomes of what it has by queue.
    pub fn apply(self, tallies: &mut LetterTallies) {
        for (queue, more) in self.more {
            let tally = tallies.entry(queue).or_insert_with(LetterTally::none);
            tally.amount = tally.amount.plus(more.amount);
            tally.first = tally.first.min(more.first);
            tally.last = tally.last.max(more.last);
        }
        for (queue, less) in self.less {
            if let Some(tally) = tallies.get_mut(&queue) {
                tally.amount = tally.amount.less(less);
            }
        }
    }
}
