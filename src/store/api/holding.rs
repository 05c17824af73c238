//! Appending hints that are held, and claiming what is in front of them.

use crate::{
    store::{
        Store,
        format::{block::Hint, keys::Place, peeked::PeekedHint},
        pipeline::{
            batch::{HintKind, WriteBatch},
            done::AppendDone,
            held::Held,
            ticket::{Entry, told_id},
        },
        state::lock::Reservation,
    },
    types::{NodeId, ShardId},
};

/// What could be claimed of the next hints of a shard.
pub struct Claimed {
    /// How often the store was opened again before this claim; the next time forgets it.
    pub reopens: u64,
    /// Those that are in front of the first held one of the shard: all others stay where they are.
    pub in_front: usize,
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
        let held = Held::begin(&self.shared);
        let batch = WriteBatch {
            is_promised: answered,
            ..WriteBatch::of_hint(node, hint, HintKind::Held(held.id()))
        };
        self.hand_in_checked(Entry::new(batch, reserved, told_id(done)));
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
