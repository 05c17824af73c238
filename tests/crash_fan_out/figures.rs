//! What came of the writes of a series, in numbers.

use std::{ops::AddAssign, time::Duration};

/// What was seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    pub lives: u64,
    pub tried: u64,
    pub answered: u64,
    pub errors: u64,
    pub copies: u64,
    pub directly: u64,
    pub as_hints: u64,
    /// They were pending when all was drained.
    pub when_drained: u64,
    pub dead: u64,
    pub recorded: u64,
    /// Outstanding for less than `hint_after` and a commit when the coordinator died, and the
    /// answer had not waited for it.
    pub outstanding: u64,
    /// The longest that one of these had been so, and the longest that was allowed.
    pub outstanding_max: Duration,
    pub allowed_max: Duration,
    pub again: u64,
    /// First arrivals at an owner that were seen to be in order.
    pub in_order: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, more: Figures) {
        self.lives += more.lives;
        self.tried += more.tried;
        self.answered += more.answered;
        self.errors += more.errors;
        self.copies += more.copies;
        self.directly += more.directly;
        self.as_hints += more.as_hints;
        self.when_drained += more.when_drained;
        self.dead += more.dead;
        self.recorded += more.recorded;
        self.outstanding += more.outstanding;
        self.outstanding_max = self.outstanding_max.max(more.outstanding_max);
        self.allowed_max = self.allowed_max.max(more.allowed_max);
        self.again += more.again;
        self.in_order += more.in_order;
    }
}
