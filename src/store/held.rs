//! Held hints: hints that are durable like any other, and that only their holder lets leave.
//!
//! Whoever is still sending a write directly when its hint becomes durable holds the hint: it
//! leaves unsent if the send succeeds. Until the holder lets go of it, no limit takes it, and all
//! later hints of its (node, shard) wait behind it: a receiver that keeps the highest sequence
//! would refuse it once one of them had been applied.
//!
//! A hold is memory only. The commit thread enters it when it gives out the sequence, before the
//! group is written, so that a hint whose group's outcome is unknown is held if a reopen finds it.
//! Once the hint can be seen it is claimed too, so that limits, expiry and counts need no case of
//! their own. Where a hold has no hint that is there (refused, lost with its group, gone with its
//! node), it stands for nothing.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::{Arc, Weak},
};

use super::{
    Store,
    block::Hint,
    cursor::Leave,
    departure::Departure,
    done::AppendDone,
    entry::{Append, Entry},
    keys::{Place, QueueRef},
    peeked::{Mark, PeekedHint},
    quota::Reservation,
    reasons::Fate,
    registry::{NodeQueues, Queue, Registry, Stretch},
    shared::Shared,
};
use crate::{
    error::HandoffError,
    types::{Amount, NodeId, Sequence, ShardId},
};

/// The number of a hold, never given out twice in a life of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HoldId(u64);

/// A hint that is held, once it has a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldHint {
    pub place: Place,
    pub shard: ShardId,
    pub payload_bytes: u64,
}

/// All holds of a store.
#[derive(Debug, Default)]
pub struct HeldHints {
    last: u64,
    /// Where their hints stand; nowhere as long as these have no sequence.
    places: HashMap<HoldId, Option<Place>>,
    hints: BTreeMap<Place, HeldHint>,
}

/// What the end of a hold did.
pub struct Ended {
    /// The node that the queue of the hint is drained for.
    node: NodeId,
    queue: QueueRef,
    /// What left.
    left: Amount,
}

/// What could be claimed of the next hints of a shard.
pub struct Claimed {
    /// How often the store was opened again before this claim; the next time forgets it.
    pub reopens: u64,
    /// Those that are in front of the first held one of the shard: all others stay where they are.
    pub in_front: usize,
}

/// The right to let a held hint leave. Dropped, the hint is an ordinary one from then on, and its
/// node's bell rings.
///
/// It holds whatever the node is called by now. It may be ended at any time; one that ends before
/// its hint is durable leaves an ordinary hint behind, so who wants it to leave waits for that
/// first.
#[derive(Debug)]
pub struct Held {
    shared: Weak<Shared>,
    id: HoldId,
}

impl HeldHints {
    fn begin(&mut self) -> HoldId {
        self.last += 1;
        let id = HoldId(self.last);
        self.places.insert(id, None);
        id
    }

    /// The hint of a hold has its sequence.
    pub fn identify(&mut self, id: HoldId, hint: HeldHint) {
        // Let go of in the meantime, it is a hint as any other.
        if let Some(place) = self.places.get_mut(&id) {
            *place = Some(hint.place);
            self.hints.insert(hint.place, hint);
        }
    }

    fn end(&mut self, id: HoldId) -> Option<HeldHint> {
        let place = self.places.remove(&id)??;
        self.hints.remove(&place)
    }

    /// Those of a queue in a range of sequences, which must not end before it begins.
    fn within(
        &self,
        queue: QueueRef,
        sequences: RangeInclusive<Sequence>,
    ) -> impl Iterator<Item = &HeldHint> {
        let at = |sequence| Place { queue, sequence };
        let hints = self
            .hints
            .range(at(*sequences.start())..=at(*sequences.end()));
        hints.map(|(_, hint)| hint)
    }
}

impl Registry {
    /// The hints of a queue that are held and there, in order.
    fn held_in<'a>(&'a self, queue: &'a Queue) -> impl Iterator<Item = &'a HeldHint> {
        let pending = (!queue.is_drained()).then_some(queue.cursor.next..=queue.watermark);
        let held = pending.map(|pending| self.held.within(queue.at, pending));
        held.into_iter().flatten()
    }

    /// Claims what is held of a queue that can be seen from now on: nobody else lets it leave.
    /// Returns how many hints that is.
    pub fn claim_held(
        &mut self,
        node: NodeId,
        at: QueueRef,
        seen: RangeInclusive<Sequence>,
    ) -> u64 {
        let queues = self.nodes.get_mut(&node);
        let queue = queues.and_then(|it| it.queues.iter_mut().find(|queue| queue.at == at));
        let Some(queue) = queue.filter(|_| !seen.is_empty()) else {
            return 0;
        };
        let mut claimed = 0;
        for hint in self.held.within(at, seen) {
            if !queue.cursor.is_gone(hint.place.sequence) {
                queue.claimed.insert(hint.place.sequence);
                claimed += 1;
            }
        }
        claimed
    }

    /// Claims what is held of a node whose queues were found, or came from another: all claims of
    /// theirs were forgotten.
    pub fn claim_all_held(&mut self, node: NodeId) {
        let queues = self.nodes.get(&node);
        let queues = queues.into_iter().flat_map(|it| &it.queues);
        let all: Vec<_> = queues.map(|queue| (queue.at, queue.watermark)).collect();
        for (at, watermark) in all {
            self.claim_held(node, at, Sequence(1)..=watermark);
        }
    }

    /// How many of a shard's next hints, which are in the order of the node's queues, are in front
    /// of its first held one.
    fn in_front(&self, node: NodeId, shard: ShardId, hints: &[Place]) -> usize {
        let (false, Some(queues)) = (self.held.hints.is_empty(), self.nodes.get(&node)) else {
            return hints.len();
        };
        let queues = || (0_usize..).zip(&queues.queues);
        let first_held = queues().find_map(|(index, queue)| {
            let held = self.held_in(queue).find(|held| held.shard == shard)?;
            Some((index, held.place.sequence))
        });
        let Some(first_held) = first_held else {
            return hints.len();
        };
        let is_behind = |hint: &Place| {
            // A queue that is not there any more was drained.
            let known = queues().find(|(_, queue)| queue.at == hint.queue);
            known.is_some_and(|(index, _)| (index, hint.sequence) >= first_held)
        };
        let end = hints.iter().position(is_behind);
        end.unwrap_or(hints.len())
    }

    /// What is there to read for those who take a node's hints in order: up to the first that is
    /// held.
    pub fn stretch_in_order(&self, node: NodeId) -> Option<Stretch> {
        let queues = self.nodes.get(&node)?;
        let mut stretch = queues.stretch(None)?;
        let queue = queues.queues.iter().find(|it| it.at == stretch.at)?;
        if let Some(held) = self.held_in(queue).next() {
            stretch.watermark = Sequence(held.place.sequence.0.saturating_sub(1));
        }
        (stretch.from <= stretch.watermark).then_some(stretch)
    }

    /// Where the hint of a hold stands, and the node that its queue is drained for.
    fn place_of(&self, id: HoldId) -> Option<(NodeId, Place)> {
        let place = (*self.held.places.get(&id)?)?;
        let holds = |queues: &NodeQueues| queues.queues.iter().any(|queue| queue.at == place.queue);
        let mut nodes = self.nodes.iter();
        let (node, _) = nodes.find(|(_, queues)| holds(queues))?;
        Some((*node, place))
    }

    /// Ends a hold; its hint leaves, or is as any other. `None` if it has none, or none whose queue
    /// is there.
    fn let_go(&mut self, id: HoldId, leave: Option<Leave>) -> Option<Ended> {
        let HeldHint {
            place,
            payload_bytes,
            ..
        } = self.held.end(id)?;
        let holds = |queues: &NodeQueues| queues.queues.iter().any(|queue| queue.at == place.queue);
        let mut nodes = self.nodes.iter();
        let (node, _) = nodes.find(|(_, queues)| holds(queues))?;
        let node = *node;
        let queue = self.queue_mut(node, place.queue)?;
        queue.claimed.remove(&place.sequence);
        let left = leave.map(|leave| self.leave_from(node, [(place, payload_bytes)], leave));
        Some(Ended {
            node,
            queue: place.queue,
            left: left.unwrap_or_default(),
        })
    }
}

impl Store {
    /// Hands in a hint that is held from before anybody can see it. `done` is called as by
    /// [`append_within`](Store::append_within).
    pub fn append_held(
        &self,
        reserved: Reservation,
        node: NodeId,
        hint: Hint,
        answered: bool,
        done: AppendDone,
    ) -> Held {
        let held = Held {
            shared: Arc::downgrade(&self.shared),
            id: self.shared.registry.lock().held.begin(),
        };
        self.hand_in_checked(Entry::Append(Append {
            node,
            hint,
            held: Some(held.id),
            answered,
            reserved,
            done,
        }));
        held
    }

    /// Claims those of a shard's next hints that are pending and nobody else's, and keeps only them
    /// in the list. Nothing from the first held hint of the shard on is claimed.
    pub fn claim_in_order(
        &self,
        node: NodeId,
        shard: ShardId,
        hints: &mut Vec<PeekedHint>,
    ) -> Claimed {
        let places: Vec<Place> = hints.iter().map(|hint| hint.mark.place()).collect();
        let mut registry = self.shared.registry.lock();
        let in_front = registry.in_front(node, shard, &places);
        hints.truncate(in_front);
        registry.claim(node, hints);
        Claimed {
            reopens: registry.reopens,
            in_front,
        }
    }

    /// Whether a hint is held, or stands behind a held one of its shard.
    pub fn is_behind_held(&self, node: NodeId, shard: ShardId, hint: Place) -> bool {
        let registry = self.shared.registry.lock();
        registry.in_front(node, shard, &[hint]) == 0
    }

    /// Whether [`peek`](Store::peek) would find anything; reads nothing.
    pub fn has_next(&self, node: NodeId) -> bool {
        let registry = self.shared.registry.lock();
        registry.stretch_in_order(node).is_some()
    }
}

impl Held {
    /// The node took it: it leaves as delivered if it is durable, seen at once, on disk with the
    /// next group. Returns what left: nothing if the hint is not there.
    ///
    /// # Errors
    /// Why the store does not serve. Then it is an ordinary hint from now on, if it is there when
    /// the store serves again.
    pub fn deliver(self) -> Result<Amount, HandoffError> {
        self.end(Some(Leave::Delivered))
    }

    /// Its write was refused: it leaves as withdrawn, in the same way.
    ///
    /// # Errors
    /// As [`deliver`](Held::deliver).
    pub fn withdraw(self) -> Result<Amount, HandoffError> {
        self.end(Some(Leave::Withdrawn))
    }

    /// Its node refused it: it leaves undelivered, in one step with the record of that. `done` is
    /// told what left once that is durable: nothing if the hint is not there. Until then it stays
    /// held.
    pub fn leave_undelivered(
        self,
        hint: Hint,
        fate: Fate,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        let Some(shared) = self.shared.upgrade() else {
            return done(Err(HandoffError::ShutDown));
        };
        let Some((node, place)) = shared.registry.lock().place_of(self.id) else {
            return done(Ok(Amount::default()));
        };
        let mark = Mark {
            queue: place.queue,
            sequence: place.sequence,
            // Of one hint alone nobody asks for it.
            bytes_through: 0,
        };
        let departure = Entry::Departure(Departure {
            node,
            hints: vec![PeekedHint { mark, hint }],
            fate,
            done: Box::new(move |left| {
                drop(self);
                done(left);
            }),
        });
        if let Err(error) = shared.check_serving() {
            return departure.refuse(error.into());
        }
        if let Err(departure) = shared.inbox.hand_in(departure) {
            departure.refuse(HandoffError::ShutDown.into());
        }
    }

    /// The end of a hold that was ended before does nothing.
    fn end(&self, leave: Option<Leave>) -> Result<Amount, HandoffError> {
        let shared = self.shared.upgrade().ok_or(HandoffError::ShutDown)?;
        if leave.is_some() {
            shared.check_serving()?;
        }
        let ended = {
            let mut registry = shared.registry.lock();
            let ended = registry.let_go(self.id, leave);
            if let Some(ended) = ended.as_ref().filter(|it| it.left.hints > 0) {
                // Under the same lock: a sync that comes after anybody saw that it left makes that
                // durable.
                shared.inbox.mark_dirty((ended.node, ended.queue));
            }
            ended
        };
        let Some(ended) = ended else {
            return Ok(Amount::default());
        };
        if ended.left.hints > 0 {
            shared.tell_departed();
        }
        // Also where nothing is left: replay may have read it, and waits for it. A store that
        // failed rings for all nodes when it serves again.
        if shared.is_serving() {
            (shared.on_durable)(&[ended.node].into());
        }
        Ok(ended.left)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Only a hint that is to leave can be refused that.
        let _ = self.end(None);
    }
}

#[cfg(test)]
mod tests;
