//! Whose turn it is: which shard is sent to next, so that those whose sends fail or hang do not take
//! the turns of those that go well.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::window::{Standing, Window};
use crate::types::ShardId;

/// Sends that fail, one after the other, before the node is taken for down; more if more are sent to
/// at once.
pub const IN_A_ROW_MIN: usize = 4;

/// What is being sent, and what that says of the next send.
///
/// Once any shard is in trouble, at most half of the sends are to shards that may fail while others
/// wait that went well, and at most half of these to shards that did fail while others wait that
/// were not tried. With one send at a time the same holds of time: each send that fails is followed
/// by as much time for shards that went well, and three times as much without those that failed.
#[derive(Debug)]
pub struct Turns {
    /// So many sends at a time.
    pub most: usize,
    sending: HashMap<ShardId, Standing>,
    /// Sends that failed since the node took or refused anything, by how their shards stood.
    in_a_row: HashMap<Standing, usize>,
    /// Sends to shards that were not tried yet, since any failed.
    tried: u32,
    /// With one send at a time: until then it is not for shards that may fail.
    doubt_rests: Option<Instant>,
    /// The same for shards that did fail.
    failed_rests: Option<Instant>,
}

impl Turns {
    /// `most` sends at a time.
    pub fn new(most: usize) -> Self {
        Turns {
            most,
            sending: HashMap::new(),
            in_a_row: HashMap::new(),
            tried: 0,
            doubt_rests: None,
            failed_rests: None,
        }
    }

    /// Sends under way.
    pub fn sends(&self) -> usize {
        self.sending.len()
    }

    fn sends_to(&self, standing: Standing) -> usize {
        let all = self.sending.values();
        all.filter(|it| **it == standing).count()
    }

    /// Whether no more of these are sent to, since as many in a row failed: `new_most` of those that
    /// were not tried yet.
    pub fn have_failed(&self, standing: Standing, new_most: usize) -> bool {
        let failed = self.in_a_row.get(&standing).copied().unwrap_or(0);
        failed >= self.row_most(standing, new_most)
    }

    fn row_most(&self, standing: Standing, new_most: usize) -> usize {
        match standing {
            Standing::New => new_most,
            Standing::Well | Standing::Failed => self.most.max(IN_A_ROW_MIN),
        }
    }

    /// The shard that is next: with `troubled` if any shard of the node is in trouble, and `more` if
    /// others may be read that are not. `new_most` as above.
    pub fn next(
        &self,
        window: &Window,
        troubled: bool,
        more: bool,
        new_most: usize,
        now: Instant,
    ) -> Option<ShardId> {
        if self.sends() >= self.most {
            return None;
        }
        // Those under way count, so that a node that is down is not tried with twice as many before
        // that is seen.
        let may = |standing| {
            let failed = self.in_a_row.get(&standing).copied().unwrap_or(0);
            failed + self.sends_to(standing) < self.row_most(standing, new_most)
        };
        let first = |standing| window.ready(standing).filter(|_| may(standing));
        let (well, new) = (first(Standing::Well), first(Standing::New));
        if !troubled {
            // The oldest, since the cursor waits for that.
            let oldest = [well, new].into_iter().flatten().min();
            return oldest.map(|(_, shard)| shard);
        }
        // Those that go wrong may stand next to each other, so they are looked for all over.
        let new = new.and_then(|_| window.ready_at(Standing::New, self.tried.reverse_bits()));
        let failed = first(Standing::Failed);
        let half = (self.most / 2).max(1);
        let in_doubt = self.sends_to(Standing::New) + self.sends_to(Standing::Failed);
        let rests = |until: Option<Instant>| self.most == 1 && until.is_some_and(|it| it > now);
        let may_doubt = well.is_none() || (in_doubt < half && !rests(self.doubt_rests));
        let (failed_most, failed_rests) = match new.is_some() || more {
            true => ((half / 2).max(1), rests(self.failed_rests)),
            false => (half, false),
        };
        let has_failed_turn = self.sends_to(Standing::Failed) < failed_most && !failed_rests;
        let failed = failed.filter(|_| may_doubt && has_failed_turn);
        let new = new.filter(|_| may_doubt);
        failed.or(new).or(well).map(|(_, shard)| shard)
    }

    /// Whether a shard that failed might be next, if it could be sent to.
    pub fn has_room_for_failed(&self) -> bool {
        self.sends_to(Standing::Failed) < (self.most / 2).max(1)
    }

    pub fn began(&mut self, shard: ShardId, standing: Standing) {
        self.sending.insert(shard, standing);
        self.tried = self.tried.wrapping_add((standing == Standing::New).into());
    }

    /// The node took or refused something.
    pub fn answered(&mut self) {
        self.in_a_row.clear();
    }

    /// A send has ended, after so long.
    pub fn ended(&mut self, shard: ShardId, took: Duration, failed: bool) {
        let standing = self.sending.remove(&shard);
        if failed && let Some(standing) = standing {
            *self.in_a_row.entry(standing).or_default() += 1;
            let now = Instant::now();
            self.doubt_rests = Some(now + took);
            if standing == Standing::Failed {
                self.failed_rests = Some(now + 3 * took);
            }
        }
    }
}
