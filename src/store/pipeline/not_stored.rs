//! Copies of writes that could be neither sent nor stored, on their way into the loss journal.
//!
//! They are summed up here, by node and shard, and each group of the commit thread takes some
//! along. While the store fails they wait; what a group wrote is kept until it is durable, so a
//! group of unknown outcome loses none of them, and may count them twice.

use std::{collections::BTreeMap, mem};

use parking_lot::Mutex;

use crate::{
    error::{HandoffError, StorageError, with_causes},
    store::{LossReason, format::loss::Loss, pipeline::done::ControlDone},
    types::{Amount, NodeId, ShardId},
};

/// Pairs of a node and a shard that are told apart at a time. Beyond these what comes is summed up
/// by node, whose number is the host's.
const PAIRS_MAX: usize = 4000;
/// Entries of the loss journal that a group takes along: some 60 KiB.
const ENTRIES_PER_GROUP: usize = 1000;
/// Of those who wait for a record to be durable.
const WAITING_MAX: usize = 65_536;

/// What copies are summed up by. The shard is `None` where there are too many.
type Pair = (NodeId, Option<ShardId>);

#[derive(Default)]
struct Sums {
    by_pair: BTreeMap<Pair, Amount>,
    waiting: Vec<ControlDone<()>>,
}

#[derive(Default)]
struct Noted {
    /// Nobody has begun to write it.
    noted: Sums,
    /// It is being written, some with each group. Nothing is added, so its end comes.
    written: Sums,
    /// Why nothing is written any more.
    ended: Option<HandoffError>,
}

/// One mutex guards all of it. No other lock is taken, and nobody is told, while it is held.
#[derive(Default)]
pub struct NotStored {
    state: Mutex<Noted>,
}

/// What a group takes along.
#[derive(Default)]
pub struct Taken(Vec<(Pair, Amount)>);

impl Taken {
    /// As losses, of this moment.
    pub fn losses(&self) -> impl Iterator<Item = Loss> {
        self.0.iter().map(|((node, shard), copies)| {
            Loss::new(*node, *shard, None, *copies, LossReason::NotStored)
        })
    }
}

impl Sums {
    fn add(&mut self, node: NodeId, shard: ShardId, copies: Amount) {
        let mut pair = (node, Some(shard));
        if self.by_pair.len() >= PAIRS_MAX && !self.by_pair.contains_key(&pair) {
            pair.1 = None;
        }
        let sum = self.by_pair.entry(pair).or_default();
        *sum = sum.plus(copies);
    }

    /// Nobody will record it. To be called with no lock held.
    fn give_up(self, why: &HandoffError) {
        for ((node, shard), copies) in self.by_pair {
            log_unrecorded(node, shard, copies, why);
        }
        for done in self.waiting {
            done(Err(why.clone()));
        }
    }
}

fn log_unrecorded(node: NodeId, shard: Option<ShardId>, copies: Amount, why: &HandoffError) {
    tracing::error!(
        node = node.0, shard = shard.map(|it| it.0),
        copies = copies.hints, bytes = copies.bytes, error = %with_causes(why),
        "copies were neither sent nor stored, and the loss journal may not tell of them"
    );
}

impl NotStored {
    /// Adds copies. `done` is told once they are recorded durably, or that they never will be.
    pub fn note(&self, node: NodeId, shard: ShardId, copies: Amount, done: ControlDone<()>) {
        let mut state = self.state.lock();
        if let Some(why) = state.ended.clone() {
            drop(state);
            log_unrecorded(node, Some(shard), copies, &why);
            return done(Err(why));
        }
        state.noted.add(node, shard, copies);
        if state.noted.waiting.len() < WAITING_MAX {
            state.noted.waiting.push(done);
            return;
        }
        drop(state);
        let error = StorageError::new("record copies that were not stored", "too many wait for it");
        done(Err(error.into()));
    }

    /// Whether anything waits to be written.
    pub fn has_any(&self) -> bool {
        let state = self.state.lock();
        let sums = [&state.noted, &state.written];
        sums.iter().any(|it| !it.by_pair.is_empty())
    }

    /// What the next group is to write. It stays here until it is said to be durable.
    pub fn take(&self) -> Taken {
        let mut state = self.state.lock();
        if state.written.by_pair.is_empty() {
            state.written = mem::take(&mut state.noted);
        }
        let pairs = state.written.by_pair.iter().take(ENTRIES_PER_GROUP);
        Taken(pairs.map(|(pair, amount)| (*pair, *amount)).collect())
    }

    /// What a group took along is durable. Those who waited for the last of it are to be told so.
    pub fn are_durable(&self, taken: Taken) -> Vec<ControlDone<()>> {
        let mut state = self.state.lock();
        let written = &mut state.written;
        for (pair, _) in taken.0 {
            written.by_pair.remove(&pair);
        }
        match written.by_pair.is_empty() {
            true => mem::take(&mut written.waiting),
            false => Vec::new(),
        }
    }

    /// Nothing will be written any more: those who wait are told why, and the log names what was
    /// not recorded.
    pub fn end(&self, why: &HandoffError) {
        let left = {
            let mut state = self.state.lock();
            state.ended.get_or_insert_with(|| why.clone());
            [mem::take(&mut state.written), mem::take(&mut state.noted)]
        };
        left.into_iter().for_each(|sums| sums.give_up(why));
    }

    /// What comes from now on will be written again.
    pub fn begin_again(&self) {
        self.state.lock().ended = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const ONE: Amount = Amount { hints: 1, bytes: 9 };

    fn note(notes: &NotStored, node: u64, shard: u64) -> Receiver<Result<(), HandoffError>> {
        let (tell, told) = channel();
        let done = Box::new(move |answer| tell.send(answer).unwrap());
        notes.note(NodeId(node), ShardId(shard), ONE, done);
        told
    }

    #[test]
    fn what_a_group_took_along_stays_until_it_is_durable_and_what_came_meanwhile_waits() {
        let notes = NotStored::default();
        let first = note(&notes, 1, 1);
        let again = note(&notes, 1, 1);
        let both = notes.take();
        assert_eq!(both.0.len(), 1);
        assert_eq!(both.0[0].1.hints, 2);
        let later = note(&notes, 1, 1);
        // The group failed: the next one takes the same.
        let taken = notes.take();
        assert_eq!(taken.0, both.0);
        for done in notes.are_durable(taken) {
            done(Ok(()));
        }
        assert!(first.try_recv().unwrap().is_ok() && again.try_recv().unwrap().is_ok());
        assert!(later.try_recv().is_err() && notes.has_any());
        let taken = notes.take();
        assert_eq!(taken.0[0].1, ONE);
        assert_eq!(notes.are_durable(taken).len(), 1);
        assert!(!notes.has_any() && notes.take().0.is_empty());
    }

    #[test]
    fn nothing_is_taken_after_the_end_and_all_is_after_a_new_beginning() {
        let notes = NotStored::default();
        let waits = note(&notes, 1, 1);
        notes.end(&HandoffError::ShutDown);
        let late = note(&notes, 1, 1);
        assert!(waits.try_recv().unwrap().is_err() && late.try_recv().unwrap().is_err());
        assert!(!notes.has_any());
        notes.begin_again();
        let again = note(&notes, 1, 1);
        let taken = notes.take();
        assert_eq!(taken.0[0].1, ONE);
        notes
            .are_durable(taken)
            .into_iter()
            .for_each(|done| done(Ok(())));
        assert!(again.try_recv().unwrap().is_ok());
    }

    #[test]
    fn beyond_so_many_pairs_copies_are_summed_up_by_node_and_none_is_missing() {
        let notes = NotStored::default();
        let waiting: Vec<_> = (0..2 * PAIRS_MAX as u64)
            .map(|shard| note(&notes, shard % 7, shard))
            .collect();
        let (mut sum, mut without_shard, mut groups) = (Amount::default(), 0, 0);
        while notes.has_any() {
            let taken = notes.take();
            assert!(taken.0.len() <= ENTRIES_PER_GROUP);
            sum = taken.0.iter().fold(sum, |sum, (_, it)| sum.plus(*it));
            without_shard += taken.0.iter().filter(|((_, it), _)| it.is_none()).count();
            groups += 1;
            let told = notes.are_durable(taken);
            assert_eq!(told.is_empty(), notes.has_any());
            told.into_iter().for_each(|done| done(Ok(())));
        }
        assert_eq!(sum.hints, 2 * PAIRS_MAX as u64);
        assert_eq!((without_shard, groups), (7, 5));
        assert!(waiting.iter().all(|told| told.try_recv().unwrap().is_ok()));
    }

    #[test]
    fn those_who_wait_are_bounded_and_everybody_is_told_of_an_end() {
        let notes = NotStored::default();
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| note(&notes, 1, 1)).collect();
        assert!(note(&notes, 1, 1).try_recv().unwrap().is_err());
        let taken = notes.take();
        assert_eq!(taken.0[0].1.hints, WAITING_MAX as u64 + 1);
        let late = note(&notes, 2, 1);
        notes.end(&HandoffError::ShutDown);
        let is_shut_down = |told: &Receiver<_>| {
            let told = told.try_recv().unwrap();
            matches!(told, Err(HandoffError::ShutDown))
        };
        assert!(waiting.iter().chain([&late]).all(is_shut_down));
        assert!(is_shut_down(&note(&notes, 3, 1)) && !notes.has_any());
    }
}
