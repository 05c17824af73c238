//! What the layers above ask of the store about hints that are not delivered: to let them leave, to
//! look at what became of them, and to bring dead letters back.

use std::collections::BTreeSet;

use crate::{
    error::{HandoffError, StorageError},
    store::{
        Store,
        commit::{dead_letters::letters_of, loss_journal},
        engine::{
            blocks::{self, ReadError},
            generation::Engine,
            table,
        },
        format::{
            block::Hint,
            dead_letter::{Dead, Letter},
            keys::{Place, QueueRef},
            loss::Losses,
            node_record::NodeRecord,
            peeked::PeekedHint,
            reasons::{DeadCause, Fate, LossReason},
        },
        pipeline::{
            batch::{HintKind, Leaving, WriteBatch},
            control::Control,
            done::AppendDone,
            ticket::{BatchDone, Entry, told, told_id},
        },
        state::lock::Reservation,
    },
    types::{Amount, HintId, NodeId, Sequence},
};

fn unread(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HandoffError {
    StorageError::new("read dead letters", error).into()
}

impl Store {
    /// Stores a hint that is known never to be delivered, and lets it leave in the same step: as a
    /// dead letter, or as lost. It takes the next sequence of its node and is never pending, so no
    /// limit counts it, and nobody is told that anything waits. `done` is told its id once that is
    /// durable.
    ///
    /// It is told [`EnqueueError::DiskReserve`](crate::EnqueueError::DiskReserve) where any hint
    /// would be, or why the store does not serve.
    pub fn append_undelivered(&self, node: NodeId, hint: Hint, fate: Fate, done: AppendDone) {
        let batch = WriteBatch::of_hint(node, hint, HintKind::Undelivered(fate));
        self.hand_in_unlimited(batch, told_id(done));
    }

    /// Moves a claimed hint to the node's dead letters, and lets it leave its queue in the same
    /// step. `done` is told when that is durable.
    pub fn make_dead_letter(
        &self,
        node: NodeId,
        hint: PeekedHint,
        cause: DeadCause,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        self.make_dead_letter_of_pending(node, hint, cause, move |left| done(left.map(drop)));
    }

    /// The same for a hint that may have left meanwhile: `done` is told what became a dead letter.
    pub fn make_dead_letter_of_pending(
        &self,
        node: NodeId,
        hint: PeekedHint,
        cause: DeadCause,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        self.hand_in_leaving(Leaving::Hints(node, vec![hint], Fate::Dead(cause)), done);
    }

    /// Lets claimed hints leave undelivered, and records that in the loss journal in the same step.
    /// `done` is told what left once that is durable.
    pub fn lose(
        &self,
        node: NodeId,
        hints: Vec<PeekedHint>,
        reason: LossReason,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        if matches!(
            reason,
            LossReason::Expired | LossReason::Quota | LossReason::Discarded
        ) {
            self.shared.registry.lock().note_limited(node, &hints);
        }
        self.hand_in_leaving(Leaving::Hints(node, hints, Fate::Lost(reason)), done);
    }

    /// What the loss journal holds from an index on.
    pub fn losses(&self, since: u64) -> Result<Losses, HandoffError> {
        let engine = self.shared.engine()?;
        let losses = loss_journal::read_since(&engine.losses, since);
        Ok(losses.map_err(|error| StorageError::new("read the loss journal", error))?)
    }

    /// Makes everything durable and lets no entry of the loss journal grow any more; `done` is told
    /// the index that the next one will have, on the commit thread.
    pub fn close_entries(&self, done: impl FnOnce(Result<u64, HandoffError>) + Send + 'static) {
        self.control(done, Control::CloseEntries);
    }

    /// Dead letters of a node, by queue and by their order there: at most `max`, from the one
    /// behind `after` on.
    pub fn letters(
        &self,
        node: NodeId,
        after: Option<HintId>,
        max: usize,
    ) -> Result<Vec<(Place, Dead)>, HandoffError> {
        let engine = self.shared.engine()?;
        let queues = queues_with_letters(&engine, node)?;
        let queues = queues.iter();
        // The queue that was reached may be listed no more.
        let queues = queues.skip_while(|at| after.is_some_and(|id| at.queue < id.queue));
        let found = queues.flat_map(|queue| {
            let after = after.filter(|id| id.queue == queue.queue);
            let from = after.map_or(0, |id| id.sequence.0.saturating_add(1));
            letters_of(&engine, *queue, Sequence(from)).filter_map(Result::transpose)
        });
        let found = found.take(max).collect::<table::Result<_>>();
        found.map_err(unread)
    }

    /// A dead letter with what it holds; `None` if there is none of that id.
    pub fn letter(
        &self,
        node: NodeId,
        id: HintId,
    ) -> Result<Option<(Place, Dead, Hint)>, HandoffError> {
        let engine = self.shared.engine()?;
        let queues = queues_with_letters(&engine, node)?;
        let Some(queue) = queues.into_iter().find(|at| at.queue == id.queue) else {
            return Ok(None);
        };
        let place = Place {
            queue,
            sequence: id.sequence,
        };
        let Some(dead) = dead_letter(&engine, place)? else {
            return Ok(None);
        };
        match blocks::read_letter(&engine.hints, place) {
            Ok(Some(hint)) => Ok(Some((place, dead, hint))),
            Err(ReadError::Engine(error)) => Err(unread(error)),
            // It may have been sent on or discarded a moment ago, or its node removed, whose queues
            // go piece by piece.
            Ok(None) | Err(ReadError::Damaged(_)) => {
                let is_there = dead_letter(&engine, place)?.is_some()
                    && queues_with_letters(&engine, node)?.contains(&queue);
                match is_there {
                    true => Err(HandoffError::DamagedLetter { hint: id }),
                    false => Ok(None),
                }
            }
        }
    }

    /// Where those of these ids stand whose queues have any dead letters of the node.
    pub fn places(&self, node: NodeId, ids: &[HintId]) -> Result<Vec<Place>, HandoffError> {
        let engine = self.shared.engine()?;
        let queues = queues_with_letters(&engine, node)?;
        let places = ids.iter().filter_map(|id| {
            let queue = queues.iter().find(|at| at.queue == id.queue)?;
            Some(Place {
                queue: *queue,
                sequence: id.sequence,
            })
        });
        Ok(places.collect())
    }

    /// Discards dead letters, and records that in the loss journal in the same step. `done` is told
    /// how much was still there, once that is durable.
    pub fn discard(
        &self,
        node: NodeId,
        letters: Vec<Place>,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        self.hand_in_leaving(Leaving::Letters(node, letters), done);
    }

    /// Makes a dead letter the last hint of its node's queue. `done` is told its new id, or that it
    /// was none any more, once that is durable.
    pub fn redrive(
        &self,
        node: NodeId,
        letter: Place,
        hint: Hint,
        done: impl FnOnce(Result<Option<HintId>, HandoffError>) + Send + 'static,
    ) {
        let batch = WriteBatch::of_hint(node, hint, HintKind::Redriven(letter));
        let told = told(move |written| done(written.map(|it| it.ids.first().copied())));
        self.hand_in_unlimited(batch, told);
    }

    fn hand_in_leaving(
        &self,
        leaving: Leaving,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        let told = told(move |written| done(written.map(|it| it.left)));
        self.hand_in_unlimited(WriteBatch::of_leaving(leaving), told);
    }

    /// What needs no room below the limits.
    fn hand_in_unlimited(&self, batch: WriteBatch, done: BatchDone) {
        self.hand_in_checked(Entry::new(batch, Reservation::default(), done));
    }
}

fn dead_letter(engine: &Engine, place: Place) -> Result<Option<Dead>, HandoffError> {
    let record = engine.hints.get(place.letter_key()).map_err(unread)?;
    let letter = record.and_then(|value| Letter::decode(place, &value).ok());
    Ok(letter.and_then(Letter::dead))
}

/// What a node's record says; the commit thread's own copy is not for others.
fn queues_with_letters(engine: &Engine, node: NodeId) -> Result<Vec<QueueRef>, HandoffError> {
    let record = engine.nodes.get(NodeRecord::key(node)).map_err(unread)?;
    let record = record.and_then(|value| NodeRecord::decode(node, &value).ok());
    let record = record.filter(|record| !record.removed);
    let record = record.ok_or(HandoffError::UnknownNode { node })?;
    let mut queues = record.dead;
    queues.sort_by_key(|at| at.queue);
    Ok(queues)
}

/// The same of all nodes. One that is renamed meanwhile may be missed.
pub(crate) fn queues_with_letters_of_all(
    engine: &Engine,
) -> Result<BTreeSet<QueueRef>, HandoffError> {
    let mut queues = BTreeSet::new();
    for record in engine.nodes.iter() {
        let (key, value) = record.map_err(unread)?;
        let node = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes);
        let record = node.map(|node| NodeRecord::decode(NodeId(node), &value));
        queues.extend(record.into_iter().flatten().flat_map(|record| record.dead));
    }
    Ok(queues)
}
