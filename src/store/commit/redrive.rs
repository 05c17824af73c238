//! Dead letters that become hints again, and the records that lead from where they stood to where
//! they are.
//!
//! From every place that such a hint stood in as a dead letter, a record points to where it is now,
//! until it is done with: so whoever knows one of its places finds it, and what becomes of it is
//! known of all of them.

use crate::{
    error::StorageError,
    store::{
        commit::{accepted::Accepted, committer::Committer, dead_letters::failed},
        failpoints::point,
        format::{
            dead_letter::Letter,
            keys::{Place, QueueRef},
            loss::{Loss, LostRange},
        },
        state::queue::Queue,
    },
    types::{Amount, NodeId, QueueId, Sequence},
};

impl Committer {
    /// Takes into the group that a dead letter becomes a hint again; false if it is none any more.
    pub fn redrive(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        place: Place,
    ) -> Result<bool, StorageError> {
        let Some(dead) = self.dead_letter(accepted, node, place)? else {
            return Ok(false);
        };
        self.take_letter(accepted, node, place, &dead);
        Ok(true)
    }

    /// A dead letter was sent on as `now`: whoever looks for it is pointed there, wherever it stood
    /// before.
    pub fn point_to(
        &mut self,
        accepted: &mut Accepted,
        letter: Place,
        now: Place,
        payload_bytes: u64,
    ) {
        let mut stood = self.redriven.get(&letter).cloned().unwrap_or_default();
        stood.push(letter);
        let pointer = Letter::Redriven {
            node: now.queue.node,
            queue: now.queue.queue,
            sequence: now.sequence,
            payload_bytes,
        };
        for place in &stood {
            accepted.set(&place.letter_key(), Some(pointer.encode(*place)));
        }
        accepted.pointed.push((letter, now, stood));
    }

    /// Where a hint stood before it was sent on. What it says of itself will do if nothing points
    /// to it.
    pub fn stood(
        &self,
        now: Place,
        origin: Option<(QueueId, Sequence)>,
    ) -> Vec<(QueueId, Sequence)> {
        match self.redriven.get(&now) {
            Some(stood) => stood.iter().map(|it| it.named()).collect(),
            None => origin.into_iter().collect(),
        }
    }

    /// Removes what points to hints of a queue that are done with. Call it once the queue's cursor
    /// is written.
    pub fn forget_redriven(&mut self, queue: &Queue) -> Result<(), StorageError> {
        if self.redriven.is_empty() {
            return Ok(());
        }
        let is_gone = |now: &Place| now.queue == queue.at && queue.cursor.is_gone(now.sequence);
        let gone: Vec<_> = self.redriven.extract_if(|now, _| is_gone(now)).collect();
        let engine = self.engine()?;
        for (now, stood) in gone {
            // It is pointed to while it is a dead letter again, too.
            if engine
                .hints
                .contains_key(now.letter_key())
                .map_err(failed)?
            {
                self.redriven.insert(now, stood);
                continue;
            }
            for place in stood {
                self.writer()?
                    .remove(&engine.hints, &place.letter_key(), 0)?;
                point("letter: pointer removed")?;
            }
        }
        Ok(())
    }

    /// Records a loss of hints that nobody read. Those among them that were sent on are recorded
    /// one by one, lest they be looked for in vain where they stood; their bytes are not known, and
    /// are counted with the rest.
    pub fn record_unread(
        &mut self,
        accepted: &mut Accepted,
        queue: &Queue,
        mut loss: Loss,
        place: LostRange,
    ) {
        let is_among = |now: &Place| {
            now.queue == queue.at
                && place.holds(queue.at.queue, now.sequence)
                && !queue.cursor.is_gone(now.sequence)
        };
        let among = self.redriven.iter().filter(|(now, _)| is_among(now));
        let mut among: Vec<_> = among.map(|(now, stood)| (*now, stood.clone())).collect();
        among.sort();
        for (now, stood) in among {
            let amount = Amount { hints: 1, bytes: 0 };
            loss.amount = loss.amount.less(amount);
            let redriven = Loss {
                place: Some(LostRange::one(now.queue.queue, now.sequence)),
                amount,
                redriven_from: stood.iter().map(|it| it.named()).collect(),
                ..loss.clone()
            };
            self.journal.record(redriven, &mut accepted.losses);
        }
        if loss.amount != Amount::default() {
            self.journal.record(loss, &mut accepted.losses);
        }
    }
}

impl Place {
    /// As it is named outside of the store.
    pub fn named(&self) -> (QueueId, Sequence) {
        (self.queue.queue, self.sequence)
    }

    /// Where a record of a dead letter says that it is now.
    pub fn of(node: NodeId, queue: QueueId, sequence: Sequence) -> Place {
        Place {
            queue: QueueRef { node, queue },
            sequence,
        }
    }
}
