//! The window: what was read of a node's queues and is not yet done, by shard.
//!
//! It is read in passes, each from the head of the first queue to the end of the last. Mostly there
//! is one pass, which goes on whenever hints come. A shard that is left alone may be set aside
//! (`aside.rs`): then others are read in its place, and a further pass takes in what was passed over.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::aside::Aside;
use crate::{
    store::{PeekedHint, Place, QueueRef},
    types::{Amount, Sequence, ShardId},
};

/// Pure data: it neither reads nor sends.
#[derive(Debug, Default)]
pub struct Window {
    lanes: HashMap<ShardId, Lane>,
    ready: Ready,
    /// The first hint of every lane.
    fronts: BTreeSet<(Position, ShardId)>,
    /// What is in the lanes.
    holds: Amount,
    /// The node's queues, in the order in which they are read.
    queues: Vec<QueueRef>,
    /// The last hint that this pass has read.
    last: Option<Place>,
    /// What the next hint would add, if there was no room for it.
    wanted: Option<Amount>,
    pub aside: Aside,
}

/// Where a hint stands among all of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    queue: usize,
    sequence: Sequence,
}

/// What is known of a shard, by its sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// None was made since something of it is in the window.
    New,
    /// The last one was taken.
    Well,
    /// The last one failed.
    Failed,
}

/// Shards that may be sent to and have something to send, by first hint.
#[derive(Debug, Default)]
struct Ready {
    new: BTreeSet<(Position, ShardId)>,
    well: BTreeSet<(Position, ShardId)>,
    failed: BTreeSet<(Position, ShardId)>,
}

impl Ready {
    fn of(&self, standing: Standing) -> &BTreeSet<(Position, ShardId)> {
        match standing {
            Standing::New => &self.new,
            Standing::Well => &self.well,
            Standing::Failed => &self.failed,
        }
    }

    fn of_mut(&mut self, standing: Standing) -> &mut BTreeSet<(Position, ShardId)> {
        match standing {
            Standing::New => &mut self.new,
            Standing::Well => &mut self.well,
            Standing::Failed => &mut self.failed,
        }
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.well.is_empty() && self.failed.is_empty()
    }
}

/// A shard's hints that are not done; those that are being sent are the first ones.
#[derive(Debug)]
struct Lane {
    hints: VecDeque<(Position, PeekedHint)>,
    /// The last hint that was taken in.
    last: Position,
    is_free: bool,
    standing: Standing,
}

impl Window {
    /// Whether nothing is held, and nothing set aside.
    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.aside.shards().len() == 0
    }

    /// Whether nothing is held.
    pub fn holds_nothing(&self) -> bool {
        self.fronts.is_empty()
    }

    /// Where to read on; `None` is the head.
    pub fn position(&self) -> Option<Place> {
        self.last.map(Place::next)
    }

    /// Begins to read at the head again: what was passed over is taken in this time.
    pub fn begin_pass(&mut self) {
        self.last = None;
        self.aside.begin_pass();
    }

    /// How much more may be read; `None` if there is no room for the next hint.
    pub fn room(&self, most: Amount) -> Option<Amount> {
        if self.holds_nothing() {
            return Some(most);
        }
        let left = most.less(self.holds);
        let wanted = self.wanted.unwrap_or(Amount { hints: 1, bytes: 1 });
        (left.hints >= wanted.hints && left.bytes >= wanted.bytes).then_some(left)
    }

    /// Takes in what was read, as far as there is room; one hint at least if the window is empty.
    /// What did not fit is read again.
    pub fn push(&mut self, hints: Vec<PeekedHint>, most: Amount) {
        self.wanted = None;
        for hint in hints {
            let place = hint.mark.place();
            let position = self.position_of(place);
            let shard = hint.hint.shard;
            let lane = self.lanes.get(&shard);
            let is_known = lane.is_some_and(|lane| position <= lane.last);
            if !is_known && !self.aside.passes_over(shard) {
                let adds = amount_of(&hint);
                let holds = self.holds.plus(adds);
                let is_over = holds.hints > most.hints || holds.bytes > most.bytes;
                if !self.holds_nothing() && is_over {
                    self.wanted = Some(adds);
                    return;
                }
                self.take_in(position, hint);
            }
            self.last = Some(place);
        }
    }

    /// Takes in the next hint of a shard that was set aside, read by itself. If it is not there any
    /// more the next pass finds what is.
    pub fn put_back(&mut self, shard: ShardId, hint: Option<PeekedHint>) {
        let Some(position) = self.aside.take(shard) else {
            return;
        };
        match hint.filter(|hint| self.position_of(hint.mark.place()) == position) {
            Some(hint) => self.take_in(position, hint),
            None => self.aside.forget(shard),
        }
    }

    fn take_in(&mut self, position: Position, hint: PeekedHint) {
        let shard = hint.hint.shard;
        self.holds = self.holds.plus(amount_of(&hint));
        let lane = self.lanes.entry(shard).or_insert_with(|| Lane {
            hints: VecDeque::new(),
            last: position,
            is_free: true,
            standing: Standing::New,
        });
        lane.last = position;
        if lane.hints.is_empty() {
            self.fronts.insert((position, shard));
            if lane.is_free {
                self.ready.of_mut(lane.standing).insert((position, shard));
            }
        }
        lane.hints.push_back((position, hint));
    }

    fn position_of(&mut self, Place { queue, sequence }: Place) -> Position {
        // Mostly there is one, and mostly it is the last one.
        let known = self.queues.iter().rposition(|it| *it == queue);
        let queue = known.unwrap_or_else(|| {
            self.queues.push(queue);
            self.queues.len() - 1
        });
        Position { queue, sequence }
    }

    /// Of the shards of this standing that may be sent to, the one with the oldest hint.
    pub fn ready(&self, standing: Standing) -> Option<(Position, ShardId)> {
        self.ready.of(standing).first().copied()
    }

    /// The same, but from somewhere between the oldest and the newest one, by a fraction of 2^32.
    pub fn ready_at(&self, standing: Standing, fraction: u32) -> Option<(Position, ShardId)> {
        let ready = self.ready.of(standing);
        let ((first, _), (last, _)) = (*ready.first()?, *ready.last()?);
        if first.queue != last.queue {
            return ready.first().copied();
        }
        let span = u128::from(last.sequence.0 - first.sequence.0);
        let from = first.sequence.0 + ((span * u128::from(fraction)) >> 32) as u64;
        let from = Position {
            sequence: Sequence(from),
            ..first
        };
        ready.range((from, ShardId(0))..).next().copied()
    }

    /// Sets shards aside that failed, may be tried again and are not yet; but for a hint of one of
    /// them, which is next.
    pub fn set_failed_aside(&mut self) {
        let ready = self.ready.failed.iter();
        let lane = |shard| self.lanes.get(shard);
        let is_one = |shard| lane(shard).is_some_and(|lane| lane.hints.len() == 1);
        let next = ready.clone().find(|(_, shard)| is_one(shard)).copied();
        let others: Vec<_> = ready.filter(|it| Some(**it) != next).copied().collect();
        for (_, shard) in others {
            self.hold(shard);
            self.set_aside(shard);
            self.aside.is_due(shard);
        }
    }

    /// Whether any shard may be sent to.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn standing(&self, shard: ShardId) -> Standing {
        let lane = self.lanes.get(&shard);
        lane.map_or(Standing::New, |lane| lane.standing)
    }

    /// The shard's sends went so.
    pub fn stands(&mut self, shard: ShardId, standing: Standing) {
        let Some(lane) = self.lanes.get_mut(&shard) else {
            return;
        };
        if let Some((position, _)) = lane.hints.front()
            && self.ready.of_mut(lane.standing).remove(&(*position, shard))
        {
            self.ready.of_mut(standing).insert((*position, shard));
        }
        lane.standing = standing;
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
            if let Some((position, _)) = lane.hints.front() {
                self.ready.of_mut(lane.standing).remove(&(*position, shard));
            }
        }
    }

    /// The shard may be sent to again.
    pub fn free(&mut self, shard: ShardId) {
        let Some(lane) = self.lanes.get_mut(&shard) else {
            if self.aside.has(shard) {
                self.aside.is_due(shard);
            }
            return;
        };
        lane.is_free = true;
        match lane.hints.front() {
            Some((position, _)) => {
                self.ready.of_mut(lane.standing).insert((*position, shard));
            }
            None => {
                self.lanes.remove(&shard);
                self.aside.forget(shard);
            }
        }
    }

    /// Gives the memory of a shard that is held, and of which nothing is being sent, for others.
    pub fn set_aside(&mut self, shard: ShardId) {
        let Some(lane) = self.lanes.remove(&shard) else {
            return;
        };
        for (_, hint) in &lane.hints {
            self.holds = self.holds.less(amount_of(hint));
        }
        if let Some((position, hint)) = lane.hints.front() {
            self.fronts.remove(&(*position, shard));
            self.aside.set(shard, *position, hint.mark.place());
        }
    }

    /// The first so many hints of a shard that is held are done.
    pub fn done(&mut self, shard: ShardId, hints: usize) {
        self.keep_only(shard, hints, &[]);
    }

    /// Of the first so many hints of a shard that is held, only these are still there.
    pub fn keep_only(&mut self, shard: ShardId, of_first: usize, kept: &[PeekedHint]) {
        let Some(lane) = self.lanes.get_mut(&shard) else {
            return;
        };
        if let Some((position, _)) = lane.hints.front() {
            self.fronts.remove(&(*position, shard));
        }
        let rest = lane.hints.split_off(of_first.min(lane.hints.len()));
        let mut kept = kept.iter().map(|hint| hint.mark.place()).peekable();
        let first = std::mem::take(&mut lane.hints);
        for (position, hint) in first {
            match kept.next_if_eq(&hint.mark.place()) {
                Some(_) => lane.hints.push_back((position, hint)),
                None => self.holds = self.holds.less(amount_of(&hint)),
            }
        }
        lane.hints.extend(rest);
        if let Some((position, _)) = lane.hints.front() {
            self.fronts.insert((*position, shard));
        }
    }

    /// The shard of the oldest hint that is not done.
    pub fn oldest(&self) -> Option<ShardId> {
        let fronts = [self.fronts.first().copied(), self.aside.oldest()];
        fronts.into_iter().flatten().min().map(|(_, shard)| shard)
    }

    /// Whether the shard has anything that is not done.
    pub fn has(&self, shard: ShardId) -> bool {
        self.lanes.contains_key(&shard) || self.aside.has(shard)
    }

    /// Shards with anything that is not done.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.lanes.keys().copied().chain(self.aside.shards())
    }

    /// How many these are.
    pub fn shard_count(&self) -> usize {
        self.lanes.len() + self.aside.shards().len()
    }
}

fn amount_of(hint: &PeekedHint) -> Amount {
    Amount {
        hints: 1,
        bytes: hint.hint.payload_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{Hint, Mark, QueueRef},
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

    fn next(window: &Window) -> Option<ShardId> {
        window.ready(Standing::New).map(|(_, shard)| shard)
    }

    #[test]
    fn the_shard_with_the_oldest_hint_is_sent_to_first_and_one_that_is_held_not_at_all() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (2, 8), (3, 7), (4, 9)]), MOST);
        assert_eq!(next(&window), Some(ShardId(7)));
        window.hold(ShardId(7));
        assert_eq!(next(&window), Some(ShardId(8)));
        window.hold(ShardId(8));
        window.done(ShardId(7), 1);
        assert_eq!(window.oldest(), Some(ShardId(8)));
        window.free(ShardId(7));
        assert_eq!(next(&window), Some(ShardId(7)), "3 is older than 4");
        window.hold(ShardId(7));
        window.push(hints(&[(5, 8)]), MOST);
        assert_eq!(next(&window), Some(ShardId(9)));
        window.hold(ShardId(9));
        assert_eq!(next(&window), None);
        assert_eq!(window.shard_count(), 3);
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

    /// How much more may be read.
    fn room(window: &Window) -> Option<(u64, u64)> {
        window.room(MOST).map(|room| (room.hints, room.bytes))
    }

    #[test]
    fn what_is_done_makes_room_wherever_it_stands() {
        let mut window = Window::default();
        window.push(hints(&[(1, 7), (2, 8), (3, 8), (4, 8)]), MOST);
        window.hold(ShardId(8));
        window.done(ShardId(8), 3);
        window.free(ShardId(8));
        assert_eq!(room(&window), Some((9, 90)));
        let more: Vec<_> = (5..=14).map(|sequence| (sequence, 8)).collect();
        window.push(hints(&more), MOST);
        let position = window.position().unwrap();
        assert_eq!(position.sequence, Sequence(14), "14 is read again");
        assert_eq!(room(&window), None);
        window.hold(ShardId(7));
        window.done(ShardId(7), 1);
        assert_eq!(room(&window), Some((1, 10)));
    }

    #[test]
    fn a_shard_set_aside_makes_room_and_comes_back_in_order_with_the_next_pass() {
        let mut window = Window::default();
        let first = hints(&[(1, 7), (2, 8), (3, 7), (4, 8)]);
        window.push(first.clone(), MOST);
        window.hold(ShardId(7));
        window.set_aside(ShardId(7));
        assert_eq!(room(&window), Some((8, 80)));
        assert_eq!(window.oldest(), Some(ShardId(7)));
        assert_eq!(window.shard_count(), 2);
        window.push(hints(&[(5, 7), (6, 9)]), MOST);
        assert_eq!(room(&window), Some((7, 70)), "5 is passed over");
        assert!(!window.aside.wants_pass());

        window.free(ShardId(7));
        let (shard, place) = window.aside.next_due().unwrap();
        assert_eq!((shard, place.sequence), (ShardId(7), Sequence(1)));
        window.put_back(shard, first.first().cloned());
        assert_eq!(next_of(&window, 7, 9, 99), [1], "only the next one");
        window.push(hints(&[(7, 7)]), MOST);
        assert_eq!(next_of(&window, 7, 9, 99), [1], "3 and 5 come first");
        window.hold(ShardId(7));
        window.done(ShardId(7), 1);
        window.free(ShardId(7));
        assert!(window.aside.wants_pass());

        window.begin_pass();
        assert!(window.position().is_none() && !window.aside.wants_pass());
        let left = [(2, 8), (3, 7), (4, 8), (5, 7), (6, 9), (7, 7), (8, 8)];
        window.push(hints(&left), MOST);
        assert_eq!(next_of(&window, 7, 9, 99), [3, 5, 7]);
        assert_eq!(next_of(&window, 8, 9, 99), [2, 4, 8], "none of them twice");
        assert_eq!(next_of(&window, 9, 9, 99), [6]);
    }

    #[test]
    fn what_is_not_there_any_more_is_left_to_the_next_pass() {
        for found in [None, Some((3, 8))] {
            let mut window = Window::default();
            window.push(hints(&[(1, 7)]), MOST);
            window.hold(ShardId(7));
            window.set_aside(ShardId(7));
            let found = found.map(|it| hints(&[it])).and_then(|mut it| it.pop());
            window.put_back(ShardId(7), found);
            assert!(window.is_empty() && window.aside.wants_pass());
        }
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
        assert_eq!(window.shard_count(), 0);
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
