//! Who waits for a batch, and what they are told.
//!
//! One mutex guards the list of those whose group is being committed. The commit thread fills it
//! before it touches the engine, notes what becomes of each, and empties it; the watchdog empties
//! it when the commit thread does not come back. No other lock is taken, and nobody is told, while
//! it is held.

use std::{mem, time::Instant};

use parking_lot::Mutex;

use crate::{
    error::{EnqueueError, HandoffError, StorageError},
    stats::DurationCounts,
    store::{
        pipeline::{batch::WriteBatch, done::AppendDone},
        state::lock::Reservation,
    },
    types::{Amount, HintId},
};

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Of its hints, in their order, but for those that stood elsewhere and did not any more.
    pub ids: Vec<HintId>,
    /// What left with it.
    pub left: Amount,
}

/// Why nothing of a batch came into effect, or is known to have.
#[derive(Debug)]
pub enum Refusal {
    /// A row that it read has changed since.
    Conflict,
    /// The queue does not stand at this hint any more: somebody has acknowledged it.
    NotNext(HintId),
    /// A row could not be read.
    Read(StorageError),
    /// What refuses a hint too.
    Enqueue(EnqueueError),
}

/// Told the outcome of a batch. Dropped untold, it is unknown.
pub type BatchDone = Box<dyn FnOnce(Result<Written, Refusal>) + Send>;

/// Who waits for one batch.
pub struct Ticket {
    /// Of each of its hints, once it has one.
    ids: Vec<Option<HintId>>,
    /// Why nothing of it comes into effect.
    refusal: Option<Box<Refusal>>,
    left: Amount,
    /// Room for its hints. Given back before it is told that they are not stored, so that it finds
    /// it when it tries again.
    reserved: Reservation,
    /// Told when everybody sees it, before it is durable.
    is_early: bool,
    /// Whatever happens to its group, it leaves nothing behind.
    only_asks: bool,
    /// When it was handed over.
    began: Instant,
    done: BatchDone,
}

/// A batch, and who waits for it.
pub struct Entry {
    pub batch: WriteBatch,
    pub ticket: Ticket,
}

/// The place of a batch in its group, and of a hint in the batch.
pub type Owner = (usize, usize);

impl Entry {
    pub fn new(batch: WriteBatch, reserved: Reservation, done: BatchDone) -> Self {
        let ticket = Ticket {
            ids: vec![None; batch.hints.len()],
            refusal: None,
            left: Amount::default(),
            reserved,
            is_early: false,
            only_asks: batch.only_asks(),
            began: Instant::now(),
            done,
        };
        Entry { batch, ticket }
    }

    /// The same of one that is answered when it is seen by all, rather than when it is durable.
    pub fn answered_early(mut self) -> Self {
        self.ticket.is_early = true;
        self
    }

    /// Tells whoever waits that it will not be done.
    pub fn refuse(self, error: EnqueueError) {
        let Ticket { reserved, done, .. } = self.ticket;
        drop(reserved);
        done(Err(Refusal::Enqueue(error)));
    }
}

/// For a batch of one hint.
pub fn told_id(done: AppendDone) -> BatchDone {
    Box::new(move |outcome| match outcome {
        Ok(written) => {
            if let Some(id) = written.ids.first() {
                done(Ok(*id));
            }
        }
        Err(Refusal::Enqueue(error)) => done(Err(error)),
        // Only rows and acks are refused for anything else.
        Err(_) => {}
    })
}

/// For a batch without rows and acks.
pub fn told(done: impl FnOnce(Result<Written, HandoffError>) + Send + 'static) -> BatchDone {
    Box::new(move |outcome| match outcome {
        Ok(written) => done(Ok(written)),
        Err(Refusal::Enqueue(error)) => done(Err(error.into())),
        // Only rows and acks are refused for anything else.
        Err(_) => {}
    })
}

impl Ticket {
    fn is_told_early(&mut self) -> bool {
        self.refusal.is_some() || self.is_early
    }

    fn succeed(self) {
        let ids = self.ids.into_iter().flatten().collect();
        let left = self.left;
        let written = Written { ids, left };
        (self.done)(self.refusal.map_or(Ok(written), |refusal| Err(*refusal)));
    }

    /// It may be stored, or not.
    fn fail(self, cause: &StorageError) {
        drop(self.reserved);
        let error = match self.only_asks {
            true => EnqueueError::StoreFailed(cause.clone()),
            false => EnqueueError::Unknown(cause.clone()),
        };
        let refusal = self.refusal.map(|refusal| *refusal);
        (self.done)(Err(refusal.unwrap_or(Refusal::Enqueue(error))));
    }
}

/// The tickets of the group that is being committed.
#[derive(Default)]
pub struct Tickets {
    all: Mutex<Vec<Ticket>>,
}

impl Tickets {
    pub fn begin(&self, tickets: Vec<Ticket>) {
        *self.all.lock() = tickets;
    }

    /// Nothing of this batch comes into effect.
    pub fn refuse(&self, batch: usize, refusal: Refusal) {
        // Bound to be dropped when the lock is released: that takes another.
        let _reserved = {
            let mut all = self.all.lock();
            all.get_mut(batch).map(|ticket| {
                ticket.refusal = Some(Box::new(refusal));
                mem::take(&mut ticket.reserved)
            })
        };
    }

    /// So much left with this batch.
    pub fn note_left(&self, batch: usize, left: Amount) {
        if let Some(ticket) = self.all.lock().get_mut(batch) {
            ticket.left = left;
        }
    }

    pub fn identify(&self, hints: impl IntoIterator<Item = (Owner, HintId)>) {
        let mut all = self.all.lock();
        for ((batch, hint), id) in hints {
            let slot = all.get_mut(batch).and_then(|it| it.ids.get_mut(hint));
            if let Some(slot) = slot {
                *slot = Some(id);
            }
        }
    }

    /// Tells those who wait for no fsync: batches that were asked to be answered early, and those
    /// that lost. These are told only now that what they lost against can be seen: told before,
    /// they would run again and see what they saw then.
    ///
    /// Returns the room of the others, whose hints are not published yet.
    pub fn answer_early(&self) -> Vec<Reservation> {
        let mut early: Vec<_> = {
            let mut all = self.all.lock();
            all.extract_if(.., Ticket::is_told_early).collect()
        };
        let reserved = early.iter_mut().map(|it| mem::take(&mut it.reserved));
        let reserved = reserved.collect();
        early.into_iter().for_each(Ticket::succeed);
        reserved
    }

    /// Everybody who still waits. To be told that it is durable, or that it failed.
    pub fn take(&self) -> Answers {
        Answers(mem::take(&mut *self.all.lock()))
    }
}

/// Those who are told next.
pub struct Answers(Vec<Ticket>);

impl Answers {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The room of those whose hints are about to be published.
    pub fn take_reserved(&mut self) -> impl Iterator<Item = Reservation> {
        self.0.iter_mut().map(|it| mem::take(&mut it.reserved))
    }

    /// All of it is durable.
    pub fn succeed(self, times: &DurationCounts) {
        let now = Instant::now();
        for ticket in self.0 {
            if !ticket.ids.is_empty() {
                times.note(now.saturating_duration_since(ticket.began));
            }
            ticket.succeed();
        }
    }

    pub fn fail(self, cause: &StorageError) {
        self.0.into_iter().for_each(|ticket| ticket.fail(cause));
    }
}
