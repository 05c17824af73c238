//! Which hints are held, and what stands behind them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use crate::{
    store::format::keys::{Place, QueueRef},
    types::{Sequence, ShardId},
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
    pub places: HashMap<HoldId, Option<Place>>,
    pub hints: BTreeMap<Place, HeldHint>,
}

impl HeldHints {
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.hints.is_empty()
    }

    pub fn begin(&mut self) -> HoldId {
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

    pub fn end(&mut self, id: HoldId) -> Option<HeldHint> {
        let place = self.places.remove(&id)??;
        self.hints.remove(&place)
    }

    /// Those of a queue in a range of sequences, which must not end before it begins.
    pub fn within(
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
