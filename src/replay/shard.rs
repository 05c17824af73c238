//! What is remembered of a shard that is in trouble: how long to leave it alone, how often its first hint was tried, and which
//! of its hints the node may have rejected.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::backoff::Backoff;
use crate::{
    store::{Burial, DeadReason, Place},
    types::ShardId,
};

/// The shards of a node that are in trouble. They outlive the window, which is dropped whenever the node is down.
#[derive(Debug)]
pub struct Troubles {
    shards: HashMap<ShardId, Trouble>,
    retry_interval: Duration,
    retry_max_interval: Duration,
}

#[derive(Debug)]
struct Trouble {
    backoff: Backoff,
    /// Not to be sent to before.
    until: Instant,
    /// Of the next hints, how many were in a send that the node rejected: the one that it will never take is among them.
    suspects: usize,
    tried: Option<Tried>,
}

/// Failed sends in which a hint was the first of its shard.
#[derive(Debug)]
struct Tried {
    place: Place,
    attempts: u32,
    first_failed_unix_ms: u64,
    last_failed_unix_ms: u64,
}

impl Troubles {
    pub fn new(retry_interval: Duration, retry_max_interval: Duration) -> Self {
        Troubles {
            shards: HashMap::new(),
            retry_interval,
            retry_max_interval,
        }
    }

    /// Nothing waits for the node any more.
    pub fn clear(&mut self) {
        self.shards.clear();
    }

    /// When the shard may be sent to, if that is not now.
    pub fn backing_off(&self, shard: ShardId, now: Instant) -> Option<Instant> {
        let until = self.shards.get(&shard)?.until;
        (until > now).then_some(until)
    }

    /// How many hints the next send to the shard may carry, whose next hint is `head`.
    pub fn most_hints(&self, shard: ShardId, head: Place, max_attempts: u32) -> usize {
        let trouble = self.shards.get(&shard);
        let tried = trouble.and_then(|it| it.tried.as_ref());
        let attempts = tried
            .filter(|it| it.place == head)
            .map_or(0, |it| it.attempts);
        if max_attempts > 0 && attempts + 1 >= max_attempts {
            return 1;
        }
        match trouble.map_or(0, |it| it.suspects) {
            0 => usize::MAX,
            // The first half: if that is taken, it is in the other one.
            suspects => (suspects / 2).max(1),
        }
    }

    /// A send failed in a way that is worth a retry. Returns how often it did with this hint in front.
    pub fn failed(&mut self, shard: ShardId, head: Place, wish: Option<Duration>) -> u32 {
        let now = unix_ms();
        let trouble = self.trouble(shard);
        trouble.until = Instant::now() + trouble.backoff.next(wish);
        let before = trouble.tried.take().filter(|it| it.place == head);
        let tried = Tried {
            place: head,
            attempts: before
                .as_ref()
                .map_or(0, |it| it.attempts)
                .saturating_add(1),
            first_failed_unix_ms: before.map_or(now, |it| it.first_failed_unix_ms),
            last_failed_unix_ms: now,
        };
        trouble.tried.insert(tried).attempts
    }

    /// The node rejected a send of several: the next ones narrow down which of them it was.
    pub fn rejected(&mut self, shard: ShardId, sent: usize) {
        self.trouble(shard).suspects = sent;
    }

    /// The shard's next hints left: the node took them, or they are given up.
    pub fn left(&mut self, shard: ShardId, hints: usize) {
        let Some(trouble) = self.shards.get_mut(&shard) else {
            return;
        };
        trouble.suspects = trouble.suspects.saturating_sub(hints);
        trouble.tried = None;
    }

    /// The node took something of the shard.
    pub fn taken(&mut self, shard: ShardId, hints: usize) {
        self.left(shard, hints);
        let Some(trouble) = self.shards.get_mut(&shard) else {
            return;
        };
        match trouble.suspects {
            0 => {
                self.shards.remove(&shard);
            }
            _ => {
                trouble.backoff.reset();
                trouble.until = Instant::now();
            }
        }
    }

    /// What to write on the grave of the hint `head`. The send that decided it counts if it was rejected.
    pub fn burial(&self, shard: ShardId, head: Place, reason: DeadReason, error: String) -> Burial {
        let tried = self.shards.get(&shard).and_then(|it| it.tried.as_ref());
        let tried = tried.filter(|it| it.place == head);
        let now = unix_ms();
        let attempts = tried.map_or(0, |it| it.attempts);
        Burial {
            reason,
            error,
            attempts: match reason {
                DeadReason::Rejected => attempts.saturating_add(1),
                _ => attempts,
            },
            first_failed_unix_ms: tried.map_or(now, |it| it.first_failed_unix_ms),
            last_failed_unix_ms: match reason {
                DeadReason::Attempts => tried.map_or(now, |it| it.last_failed_unix_ms),
                _ => now,
            },
        }
    }

    fn trouble(&mut self, shard: ShardId) -> &mut Trouble {
        let (interval, max) = (self.retry_interval, self.retry_max_interval);
        self.shards.entry(shard).or_insert_with(|| Trouble {
            backoff: Backoff::new(interval, max),
            until: Instant::now(),
            suspects: 0,
            tried: None,
        })
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
