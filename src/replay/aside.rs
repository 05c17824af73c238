//! Shards that were set aside: they are left alone for a while, and what was read of them has made
//! room in the window for other shards.
//!
//! Of each the place of its next hint is kept, so that this one can be read and tried again by
//! itself. All else of it is passed over by the pass over the queues that is under way, and taken
//! in by the next one, once the node took that hint.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::position::Position;
use crate::{store::Place, types::ShardId};

/// Pure data, a part of the [`Window`](super::window::Window).
#[derive(Debug, Default)]
pub struct Aside {
    heads: HashMap<ShardId, (Position, Place)>,
    /// The same, the oldest first.
    oldest: BTreeSet<(Position, ShardId)>,
    /// Shards of which this pass takes nothing in.
    passed_over: HashSet<ShardId>,
    /// Shards whose next hint is to be read.
    due: VecDeque<ShardId>,
    wants_pass: bool,
}

impl Aside {
    pub fn set(&mut self, shard: ShardId, position: Position, place: Place) {
        self.heads.insert(shard, (position, place));
        self.oldest.insert((position, shard));
        self.passed_over.insert(shard);
    }

    pub fn has(&self, shard: ShardId) -> bool {
        self.heads.contains_key(&shard)
    }

    pub fn shards(&self) -> impl ExactSizeIterator<Item = ShardId> {
        self.heads.keys().copied()
    }

    /// The shard with the oldest hint.
    pub fn oldest(&self) -> Option<(Position, ShardId)> {
        self.oldest.first().copied()
    }

    /// The shard may be tried again.
    pub fn is_due(&mut self, shard: ShardId) {
        self.due.push_back(shard);
    }

    /// The next shard that may be tried again, and where its next hint stands.
    pub fn next_due(&mut self) -> Option<(ShardId, Place)> {
        loop {
            let shard = self.due.pop_front()?;
            if let Some((_, place)) = self.heads.get(&shard) {
                return Some((shard, *place));
            }
        }
    }

    /// The shard's next hint was read, or is not there any more. Returns where it stood.
    pub fn take(&mut self, shard: ShardId) -> Option<Position> {
        let (position, _) = self.heads.remove(&shard)?;
        self.oldest.remove(&(position, shard));
        Some(position)
    }

    /// Whether this pass takes in nothing of the shard.
    pub fn passes_over(&self, shard: ShardId) -> bool {
        self.passed_over.contains(&shard)
    }

    /// Nothing is known of what waits in the shard: the next pass finds it, if this one does not.
    pub fn forget(&mut self, shard: ShardId) {
        self.wants_pass |= !self.has(shard) && self.passes_over(shard);
    }

    pub fn wants_pass(&self) -> bool {
        self.wants_pass
    }

    pub fn begin_pass(&mut self) {
        self.passed_over = self.heads.keys().copied().collect();
        self.wants_pass = false;
    }
}
