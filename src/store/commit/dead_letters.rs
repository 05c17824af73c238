//! Dead letters in a group: hints that become some, and those that make room or are discarded.

use std::collections::BTreeMap;

use crate::{
    error::StorageError,
    store::{
        commit::{accepted::Accepted, committer::Committer},
        engine::{
            generation::Engine,
            table::{self, IVec},
        },
        format::{
            dead_letter::{Dead, Letter},
            dead_letter_count::{LetterTallies, LetterTally, sum},
            gone_letters::GoneLetters,
            keys::{Key, Place, QueueRef},
            loss::{Loss, LostRange},
            peeked::PeekedHint,
            reasons::{DeadCause, LossReason},
        },
        pipeline::events::StoreEvent,
    },
    types::{Amount, HintId, NodeId, QueueId, Sequence},
};

pub fn failed(error: table::Error) -> StorageError {
    StorageError::new("read a dead letter", error)
}

impl Accepted {
    /// The dead letters that a node will have, to be changed.
    fn letters(&mut self, node: NodeId, committer: &Committer) -> &mut LetterTallies {
        let registry = &committer.shared.registry;
        let known = || {
            registry
                .lock()
                .nodes
                .get(&node)
                .map(|it| it.letters.clone())
        };
        let letters = self.letters.entry(node);
        letters.or_insert_with(|| known().unwrap_or_default())
    }
}

impl Committer {
    /// The dead letter, its payload's block, and what must make room for it.
    pub fn make_dead_letter(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hint: &PeekedHint,
        cause: &DeadCause,
    ) -> Result<(), StorageError> {
        let (place, payload_bytes) = (hint.mark.place(), hint.hint.payload_bytes());
        let more = Amount {
            hints: 1,
            bytes: payload_bytes,
        };
        self.make_room_for_letter(accepted, node, more)?;
        let tally = accepted.letters(node, self).entry(place.queue);
        let tally = tally.or_insert_with(LetterTally::none);
        tally.add(place.sequence, more);
        let number = tally.take_number();
        let dead = Dead::new(number, hint.hint.shard, payload_bytes, cause.clone());
        let cause = dead.cause.clone();
        let letter = Letter::Dead(dead);
        accepted.set(&place.letter_key(), Some(letter.encode(place)));
        let block = self.encoding.own.encode_letter(place, &hint.hint);
        accepted.letter_blocks.push(block);
        self.dead_lettered.push(StoreEvent::DeadLettered {
            node,
            hint: HintId {
                store: self.shared.store,
                queue: place.queue.queue,
                sequence: place.sequence,
            },
            shard: hint.hint.shard,
            cause,
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
        let mut there = sum(accepted.letters(node, self));
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
            let evicted = accepted.evicted.entry(node).or_default();
            *evicted = evicted.plus(one(&dead));
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

    pub fn discard_one(
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
        if let Some(tally) = accepted.letters(node, self).get_mut(&place.queue) {
            tally.amount = tally.amount.less(one(dead));
        }
        accepted.letters_gone.push((place, dead.number));
    }

    /// Records the dead letters that are none any more once the group is written. A record that
    /// does not read begins anew.
    pub fn note_gone_letters(&self, accepted: &mut Accepted) -> Result<(), StorageError> {
        let engine = self.engine()?;
        let mut queues: BTreeMap<QueueId, Vec<u64>> = BTreeMap::new();
        for (place, number) in &accepted.letters_gone {
            let going = queues.entry(place.queue.queue).or_default();
            going.push(*number);
        }
        for (queue, going) in queues {
            let key = GoneLetters::key(queue);
            let stored = engine.losses.get(key).map_err(failed)?;
            let gone = stored.and_then(|value| GoneLetters::decode(queue, &value).ok());
            let mut gone = gone.unwrap_or_default();
            going.into_iter().for_each(|number| gone.insert(number));
            let value = gone.encode(queue).into();
            accepted.losses.insert(IVec::from(&key), Some(value));
        }
        Ok(())
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
fn read_letter(key: &IVec, value: &IVec) -> Option<(Place, Letter)> {
    let Key::Letter(place) = Key::parse(key)? else {
        return None;
    };
    match Letter::decode(place, value) {
        Ok(letter) => Some((place, letter)),
        Err(error) => {
            tracing::error!(
                node = place.queue.node.0, queue = place.queue.queue.0, sequence = place.sequence.0, %error,
                "the record of a dead letter is damaged"
            );
            None
        }
    }
}
