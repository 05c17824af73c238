//! Which dead letters of a queue are gone, in the tree `hh/losses`. A rebuild finds in the
//! log what stood there once, and what was discarded or sent on looks there like what is kept.
//!
//! ```text
//! 04 <queue u64>   ranges of numbers of dead letters that are gone
//! ```
//! Value: version u8 = 1, pairs of first and last number in postcard's encoding, in order, CRC32C
//! over key and all before it u32.
//!
//! Dead letters of a queue are numbered as they come (`dead_letter.rs`), and what goes is added in
//! the step in which it goes. So between two ranges is a dead letter, and there are at most as many
//! as dead letters, and one more. Beyond a bound the lowest are forgotten: what was discarded there
//! may come back.

use crate::{
    store::format::{
        checksum::{DecodeError, decode_record, encode_record},
        ranges::{Range, Ranges},
    },
    types::{QueueId, Sequence},
};

/// What the keys begin with, in a tree that the loss journal stands in.
pub const GONE_LETTERS: u8 = 4;

const VERSION: u8 = 1;
/// At most 20 bytes each (docs/sled.md rule 3).
const RANGES_MAX: usize = 3_000;

/// Of one queue, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoneLetters(Ranges);

impl GoneLetters {
    pub fn key(queue: QueueId) -> [u8; 9] {
        let mut key = [GONE_LETTERS; 9];
        let (_, number) = key.split_at_mut(1);
        number.copy_from_slice(&queue.0.to_be_bytes());
        key
    }

    /// The queue that a key is of.
    pub fn queue_of(key: &[u8]) -> Option<QueueId> {
        let (kind, number) = key.split_first()?;
        let number = number.try_into().ok().map(u64::from_be_bytes)?;
        (*kind == GONE_LETTERS).then_some(QueueId(number))
    }

    pub fn encode(&self, queue: QueueId) -> Vec<u8> {
        let ranges = self.0.iter().map(|range| (range.first.0, range.last.0));
        let ranges: Vec<(u64, u64)> = ranges.collect();
        encode_record(&Self::key(queue), VERSION, &ranges)
    }

    pub fn decode(queue: QueueId, value: &[u8]) -> Result<GoneLetters, DecodeError> {
        let pairs: Vec<(u64, u64)> = decode_record(&Self::key(queue), VERSION, value)?;
        let mut ranges = Ranges::default();
        let mut end = None;
        for (first, last) in pairs {
            if first > last || last == u64::MAX || end.is_some_and(|end| end >= first) {
                return Err(DecodeError::Invalid("its ranges are in no order"));
            }
            end = Some(last + 1);
            ranges.insert_range(Range {
                first: Sequence(first),
                last: Sequence(last),
                bytes: 0,
            });
        }
        Ok(GoneLetters(ranges))
    }

    /// Adds the number of one that goes.
    pub fn insert(&mut self, number: u64) {
        self.0.insert(Sequence(number), 0);
        while self.0.len() > RANGES_MAX {
            self.0.take_lowest(Sequence(u64::MAX));
        }
    }

    pub fn holds(&self, number: u64) -> bool {
        self.0.holding(Sequence(number)).is_some()
    }

    /// Above all that went.
    pub fn next(&self) -> u64 {
        self.0
            .iter()
            .last()
            .map_or(1, |range| range.last.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId(3);

    #[test]
    fn the_bytes_are_as_documented_and_damage_is_noticed() {
        let mut gone = GoneLetters::default();
        assert_eq!(gone.next(), 1);
        (2..=300).rev().for_each(|number| gone.insert(number));
        gone.insert(u64::MAX - 1);
        let value = gone.encode(QUEUE);
        assert_eq!(GoneLetters::key(QUEUE), [4, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(GoneLetters::queue_of(&GoneLetters::key(QUEUE)), Some(QUEUE));
        assert_eq!(value[..5], [VERSION, 2, 2, 0xac, 2]);
        assert_eq!(GoneLetters::decode(QUEUE, &value), Ok(gone.clone()));
        assert!([2, 300, u64::MAX - 1].iter().all(|it| gone.holds(*it)));
        assert!(![1, 301, u64::MAX].iter().any(|it| gone.holds(*it)));
        assert_eq!(gone.next(), u64::MAX);
        assert!(GoneLetters::decode(QueueId(4), &value).is_err());
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(GoneLetters::decode(QUEUE, &flipped).is_err(), "bit {bit}");
        }
        let in_no_order: [[(u64, u64); 2]; 5] = [
            [(5, 4), (7, 8)],
            [(1, 2), (3, 4)],
            [(1, 5), (4, 9)],
            [(9, 9), (1, 1)],
            [(1, 1), (3, u64::MAX)],
        ];
        for ranges in in_no_order {
            let value = encode_record(&GoneLetters::key(QUEUE), VERSION, &ranges.to_vec());
            assert!(GoneLetters::decode(QUEUE, &value).is_err(), "{ranges:?}");
        }
    }

    #[test]
    fn only_so_many_are_kept_and_the_lowest_go_first() {
        let mut gone = GoneLetters::default();
        for number in 0..=RANGES_MAX as u64 {
            gone.insert(number * 2);
        }
        assert!(!gone.holds(0));
        assert!(gone.holds(2));
        let far = (u64::MAX - 1 - 2 * RANGES_MAX as u64..u64::MAX).step_by(2);
        far.for_each(|number| gone.insert(number));
        assert!(gone.encode(QUEUE).len() < 64 * 1024, "docs/sled.md rule 3");
    }
}
