//! Forgetting lanes: those whose hints are gone, and where too many others are left, those of the
//! nodes with the most.

use std::collections::HashMap;

use super::{Admission, QueuePosition, ends_of_pending, reach};
use crate::{store::Store, types::NodeId};

/// Lanes that are told apart, of 150 to 250 bytes each.
pub(super) const LANES_MAX: usize = if cfg!(test) { 4096 } else { 65_536 };

impl Admission {
    /// Forgets the lanes whose hints are gone, and where too many others are left, has those of a
    /// node be one.
    pub(super) fn sweep(&self, store: &Store) {
        let lasts: Vec<_> = {
            let mut state = self.state.lock();
            state.sweep_at = usize::MAX;
            let lanes = state.lanes.iter();
            lanes
                .filter_map(|(key, lane)| Some((*key, lane.last?)))
                .collect()
        };
        for (key, last) in lasts {
            self.is_gone(store, key, last);
        }
        if self.state.lock().lanes.len() >= LANES_MAX {
            self.be_one(store);
        }
        let mut state = self.state.lock();
        let lanes = state.lanes.len();
        // Where all are in use, so that none can be forgotten, it is not tried for each that comes.
        state.sweep_at = lanes
            .saturating_mul(2)
            .min(LANES_MAX.max(lanes + LANES_MAX / 4));
    }

    /// What waits for the nodes with the most lanes is backlog of all their shards from now on, as
    /// what was found at open is, until it is gone; what comes later is told apart.
    fn be_one(&self, store: &Store) {
        // Before the look, as everywhere: what a reopen brings back is found by the look that
        // follows it.
        let reopens = store.reopens();
        self.look(store);
        let ends = ends_of_pending(store);
        let mut state = self.state.lock();
        if state.found_after != Some(reopens) {
            return;
        }
        let mut waiting: HashMap<NodeId, usize> = HashMap::new();
        for ((node, _), lane) in &state.lanes {
            *waiting.entry(*node).or_default() += usize::from(lane.last.is_some());
        }
        let mut most: Vec<_> = waiting.into_iter().collect();
        most.sort_unstable_by_key(|(_, lanes)| std::cmp::Reverse(*lanes));
        let mut left = state.lanes.len();
        let nodes = most.into_iter().take_while(|(_, lanes)| {
            let is_needed = left > LANES_MAX / 2;
            left = left.saturating_sub(*lanes);
            is_needed
        });
        let merged: HashMap<NodeId, &Vec<QueuePosition>> = nodes
            .filter_map(|(node, _)| Some((node, ends.get(&node)?)))
            .collect();
        state.lanes.retain(|(node, _), lane| {
            let ends = merged.get(node);
            let is_within = |last: QueuePosition| {
                let is_end_of = |end: &&QueuePosition| end.0 == last.0 && last.1 <= end.1;
                ends.is_some_and(|ends| ends.iter().find(is_end_of).is_some())
            };
            lane.last = lane.last.filter(|last| !is_within(*last));
            !lane.is_idle()
        });
        for (node, ends) in merged {
            let found = state.found.entry(node).or_default();
            // A move of the node's may have found more meanwhile.
            ends.iter().for_each(|end| reach(found, *end));
        }
    }
}
