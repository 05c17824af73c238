//! What a group does with hints that leave undelivered, and with dead letters: it works out the
//! records, which `write_batch.rs` writes as one with all else of the group.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::StorageError,
    store::{
        commit::{committer::Committer, trim::Letters, write_batch::Accepted},
        engine::{
            generation::Engine,
            table::{self, IVec},
        },
        failpoints::point,
        format::{
            cursor::Cursor,
            dead_letter::{Dead, Letter},
            keys::{Key, Place, QueueRef},
            loss::{Loss, LostRange},
            peeked::{Mark, PeekedHint},
            reasons::{Burial, Fate, LossReason},
        },
        pipeline::events::StoreEvent,
    },
    types::{Amount, HintId, NodeId, QueueId, Sequence, ShardId},
};

pub fn failed(error: table::Error) -> StorageError {
    StorageError::new("read a dead letter", error)
}

impl Accepted {
    /// Where a queue will stand, to be moved on; `None` if the node has no such queue.
    fn cursor(
        &mut self,
        node: NodeId,
        at: QueueRef,
        committer: &Committer,
    ) -> Option<(&mut Cursor, Sequence)> {
        let queue = committer.shared.registry.lock().queue(node, at)?;
        let cursor = self.cursors.entry((node, at)).or_insert(queue.cursor);
        Some((cursor, queue.watermark))
    }
}

impl Committer {
    /// Takes into the group that hints leave. Returns what does: those that are pending still.
    pub fn depart(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hints: Vec<PeekedHint>,
        fate: &Fate,
    ) -> Result<Amount, StorageError> {
        let leave = fate.leave();
        let mut left = Amount::default();
        let leaves = |PeekedHint { mark, hint }: &&PeekedHint| {
            let Some((cursor, watermark)) = accepted.cursor(node, mark.queue, self) else {
                return false;
            };
            if mark.sequence > watermark {
                return false;
            }
            let gone = cursor.leave(mark.sequence, hint.payload_bytes(), leave);
            left = left.plus(gone);
            gone.hints > 0
        };
        let leaving: Vec<&PeekedHint> = hints.iter().filter(leaves).collect();
        self.record(accepted, node, &leaving, fate)?;
        // All of them are claimed no longer.
        accepted.departed.push((node, hints, leave));
        Ok(left)
    }

    /// Takes into the group that a hint of it leaves in it. The registry knows nothing of it before
    /// the group is published.
    pub fn leave_at_once(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hint: PeekedHint,
        fate: &Fate,
    ) -> Result<(), StorageError> {
        let Mark {
            queue, sequence, ..
        } = hint.mark;
        let known = || self.shared.registry.lock().queue(node, queue);
        let cursor = accepted.cursors.entry((node, queue));
        // A queue that nobody sees yet begins with this group.
        let cursor = cursor.or_insert_with(|| known().map_or_else(Cursor::start, |it| it.cursor));
        cursor.leave(sequence, hint.hint.payload_bytes(), fate.leave());
        self.record(accepted, node, &[&hint], fate)?;
        accepted.stillborn.push((node, hint, fate.leave()));
        Ok(())
    }

    /// What is to tell of hints that leave.
    fn record(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        leaving: &[&PeekedHint],
        fate: &Fate,
    ) -> Result<(), StorageError> {
        match fate {
            Fate::Lost(reason) => self.record_lost(accepted, node, leaving, *reason),
            Fate::Dead(burial) => {
                for hint in leaving {
                    self.bury(accepted, node, hint, burial)?;
                }
            }
        }
        Ok(())
    }

    /// An entry of the loss journal for each shard and queue, and for each hint that had been a
    /// dead letter.
    fn record_lost(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hints: &[&PeekedHint],
        reason: LossReason,
    ) {
        type LeaveKind = (QueueId, ShardId, Option<(QueueId, Sequence)>);
        let mut lost: BTreeMap<LeaveKind, Loss> = BTreeMap::new();
        for PeekedHint { mark, hint } in hints {
            let kind = (mark.queue.queue, hint.shard, hint.origin);
            let mut place = LostRange::one(mark.queue.queue, mark.sequence);
            let loss = lost.entry(kind).or_insert_with(|| Loss {
                redriven_from: self.stood(mark.place(), hint.origin),
                ..Loss::new(node, Some(hint.shard), None, Amount::default(), reason)
            });
            if let Some(known) = loss.place {
                place.include(known.first, known.last);
            }
            loss.place = Some(place);
            loss.amount = loss.amount.plus(Amount {
                hints: 1,
                bytes: hint.payload_bytes(),
            });
        }
        for loss in lost.into_values() {
            self.journal.record(loss, &mut accepted.losses);
        }
    }

    /// The dead letter, its payload's block, and what must make room for it.
    fn bury(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hint: &PeekedHint,
        burial: &Burial,
    ) -> Result<(), StorageError> {
        let (place, payload_bytes) = (hint.mark.place(), hint.hint.payload_bytes());
        let more = Amount {
            hints: 1,
            bytes: payload_bytes,
        };
        self.make_room_for_letter(accepted, node, more)?;
        let dead = Dead::new(hint.hint.shard, payload_bytes, burial.clone());
        let burial = dead.burial.clone();
        let letter = Letter::Dead(dead);
        accepted.set(&place.letter_key(), Some(letter.encode(place)));
        self.note_letter(accepted, place)?;
        let block = self.encoding.own.encode_letter(place, &hint.hint);
        accepted.letter_blocks.push(block);
        accepted.letters(node).add(place, more);
        self.buried.push(StoreEvent::Buried {
            node,
            hint: HintId {
                store: self.shared.store,
                queue: place.queue.queue,
                sequence: place.sequence,
            },
            shard: hint.hint.shard,
            burial,
        });
        let record = self.records.entry(node).or_default();
        if !record.dead.contains(&place.queue) {
            record.dead.push(place.queue);
            accepted.rewrites.insert(node);
        }
        Ok(())
    }

    /// Discards the oldest dead letters of a node until `more` fits its quota beside the rest, or
    /// none is left.
    fn make_room_for_letter(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        more: Amount,
    ) -> Result<(), StorageError> {
        let max_hints = self.config.max_dead_letters;
        let max_bytes = self.config.max_dead_letter_bytes;
        let mut there = self.shared.registry.lock().letters(node);
        if let Some(changed) = accepted.letters.get(&node) {
            there = changed.of(there);
        }
        let over = |there: Amount| {
            let wanted = there.plus(more);
            wanted.hints > max_hints || wanted.bytes > max_bytes
        };
        if !over(there) {
            return Ok(());
        }
        let letters = self.oldest_letters(accepted, node)?.take_while(|letter| {
            let goes_on = over(there);
            if let Ok((_, dead)) = letter {
                there = there.less(one(dead));
            }
            goes_on
        });
        let letters: Vec<_> = letters.collect::<table::Result<_>>().map_err(failed)?;
        for (place, dead) in letters {
            self.discard_one(accepted, node, place, &dead, LossReason::DeadLetterQuota);
            accepted.letters(node).evict(one(&dead));
        }
        Ok(())
    }

    /// A node's dead letters as they are at this point of the group, by queue and by their order
    /// there; those of the group come last.
    fn oldest_letters(
        &self,
        accepted: &Accepted,
        node: NodeId,
    ) -> Result<impl Iterator<Item = table::Result<(Place, Dead)>>, StorageError> {
        let engine = self.engine()?;
        let queues = self.records.get(&node).map(|record| record.dead.clone());
        let mut queues = queues.unwrap_or_default();
        queues.sort_by_key(|at| at.queue);
        let changed: BTreeMap<Place, Option<Dead>> = accepted
            .hints
            .iter()
            .filter_map(|(key, value)| match Key::parse(key)? {
                Key::Letter(place) if queues.contains(&place.queue) => {
                    let letter = value.as_ref().and_then(|it| read_letter(key, it));
                    Some((place, letter.and_then(|(_, letter)| letter.dead())))
                }
                _ => None,
            })
            .collect();
        let new = changed.clone().into_iter();
        let new = new.filter_map(|(place, dead)| Some(Ok((place, dead?))));
        let stored = queues
            .into_iter()
            .flat_map(move |queue| letters_of(&engine, queue, Sequence(0)))
            .filter_map(Result::transpose)
            .filter(move |letter| {
                letter
                    .as_ref()
                    .map_or(true, |(place, _)| !changed.contains_key(place))
            });
        Ok(stored.chain(new))
    }

    /// Takes into the group that dead letters are discarded. Returns what is: those that are there
    /// still.
    pub fn discard(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        letters: &[Place],
    ) -> Result<Amount, StorageError> {
        let mut left = Amount::default();
        for place in letters {
            if let Some(dead) = self.dead_letter(accepted, node, *place)? {
                left = left.plus(one(&dead));
                self.discard_one(accepted, node, *place, &dead, LossReason::Discarded);
            }
        }
        Ok(left)
    }

    fn discard_one(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        place: Place,
        dead: &Dead,
        reason: LossReason,
    ) {
        let stood = self.redriven.get(&place).cloned().unwrap_or_default();
        let at = LostRange::one(place.queue.queue, place.sequence);
        let loss = Loss {
            redriven_from: stood.iter().map(|it| it.named()).collect(),
            ..Loss::new(node, Some(dead.shard), Some(at), one(dead), reason)
        };
        self.journal.record(loss, &mut accepted.losses);
        for place in stood {
            accepted.set(&place.letter_key(), None);
        }
        self.take_letter(accepted, node, place, dead);
    }

    pub fn take_letter(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        place: Place,
        dead: &Dead,
    ) {
        accepted.set(&place.letter_key(), None);
        accepted.removed_bytes += Letter::Dead(dead.clone()).encode(place).len();
        accepted.letters(node).take(place, one(dead));
        accepted.letters_gone.push(place);
    }

    /// A dead letter of a node as it is at this point of the group.
    pub fn dead_letter(
        &self,
        accepted: &Accepted,
        node: NodeId,
        place: Place,
    ) -> Result<Option<Dead>, StorageError> {
        let record = self.records.get(&node);
        if !record.is_some_and(|record| record.dead.contains(&place.queue)) {
            return Ok(None);
        }
        let key = place.letter_key();
        let value = match accepted.hints.get(key.as_slice()) {
            Some(value) => value.clone(),
            None => self.engine()?.hints.get(key).map_err(failed)?,
        };
        let letter = value.and_then(|value| Letter::decode(place, &value).ok());
        Ok(letter.and_then(Letter::dead))
    }
}

impl Committer {
    /// Discards all that a node has, in one step with the record of it and with its tombstone.
    pub fn forsake(&mut self, node: NodeId, reason: LossReason) -> Result<Amount, StorageError> {
        let record = self.records.entry(node).or_default();
        let had = std::mem::take(record);
        let queues: BTreeSet<QueueRef> = had
            .live
            .iter()
            .chain(&had.retired)
            .chain(&had.dead)
            .copied()
            .collect();
        record.removed = true;
        record.retired = queues.iter().copied().collect();
        let mut accepted = Accepted::default();
        accepted.rewrites.insert(node);
        let pending = self.record_forsaken(&mut accepted, node, &had.dead, reason)?;
        self.write_as_one(Vec::new(), accepted)?;
        point("drop: tombstone written")?;
        self.writer()?.commit()?;
        point("drop: tombstone durable")?;
        self.tails.remove(&node);
        self.redriven.retain(|now, stood| {
            stood.retain(|place| !queues.contains(&place.queue));
            !queues.contains(&now.queue) && !stood.is_empty()
        });
        for queue in queues {
            self.trimmer.whole(node, queue, Letters::Go);
        }
        self.shared.registry.lock().remove(node);
        self.shared.tell_departed();
        self.tell_what_left();
        Ok(pending)
    }

    /// Of hints that wait the shards are not looked up: that would take reading all of them.
    fn record_forsaken(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        dead: &[QueueRef],
        reason: LossReason,
    ) -> Result<Amount, StorageError> {
        let queues = self.shared.registry.lock().nodes.get(&node).cloned();
        let queues = queues.unwrap_or_default();
        for queue in queues.queues.iter().filter(|queue| !queue.is_drained()) {
            let place = LostRange {
                queue: queue.at.queue,
                first: queue.cursor.next,
                last: queue.watermark,
            };
            let loss = Loss::new(node, None, Some(place), queue.pending(), reason);
            tracing::warn!(
                node = node.0,
                queue = place.queue.0,
                hints = loss.amount.hints,
                bytes = loss.amount.bytes,
                first_lost = place.first.0,
                last_lost = place.last.0,
                ?reason,
                "node removed; its hints are discarded"
            );
            self.record_unread(accepted, queue, loss, place);
        }
        let engine = self.engine()?;
        for queue in dead {
            for letter in letters_of(&engine, *queue, Sequence(0)).filter_map(Result::transpose) {
                let (place, dead) = letter.map_err(failed)?;
                self.discard_one(accepted, node, place, &dead, reason);
            }
        }
        accepted.status_gone = Some(node);
        // The records themselves go with their queues, bit by bit.
        accepted.hints.clear();
        accepted.removed_bytes = 0;
        accepted.letters_gone.clear();
        Ok(queues.pending())
    }
}

/// What one of them amounts to.
pub fn one(dead: &Dead) -> Amount {
    Amount {
        hints: 1,
        bytes: dead.payload_bytes,
    }
}

/// The dead letters of a queue, in order, from one of its sequences on. `None` in place of what is
/// none any more, or damaged.
pub fn letters_of(
    engine: &Engine,
    queue: QueueRef,
    from: Sequence,
) -> impl Iterator<Item = table::Result<Option<(Place, Dead)>>> + use<> {
    engine.hints.range(queue.letter_keys(from)).map(|entry| {
        let (key, value) = entry?;
        Ok(read_letter(&key, &value).and_then(|(place, letter)| Some((place, letter.dead()?))))
    })
}

/// Reads a record of a dead letter; `None`, and a line in the log, if it is damaged.
pub fn read_letter(key: &IVec, value: &IVec) -> Option<(Place, Letter)> {
    let Key::Letter(place) = Key::parse(key)? else {
        return None;
    };
    match Letter::decode(place, value) {
        Ok(letter) => Some((place, letter)),
        Err(error) => {
            tracing::error!(
                queue = place.queue.queue.0, sequence = place.sequence.0, %error,
                "the record of a dead letter is damaged"
            );
            None
        }
    }
}
