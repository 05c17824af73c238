//! How many dead letters each queue has, and between which of its sequences: known without reading
//! them, so that an open can tell whether it finds as many as there were.

use std::collections::BTreeMap;

use crate::{
    store::format::keys::QueueRef,
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
    /// The number of the next one. `CLEAN` does not say it: it is above all that are found or gone.
    pub next_number: u64,
}

impl LetterTally {
    /// Of a queue that has none.
    pub fn none() -> Self {
        LetterTally {
            amount: Amount::default(),
            first: Sequence(u64::MAX),
            last: Sequence(0),
            next_number: 1,
        }
    }

    /// A number for a new one.
    pub fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        number
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
