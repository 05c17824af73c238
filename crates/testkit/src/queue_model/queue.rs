//! One queue of the model.

use std::collections::VecDeque;

use super::settled::{HintNumber, Settled};
use hinted_handoff::{
    Amount, QueueId,
    internals::{Hint, PeekLimits, PeekedHint},
};

#[derive(Debug)]
pub(super) struct ModelQueue {
    /// Unknown until one of its hints is answered or shown.
    pub id: Option<QueueId>,
    pub closed: bool,
    /// Where `hints` starts; all below is durably acknowledged.
    pub first: u64,
    /// Payload bytes of all that is below `first`.
    bytes_below: u64,
    /// The lowest sequence that is not acknowledged.
    pub cursor: u64,
    /// The lowest sequence that is not known to be durable.
    pub durable_end: u64,
    pub hints: VecDeque<Handed>,
}

/// A hint that was handed in.
#[derive(Debug)]
pub(super) struct Handed {
    pub number: HintNumber,
    pub hint: Hint,
    /// It leaves as a dead letter in the step that makes it durable.
    pub leaves: bool,
}

/// What a store says of a queue.
pub(super) struct Shown {
    pub id: QueueId,
    pub cursor: u64,
    pub end: u64,
    pub pending: Amount,
}

impl ModelQueue {
    /// One that starts with this hint.
    pub fn new(handed: Handed) -> Self {
        ModelQueue {
            id: None,
            closed: false,
            first: 1,
            bytes_below: 0,
            cursor: 1,
            durable_end: 1,
            hints: VecDeque::from([handed]),
        }
    }

    fn end(&self) -> u64 {
        self.first + self.hints.len() as u64
    }

    /// With their sequences.
    fn range(&self, from: u64, end: u64) -> impl Iterator<Item = (u64, &Handed)> {
        let numbered = (self.first..).zip(&self.hints);
        numbered.filter(move |(sequence, _)| (from..end).contains(sequence))
    }

    fn sum(&self, from: u64, end: u64, counts: impl Fn(&Handed) -> bool) -> Amount {
        let range = self.range(from, end).filter(|(_, handed)| counts(handed));
        let amounts = range.map(|(_, handed)| Amount {
            hints: 1,
            bytes: handed.hint.payload.len() as u64,
        });
        amounts.fold(Amount::default(), plus)
    }

    /// What is to be delivered from one sequence on, below another.
    pub fn amount(&self, from: u64, end: u64) -> Amount {
        self.sum(from, end, |handed| !handed.leaves)
    }

    /// How many dead letters begin here that are not known to be durable.
    pub fn dead_unknown(&self) -> u64 {
        let unknown = self.sum(self.durable_end, self.end(), |handed| handed.leaves);
        unknown.hints
    }

    /// All below `end` is durable, and of that what leaves by itself has left. Returns how many
    /// dead letters that makes more.
    pub fn durable_below(&mut self, end: u64) -> u64 {
        let dead = self.sum(self.durable_end, end, |handed| handed.leaves);
        self.durable_end = self.durable_end.max(end);
        self.pass_over();
        dead.hints
    }

    /// The cursor stands at nothing that has left by itself.
    pub fn pass_over(&mut self) {
        let left = self.range(self.cursor, self.durable_end);
        self.cursor += left.take_while(|(_, handed)| handed.leaves).count() as u64;
    }

    /// Durable and not acknowledged.
    pub fn pending(&self) -> Amount {
        self.amount(self.cursor, self.durable_end)
    }

    /// What is acknowledged stays so, whatever happens.
    pub fn settle_cursor(&mut self) {
        self.bytes_below += self.sum(self.first, self.cursor, |_| true).bytes;
        while self.first < self.cursor && self.hints.pop_front().is_some() {
            self.first += 1;
        }
    }

    pub fn is_done(&self) -> bool {
        self.closed && self.hints.is_empty()
    }

    /// Takes over what a store shows of it, as far as that is open; says what may not be. Adds the
    /// dead letters that are durable by now.
    pub fn see(
        &mut self,
        shown: Option<&Shown>,
        stopped: bool,
        settled: &mut Settled,
        dead: &mut u64,
    ) -> Vec<String> {
        let mut broken = Vec::new();
        let Some(shown) = shown else {
            // Drained and given up, or nothing of it was ever durable.
            if self.cursor < self.durable_end {
                broken.push(format!("it is gone with {:?} pending", self.pending()));
            }
            if stopped {
                settled.gone += self.end() - self.durable_end;
                self.durable_end = self.cursor;
                self.hints.truncate((self.cursor - self.first) as usize);
                self.settle_cursor();
            }
            return broken;
        };
        let was_durable = self.durable_end;
        if (was_durable..=self.end()).contains(&shown.end) {
            *dead += self.durable_below(shown.end);
        } else {
            broken.push(format!(
                "it ends before {}, expected {} to {}",
                shown.end,
                self.durable_end,
                self.end()
            ));
        }
        let (lowest, highest) = match stopped {
            true => (self.first, self.cursor),
            false => (self.cursor, self.cursor),
        };
        if !(lowest..=highest).contains(&shown.cursor) {
            broken.push(format!(
                "its cursor is {}, expected {lowest} to {highest}",
                shown.cursor
            ));
        }
        let end = self.durable_end;
        if stopped {
            let cursor = shown.cursor.clamp(lowest, highest);
            settled.undone += self.cursor - cursor;
            settled.found += end - was_durable;
            settled.gone += self.end() - end;
            self.cursor = cursor;
            self.hints.truncate((end - self.first) as usize);
            // Found on disk, so it cannot be undone any more.
            self.settle_cursor();
        }
        if shown.pending != self.pending() {
            broken.push(format!(
                "its depth is {:?}, expected {:?}",
                shown.pending,
                self.pending()
            ));
        }
        broken
    }

    /// Holds what a peek showed against it and the limits. Says what is broken; while hints wait
    /// for their answers a peek may show less than is there by now.
    pub fn see_peek(
        &self,
        limits: PeekLimits,
        hints: &[PeekedHint],
        waits: bool,
    ) -> Option<String> {
        let expected = self.range(self.cursor, self.durable_end);
        let mut expected = expected.filter(|(_, handed)| !handed.leaves);
        let mut bytes = 0_u64;
        for shown in hints {
            let mark = shown.mark;
            if Some(mark.queue.queue) != self.id {
                return Some(format!("{mark:?} is shown before {:?}", self.id));
            }
            let Some((sequence, Handed { number, hint, .. })) = expected.next() else {
                return Some(format!("{mark:?} is shown, and was never handed in"));
            };
            bytes += hint.payload.len() as u64;
            let through = self.sum(self.first, sequence + 1, |_| true);
            let bytes_through = self.bytes_below + through.bytes;
            if (mark.sequence.0, mark.bytes_through) != (sequence, bytes_through) {
                return Some(format!(
                    "{mark:?} is shown instead of {sequence} with {bytes_through} bytes through it"
                ));
            }
            if *hint != shown.hint {
                return Some(format!("{mark:?} is not {number:?} as it was handed in"));
            }
        }
        let over = hints.len() > limits.hints || bytes > limits.payload_bytes;
        if over && hints.len() > 1 {
            return Some(format!(
                "{} hints of {bytes} bytes are more than {limits:?}",
                hints.len()
            ));
        }
        let (_, next) = expected.next().filter(|_| !waits)?;
        let next_bytes = next.hint.payload.len() as u64;
        let fits = hints.len() < limits.hints && bytes + next_bytes <= limits.payload_bytes;
        (hints.is_empty() || fits).then(|| {
            format!(
                "only {} hints of {bytes} bytes are shown within {limits:?}",
                hints.len()
            )
        })
    }
}

pub(super) fn plus(one: Amount, other: Amount) -> Amount {
    Amount {
        hints: one.hints.saturating_add(other.hints),
        bytes: one.bytes.saturating_add(other.bytes),
    }
}
