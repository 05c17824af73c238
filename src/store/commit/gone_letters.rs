//! Which dead letters of a queue are none any more, in the tree `hh/losses`. A rebuild finds in the
//! log what stood there once, and what was discarded or sent on looks there like what is kept.
//!
//! ```text
//! 04 <queue u64>   ranges of sequences in which there is no dead letter
//! ```
//! Value: version u8 = 1, pairs of first and last sequence in postcard's encoding, in order, CRC32C
//! over key and all before it u32.
//!
//! It changes in the step that a letter comes or goes in. Ranges reach to the next dead letters on
//! both sides, so there are at most as many as dead letters, and one more. Beyond a number the
//! lowest are forgotten: what was discarded there may come back.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::StorageError,
    store::{
        commit::{committer::Committer, dead_letters::failed, loss_journal, write_batch::Accepted},
        engine::{
            generation::Engine,
            table::{self, IVec},
        },
        format::{
            checksum::{DecodeError, seal_record, unseal_record},
            keys::{Key, Place, QueueRef},
            node_record::NodeRecord,
        },
    },
    types::{QueueId, Sequence},
};

const VERSION: u8 = 1;
/// At most 20 bytes each (SLED.md rule 3).
const RANGES_MAX: usize = 3_000;

/// Of one queue: ranges that neither overlap nor touch, by first sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoneLetters {
    ranges: BTreeMap<u64, u64>,
}

impl GoneLetters {
    pub fn key(queue: QueueId) -> [u8; 9] {
        loss_journal::key(loss_journal::GONE_LETTERS, queue.0)
    }

    /// The queue that a key is of.
    pub fn queue_of(key: &[u8]) -> Option<QueueId> {
        let (kind, number) = key.split_first()?;
        let number = number.try_into().ok().map(u64::from_be_bytes)?;
        (*kind == loss_journal::GONE_LETTERS).then_some(QueueId(number))
    }

    pub fn encode(&self, queue: QueueId) -> Vec<u8> {
        let ranges: Vec<(u64, u64)> = self.ranges.iter().map(|(a, b)| (*a, *b)).collect();
        seal_record(&Self::key(queue), VERSION, &ranges)
    }

    pub fn decode(queue: QueueId, value: &[u8]) -> Result<GoneLetters, DecodeError> {
        let ranges: Vec<(u64, u64)> = unseal_record(&Self::key(queue), VERSION, value)?;
        let ordered = ranges.iter().all(|(first, last)| first <= last);
        let mut pairs = ranges.iter().zip(ranges.iter().skip(1));
        if !ordered || !pairs.all(|((_, last), (first, _))| last < first && first - last > 1) {
            return Err(DecodeError::Invalid("its ranges are in no order"));
        }
        Ok(GoneLetters {
            ranges: ranges.into_iter().collect(),
        })
    }

    pub fn holds(&self, sequence: Sequence) -> bool {
        let below = self.ranges.range(..=sequence.0).next_back();
        below.is_some_and(|(_, last)| *last >= sequence.0)
    }

    /// Adds a range, which becomes one with all that it meets.
    fn insert(&mut self, mut first: u64, mut last: u64) {
        let reach = last.saturating_add(1);
        while let Some((&from, &to)) = self.ranges.range(..=reach).next_back()
            && to.saturating_add(1) >= first
        {
            self.ranges.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.ranges.insert(first, last);
        while self.ranges.len() > RANGES_MAX {
            self.ranges.pop_first();
        }
    }

    /// Takes one sequence out.
    fn remove(&mut self, sequence: Sequence) {
        let Sequence(one) = sequence;
        if !self.holds(sequence) {
            return;
        }
        if let Some((&first, &last)) = self.ranges.range(..=one).next_back() {
            self.ranges.remove(&first);
            if first < one {
                self.ranges.insert(first, one - 1);
            }
            if one < last {
                self.ranges.insert(one + 1, last);
            }
        }
    }
}

impl Committer {
    /// What is recorded of a queue at this point of the group. One that does not read begins anew.
    fn gone_letters(
        &self,
        accepted: &Accepted,
        queue: QueueId,
    ) -> Result<GoneLetters, StorageError> {
        let key = GoneLetters::key(queue);
        let value = match accepted.losses.get(key.as_slice()) {
            Some(value) => value.clone(),
            None => self.engine()?.losses.get(key).map_err(failed)?,
        };
        let gone = value.and_then(|value| GoneLetters::decode(queue, &value).ok());
        Ok(gone.unwrap_or_default())
    }

    /// A hint becomes a dead letter. It was none before, unless the disk forgot that it had left
    /// its queue.
    pub fn note_letter(&self, accepted: &mut Accepted, place: Place) -> Result<(), StorageError> {
        let queue = place.queue.queue;
        let mut gone = self.gone_letters(accepted, queue)?;
        if gone.holds(place.sequence) {
            gone.remove(place.sequence);
            put(accepted, queue, &gone);
        }
        Ok(())
    }

    /// Records the dead letters that are none any more once the group is written.
    pub fn note_gone_letters(&self, accepted: &mut Accepted) -> Result<(), StorageError> {
        let mut queues: BTreeMap<QueueRef, BTreeSet<Sequence>> = BTreeMap::new();
        for place in &accepted.letters_gone {
            let going = queues.entry(place.queue).or_default();
            going.insert(place.sequence);
        }
        let engine = self.engine()?;
        for (at, going) in queues {
            let mut gone = self.gone_letters(accepted, at.queue)?;
            for sequence in &going {
                // Several that follow one another are one range.
                if !gone.holds(*sequence) {
                    let (first, last) = around(&engine, at, *sequence, &going).map_err(failed)?;
                    gone.insert(first, last);
                }
            }
            put(accepted, at.queue, &gone);
        }
        Ok(())
    }
}

/// The keys of queues that no node lists any more: none of their dead letters comes back with a
/// rebuild.
pub fn unlisted<'a>(
    engine: &Engine,
    records: impl Iterator<Item = &'a NodeRecord>,
) -> table::Result<Vec<IVec>> {
    let listed = records.flat_map(|record| record.live.iter().chain(&record.dead));
    let listed: BTreeSet<QueueId> = listed.map(|at| at.queue).collect();
    let is_unlisted =
        |key: &IVec| GoneLetters::queue_of(key).is_some_and(|queue| !listed.contains(&queue));
    let keys = engine.losses.range(GoneLetters::key(QueueId(0))..).keys();
    keys.filter(|key| key.as_ref().map_or(true, is_unlisted))
        .collect()
}

fn put(accepted: &mut Accepted, queue: QueueId, gone: &GoneLetters) {
    let (key, value) = (GoneLetters::key(queue), gone.encode(queue));
    accepted.losses.insert(IVec::from(&key), Some(value.into()));
}

/// From behind the dead letter before a place to the last that goes before the next one that stays.
fn around(
    engine: &Engine,
    queue: QueueRef,
    sequence: Sequence,
    going: &BTreeSet<Sequence>,
) -> table::Result<(u64, u64)> {
    let stays = |key: &[u8]| match Key::parse(key) {
        Some(Key::Letter(place)) if !going.contains(&place.sequence) => Some(place.sequence.0),
        _ => None,
    };
    let at = Place { queue, sequence };
    let mut first = 0;
    let below = queue.letter_keys(Sequence(0)).start..at.letter_key().to_vec();
    for key in engine.hints.range(below).keys().rev() {
        if let Some(before) = stays(&key?) {
            first = before.saturating_add(1);
            break;
        }
    }
    let mut last = sequence.0;
    for key in engine
        .hints
        .range(queue.letter_keys(at.next().sequence))
        .keys()
    {
        let key = key?;
        if let Some(next) = stays(&key) {
            return Ok((first, next.saturating_sub(1).max(sequence.0)));
        }
        if let Some(Key::Letter(place)) = Key::parse(&key) {
            last = place.sequence.0;
        }
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUEUE: QueueId = QueueId(3);

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_put_in_and_not_taken_out(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..30, 0_u64..6), 0..40)
        ) {
            let (mut gone, mut set) = (GoneLetters::default(), BTreeSet::new());
            for (is_going, first, more) in steps {
                if is_going {
                    gone.insert(first, first + more);
                    set.extend(first..=first + more);
                } else {
                    gone.remove(Sequence(first));
                    set.remove(&first);
                }
                prop_assert!((0..40).all(|it| gone.holds(Sequence(it)) == set.contains(&it)));
                prop_assert_eq!(GoneLetters::decode(QUEUE, &gone.encode(QUEUE)), Ok(gone.clone()));
            }
        }
    }

    #[test]
    fn the_bytes_are_as_documented_and_damage_is_noticed() {
        let mut gone = GoneLetters::default();
        gone.insert(1, 300);
        gone.insert(u64::MAX, u64::MAX);
        let value = gone.encode(QUEUE);
        assert_eq!(GoneLetters::key(QUEUE), [4, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(GoneLetters::queue_of(&GoneLetters::key(QUEUE)), Some(QUEUE));
        assert_eq!(value[..5], [VERSION, 2, 1, 0xac, 2]);
        assert_eq!(GoneLetters::decode(QUEUE, &value), Ok(gone));
        assert!(GoneLetters::decode(QueueId(4), &value).is_err());
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(GoneLetters::decode(QUEUE, &flipped).is_err(), "bit {bit}");
        }
        let in_no_order: [[(u64, u64); 2]; 4] = [
            [(5, 4), (7, 8)],
            [(1, 2), (3, 4)],
            [(1, 5), (4, 9)],
            [(9, 9), (1, 1)],
        ];
        for ranges in in_no_order {
            let value = seal_record(&GoneLetters::key(QUEUE), VERSION, &ranges.to_vec());
            assert!(GoneLetters::decode(QUEUE, &value).is_err(), "{ranges:?}");
        }
    }

    #[test]
    fn only_so_many_are_kept_and_the_lowest_go_first() {
        let mut gone = GoneLetters::default();
        for number in 0..=RANGES_MAX as u64 {
            gone.insert(number * 2, number * 2);
        }
        assert!(!gone.holds(Sequence(0)));
        assert!(gone.holds(Sequence(2)));
        let far = (u64::MAX - 2 * RANGES_MAX as u64..=u64::MAX).step_by(2);
        far.for_each(|sequence| gone.insert(sequence, sequence));
        assert!(gone.encode(QUEUE).len() < 64 * 1024, "SLED.md rule 3");
    }
}
