//! Who waits for the group that is being committed, and what they are to be told.
//!
//! One mutex guards the list. The commit thread fills it before it touches the engine, notes what
//! becomes of each, and empties it; the watchdog empties it when the commit thread does not come
//! back. No other lock is taken, and nobody is told, while it is held.

use std::mem;

use parking_lot::Mutex;

use crate::{
    error::{EnqueueError, StorageError},
    store::{
        pipeline::{
            done::{AppendDone, ControlDone},
            transaction::{ProposalDone, Refusal},
        },
        state::lock::Reservation,
    },
    types::{Amount, HintId},
};

pub enum Done {
    Append(AppendDone),
    Transaction {
        done: ProposalDone,
        /// Told when everybody sees it, before it is durable.
        early: bool,
        /// It only asks; whatever happens to its group, it leaves nothing behind.
        only_asks: bool,
    },
    /// Hints or dead letters that leave.
    Left(ControlDone<Amount>),
    /// A dead letter that becomes a hint again.
    Redriven(ControlDone<Option<HintId>>),
}

pub struct Waiting {
    /// Of each of its hints, once it has one.
    ids: Vec<Option<HintId>>,
    /// Why nothing of it comes into effect.
    refusal: Option<Refusal>,
    /// What left with it.
    left: Amount,
    /// Room for its hints. Given back before it is told that they are not stored, so that it finds
    /// it when it tries again.
    reserved: Reservation,
    done: Done,
}

/// The place of an entry in its group, and of a hint in the entry.
pub type Owner = (usize, usize);

#[derive(Default)]
pub struct InFlight {
    waiting: Mutex<Vec<Waiting>>,
}

impl Waiting {
    pub fn new(hints: usize, reserved: Reservation, done: Done) -> Self {
        Waiting {
            ids: vec![None; hints],
            refusal: None,
            left: Amount::default(),
            reserved,
            done,
        }
    }

    fn is_told_early(&mut self) -> bool {
        self.refusal.is_some() || matches!(self.done, Done::Transaction { early: true, .. })
    }

    fn succeed(self) {
        let mut ids = self.ids.into_iter().flatten();
        match (self.refusal, self.done) {
            (None, Done::Transaction { done, .. }) => done(Ok(ids.collect())),
            (Some(refusal), Done::Transaction { done, .. }) => done(Err(refusal)),
            (Some(Refusal::Enqueue(error)), Done::Append(done)) => done(Err(error)),
            (Some(Refusal::Enqueue(error)), Done::Left(done)) => done(Err(error.into())),
            (Some(Refusal::Enqueue(error)), Done::Redriven(done)) => done(Err(error.into())),
            (_, Done::Left(done)) => done(Ok(self.left)),
            (_, Done::Redriven(done)) => done(Ok(ids.next())),
            // It has one hint, and nothing else to be refused for. Dropped untold, its outcome is
            // unknown.
            (_, Done::Append(done)) => {
                if let Some(id) = ids.next() {
                    done(Ok(id));
                }
            }
        }
    }

    /// It may be stored, or not.
    fn fail(self, cause: &StorageError) {
        drop(self.reserved);
        let unknown = EnqueueError::Unknown(cause.clone());
        match self.done {
            Done::Append(done) => match self.refusal {
                Some(Refusal::Enqueue(refusal)) => done(Err(refusal)),
                _ => done(Err(unknown)),
            },
            Done::Left(done) => done(Err(cause.clone().into())),
            Done::Redriven(done) => done(Err(cause.clone().into())),
            Done::Transaction {
                done, only_asks, ..
            } => {
                let error = match only_asks {
                    true => EnqueueError::StoreFailed(cause.clone()),
                    false => unknown,
                };
                done(Err(self.refusal.unwrap_or(Refusal::Enqueue(error))));
            }
        }
    }
}

impl InFlight {
    pub fn begin(&self, waiting: Vec<Waiting>) {
        *self.waiting.lock() = waiting;
    }

    /// Nothing of this entry comes into effect.
    pub fn refuse(&self, entry: usize, refusal: Refusal) {
        // Bound to be dropped when the lock is released: that takes another.
        let _reserved = {
            let mut all = self.waiting.lock();
            all.get_mut(entry).map(|waiting| {
                waiting.refusal = Some(refusal);
                mem::take(&mut waiting.reserved)
            })
        };
    }

    /// So much left with this entry.
    pub fn note_left(&self, entry: usize, left: Amount) {
        if let Some(waiting) = self.waiting.lock().get_mut(entry) {
            waiting.left = left;
        }
    }

    pub fn identify(&self, hints: impl IntoIterator<Item = (Owner, HintId)>) {
        let mut all = self.waiting.lock();
        for ((entry, hint), id) in hints {
            let slot = all.get_mut(entry).and_then(|it| it.ids.get_mut(hint));
            if let Some(slot) = slot {
                *slot = Some(id);
            }
        }
    }

    /// Tells those who wait for no fsync: transactions that were asked to be answered early, and
    /// those that lost. These are told only now that what they lost against can be seen: told
    /// before, they would run again and see what they saw then.
    ///
    /// Returns the room of the others, whose hints are not published yet.
    pub fn answer_early(&self) -> Vec<Reservation> {
        let mut early: Vec<_> = {
            let mut waiting = self.waiting.lock();
            waiting.extract_if(.., Waiting::is_told_early).collect()
        };
        let reserved = early.iter_mut().map(|it| mem::take(&mut it.reserved));
        let reserved = reserved.collect();
        early.into_iter().for_each(Waiting::succeed);
        reserved
    }

    /// Everybody who still waits. To be told that it is durable, or that it failed.
    pub fn take(&self) -> Answers {
        Answers(mem::take(&mut *self.waiting.lock()))
    }
}

/// Those who are told next.
pub struct Answers(Vec<Waiting>);

impl Answers {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The room of those whose hints are about to be published.
    pub fn take_reserved(&mut self) -> impl Iterator<Item = Reservation> {
        self.0.iter_mut().map(|it| mem::take(&mut it.reserved))
    }

    pub fn succeed(self) {
        self.0.into_iter().for_each(Waiting::succeed);
    }

    pub fn fail(self, cause: &StorageError) {
        self.0.into_iter().for_each(|waiting| waiting.fail(cause));
    }
}
