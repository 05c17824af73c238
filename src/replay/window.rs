//! The window: what was read of a node's queues and is not yet done, by shard.
//!
//! It spans from the oldest hint that is not done to the last one that was read, with all in between, done or not: so much may come
//! again after a crash, and so far does a shard that stalls let the others go.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::{
    store::{Mark, PeekedHint, Place},
    types::{Amount, ShardId},
};

/// Pure data: it neither reads nor sends.
#[derive(Debug, Default)]
pub struct Window {
    lanes: HashMap<ShardId, Lane>,
    /// Shards that may be sent to and have something to send, by the number of their first hint.
    ready: BTreeSet<(u64, ShardId)>,
    /// All hints that the window spans, in the order they were read.
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    span: Amount,
    /// The last hint that was read.
    last: Option<Mark>,
    /// What the next hint would add, if there was no room for it.
    wanted: Option<Amount>,
}

/// A shard's hints that are not done, with their numbers; those that are being sent are the first ones.
#[derive(Debug)]
struct Lane {
    hints: VecDeque<(u64, PeekedHint)>,
    is_free: bool,
}

#[derive(Debug)]
struct Slot {
    shard: ShardId,
    /// The hint itself, and what had left its queue between it and the one before.
    adds: Amount,
    payload_bytes: u64,
    is_done: bool,
}

impl Window {
    /// Whether all that was read is done.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Where to read on; `None` is the head.
    pub fn position(&self) -> Option<Place> {
        self.last.map(|mark| mark.place().next())
    }

    /// How much more may be read; `None` if there is no room for the next hint.
    pub fn room(&self, most: Amount) -> Option<Amount> {
        if self.slots.is_empty() {
            return Some(most);
        }
        let left = most.less(self.span);
        let wanted = self.wanted.unwrap_or(Amount { hints: 1, bytes: 1 });
        (left.hints >= wanted.hints && left.bytes >= wanted.bytes).then_some(left)
    }

    /// Takes in what was read, as far as there is room; one hint at least if the window is empty. What did not fit is read again.
    pub fn push(&mut self, hints: Vec<PeekedHint>, most: Amount) {
        self.wanted = None;
        for hint in hints {
            let adds = self.added_by(&hint);
            let span = self.span.plus(adds);
            if !self.slots.is_empty() && (span.hints > most.hints || span.bytes > most.bytes) {
                self.wanted = Some(adds);
                return;
            }
            let number = self.first + self.slots.len() as u64;
            let (mark, shard) = (hint.mark, hint.hint.shard);
            self.slots.push_back(Slot {
                shard,
                adds,
                payload_bytes: hint.hint.payload_bytes(),
                is_done: false,
            });
            self.span = span;
            self.last = Some(mark);
            let lane = self.lanes.entry(shard).or_insert_with(|| Lane {
                hints: VecDeque::new(),
                is_free: true,
            });
            if lane.is_free && lane.hints.is_empty() {
                self.ready.insert((number, shard));
            }
            lane.hints.push_back((number, hint));
        }
    }

    fn added_by(&self, hint: &PeekedHint) -> Amount {
        match self.last {
            Some(last) if last.queue == hint.mark.queue && !self.slots.is_empty() => Amount {
                hints: hint.mark.sequence.0.saturating_sub(last.sequence.0),
                bytes: hint.mark.bytes_through.saturating_sub(last.bytes_through),
            },
            _ => Amount {
                hints: 1,
                bytes: hint.hint.payload_bytes(),
            },
        }
    }

    /// The shard to send to next: of those that may be, the one with the oldest hint, since the cursor waits for that.
    pub fn ready(&self) -> Option<ShardId> {
        self.ready.first().map(|(_, shard)| *shard)
    }

    /// The shard's next hints: at least one, if it has any, and at most so many.
    pub fn next_of(&self, shard: ShardId, most: Amount) -> Vec<PeekedHint> {
        let mut bytes = 0;
        let lane = self.lanes.get(&shard).into_iter();
        lane.flat_map(|lane| &lane.hints)
            .map(|(_, hint)| hint)
            .take(usize::try_from(most.hints).unwrap_or(usize::MAX))
            .enumerate()
            .take_while(|(index, hint)| {
                bytes += hint.hint.payload_bytes();
                *index == 0 || bytes <= most.bytes
            })
            .map(|(_, hint)| hint.clone())
            .collect()
    }

    /// The shard is not to be sent to until it is [`free`](Window::free) again.
    pub fn hold(&mut self, shard: ShardId) {
        if let Some(lane) = self.lanes.get_mut(&shard) {
            lane.is_free = false;
            if let Some((number, _)) = lane.hints.front() {
                self.ready.remove(&(*number, shard));
            }
        }
    }

    /// The shard may be sent to again.
    pub fn free(&mut self, shard: ShardId) {
        let Some(lane) = self.lanes.get_mut(&shard) else {
            return;
        };
        lane.is_free = true;
        match lane.hints.front() {
            Some((number, _)) => {
                self.ready.insert((*number, shard));
            }
            None => {
                self.lanes.remove(&shard);
            }
        }
    }

    /// The first so many hints of a shard that is held are done.
    pub fn done(&mut self, shard: ShardId, hints: usize) {
        for _ in 0..hints {
            let lane = self.lanes.get_mut(&shard);
            let Some((number, _)) = lane.and_then(|lane| lane.hints.pop_front()) else {
                break;
            };
            self.finish(number);
        }
        self.trim();
    }

    /// Of the first so many hints of a shard that is held, only these are still there.
    pub fn keep_only(&mut self, shard: ShardId, of_first: usize, kept: &[PeekedHint]) {
        let Some(lane) = self.lanes.get_mut(&shard) else {
            return;
        };
        let rest = lane.hints.split_off(of_first.min(lane.hints.len()));
        let mut kept = kept.iter().map(|hint| hint.mark.place()).peekable();
        let all = std::mem::take(&mut lane.hints);
        let (stay, gone): (VecDeque<_>, VecDeque<_>) = all
            .into_iter()
            .partition(|(_, hint)| kept.next_if_eq(&hint.mark.place()).is_some());
        lane.hints = stay;
        lane.hints.extend(rest);
        for (number, _) in gone {
            self.finish(number);
        }
        self.trim();
    }

    fn finish(&mut self, number: u64) {
        let index = number.saturating_sub(self.first) as usize;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.is_done = true;
        }
    }

    /// Moves the window's beginning to the oldest hint that is not done.
    fn trim(&mut self) {
        while let Some(slot) = self.slots.front().filter(|slot| slot.is_done) {
            self.span = self.span.less(slot.adds);
            self.slots.pop_front();
            self.first += 1;
        }
        // What had left before it is now below the oldest one.
        if let Some(oldest) = self.slots.front_mut() {
            let alone = Amount {
                hints: 1,
                bytes: oldest.payload_bytes,
            };
            self.span = self.span.less(oldest.adds).plus(alone);
            oldest.adds = alone;
        }
    }

    /// The shard of the oldest hint that is not done.
    pub fn oldest(&self) -> Option<ShardId> {
        self.slots.front().map(|slot| slot.shard)
    }

    /// Whether the shard has anything that is not done.
    pub fn has(&self, shard: ShardId) -> bool {
        self.lanes.contains_key(&shard)
    }

    /// Shards with anything that is not done.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = ShardId> {
        self.lanes.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{Hint, QueueRef},
        types::{NodeId, QueueId, Sequence},
    };
    use bytes::Bytes;

    const MOST: Amount = Amount {
        hints: 10,
        bytes: 100,
    };

    /// Hints of ten bytes: (sequence, shard).
    fn hints(of: &[(u64, u64)]) -> Vec<PeekedHint> {
        let hint = |&(sequence, shard)| PeekedHint {
            mark: Mark {
                queue: QueueRef {
                    node: NodeId(1),
                    queue: QueueId(1),
                },
                sequence: Sequence(sequence),
                bytes_through: sequence * 10,
            },
            hint: Hint {
                shard: ShardId(shard),
                format: 0,
                enqueued_unix_ms: 0,
                payload: Bytes::from_static(b"ten bytes."),
                origin: None,
                write: None,
            },
        };
        of.iter().map(hint).collect()
    }

    fn sequences(hints: &[PeekedHint]) -> Vec<u64> {
        hints.iter().map(|hint| hint.mark.sequence.0).collect()
    }

    fn next_of(window: &Window, shard: u64, hints: u64, bytes: u64) -> Vec<u64> {
        sequences(&window.next_of(ShardId(shard), Amount { hints, bytes }))
    }

    #[test]
    fn the_shard_with_the_oldest_hint_is_sent_to_first_and_one_that_is_held_not_at_all() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (2, 8), (3, 7), (4, 9)]), MOST);
        assert_eq!(window.ready(), Some(ShardId(7)));
        window.hold(ShardId(7));
        assert_eq!(window.ready(), Some(ShardId(8)));
        window.hold(ShardId(8));
        window.done(ShardId(7), 1);
        assert_eq!(window.oldest(), Some(ShardId(8)));
        window.free(ShardId(7));
        assert_eq!(window.ready(), Some(ShardId(7)), "3 is older than 4");
        window.hold(ShardId(7));
        window.push(hints(&[(5, 8)]), MOST);
        assert_eq!(window.ready(), Some(ShardId(9)));
        window.hold(ShardId(9));
        assert_eq!(window.ready(), None);
        assert_eq!(window.shards().len(), 3);
    }

    #[test]
    fn a_send_carries_what_is_next_in_the_shard_within_its_limits_and_one_hint_at_least() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (2, 8), (3, 7), (4, 7)]), MOST);
        assert_eq!(next_of(&window, 7, 9, 29), [1, 3]);
        assert_eq!(next_of(&window, 7, 1, 99), [1]);
        assert_eq!(next_of(&window, 7, 9, 1), [1]);
        assert_eq!(next_of(&window, 7, 9, 30), [1, 3, 4]);
        assert!(next_of(&window, 6, 9, 30).is_empty());
    }

    #[test]
    fn the_window_spans_from_the_oldest_that_is_not_done_whatever_is_done_behind_it() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (2, 8), (3, 8), (4, 8)]), MOST);
        window.hold(ShardId(8));
        window.done(ShardId(8), 3);
        window.free(ShardId(8));
        let left = Amount {
            hints: 6,
            bytes: 60,
        };
        assert_eq!(window.room(MOST), Some(left));
        window.push(
            hints(&[(5, 8), (6, 8), (7, 8), (8, 8), (9, 8), (10, 8), (11, 8)]),
            MOST,
        );
        assert_eq!(
            window.position().unwrap().sequence,
            Sequence(11),
            "11 is read again"
        );
        assert_eq!(window.room(MOST), None);
        window.hold(ShardId(7));
        window.done(ShardId(7), 1);
        let left = Amount {
            hints: 4,
            bytes: 40,
        };
        assert_eq!(window.room(MOST), Some(left));
        window.hold(ShardId(8));
        window.done(ShardId(8), 6);
        assert!(window.is_empty());
        assert_eq!(window.room(MOST), Some(MOST));
    }

    #[test]
    fn what_had_left_in_between_counts_until_nothing_is_in_front_of_it() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (8, 8)]), MOST);
        let left = Amount {
            hints: 2,
            bytes: 20,
        };
        assert_eq!(window.room(MOST), Some(left));
        // There is room for one, but this one has another in front of it that had left, and one more.
        window.push(hints(&[(11, 8)]), MOST);
        assert_eq!(window.position().unwrap().sequence, Sequence(9));
        assert_eq!(window.room(MOST), None, "not for the next one");
        window.hold(ShardId(7));
        window.done(ShardId(7), 1);
        let left = Amount {
            hints: 9,
            bytes: 90,
        };
        assert_eq!(window.room(MOST), Some(left));
    }

    #[test]
    fn a_hint_larger_than_the_window_is_taken_in_alone() {
        let mut window = Window::default();
        let little = Amount { hints: 1, bytes: 3 };
        window.push(hints(&[(1, 7), (2, 7)]), little);
        assert_eq!(next_of(&window, 7, 9, 99), [1]);
        assert_eq!(window.room(little), None);
        window.hold(ShardId(7));
        window.done(ShardId(7), 1);
        window.free(ShardId(7));
        assert_eq!(window.shards().len(), 0);
        assert_eq!(window.room(little), Some(little));
    }

    #[test]
    fn what_could_not_be_claimed_is_skipped_wherever_it_stands() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (2, 7), (3, 7), (4, 7), (5, 7)]), MOST);
        window.hold(ShardId(7));
        let kept = hints(&[(2, 7), (4, 7)]);
        window.keep_only(ShardId(7), 4, &kept);
        assert_eq!(next_of(&window, 7, 9, 99), [2, 4, 5]);
        window.done(ShardId(7), 2);
        assert_eq!(next_of(&window, 7, 9, 99), [5]);
        window.keep_only(ShardId(7), 1, &[]);
        assert!(window.is_empty());
    }
}
