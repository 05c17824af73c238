//! The window: what was read of a node's queues and is not yet done, by shard.
//!
//! It is read in passes, each from the head of the first queue to the end of the last. Mostly there
//! is one pass, which goes on whenever hints come. A shard that is left alone may be set aside
//! (`aside.rs`): then others are read in its place, and a further pass takes in what was passed
//! over.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{aside::Aside, position::Position};
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

    /// Sets aside the shards that failed and may be tried again.
    pub fn set_failed_aside(&mut self) {
        while let Some((_, shard)) = self.ready(Standing::Failed) {
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
pub mod tests;
