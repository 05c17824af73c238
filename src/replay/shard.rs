//! What is remembered of a shard that is in trouble: how long to leave it alone, how often its
//! first hint was tried, which of its hints the node may have rejected, and whether the next one is
//! of a format that is not read here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::backoff::Backoff;
use crate::{
    clock::Clock,
    stats::UnknownFormat,
    store::{DeadCause, DeadReason, HEADS_MAX, HeadStatus, Place, QueueRef},
    types::ShardId,
};

/// Rounds that go further than the one before. The last one goes as far as a queue may be long.
const IN_VAIN_MAX: u32 = 12;
/// The answer to a single hint that takes long is waited for so many times as long as usual, at
/// most.
const PATIENCE_MAX: u32 = 10;

/// The shards of a node that are in trouble. They outlive the window, which is dropped whenever the
/// node is down.
#[derive(Debug)]
pub struct Troubles {
    shards: BTreeMap<ShardId, Trouble>,
    /// Those whose last send failed.
    failed: BTreeSet<ShardId>,
    /// Rounds that ended because sends failed, since the node caught up or a ping failed.
    in_vain: u32,
    /// Of the shards whose next hint is of a format that is not read here: that format, and the one
    /// written.
    unknown: BTreeMap<ShardId, (u16, u16)>,
    clock: Clock,
    retry_interval: Duration,
    retry_max_interval: Duration,
}

#[derive(Debug)]
struct Trouble {
    backoff: Backoff,
    /// Not to be sent to before.
    until: Instant,
    /// Of the next hints, how many were in a send that the node rejected: the one that it will
    /// never take is among them.
    suspects: usize,
    /// Hints of a send at most, in eighths; set after a larger one took too long.
    most_eighths: Option<usize>,
    /// The answer to a send is waited for so many times as long as usual.
    patience: u32,
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
    pub fn new(clock: Clock, retry_interval: Duration, retry_max_interval: Duration) -> Self {
        Troubles {
            shards: BTreeMap::new(),
            failed: BTreeSet::new(),
            in_vain: 0,
            unknown: BTreeMap::new(),
            clock,
            retry_interval,
            retry_max_interval,
        }
    }

    /// What was known of hints that were tried before a restart.
    pub fn restore(&mut self, heads: &[HeadStatus]) {
        for head in heads {
            let queue = QueueRef {
                node: head.meant_for,
                queue: head.queue,
            };
            self.trouble(head.shard).tried = Some(Tried {
                place: Place {
                    queue,
                    sequence: head.sequence,
                },
                attempts: head.attempts,
                first_failed_unix_ms: head.first_failed_unix_ms,
                last_failed_unix_ms: head.last_failed_unix_ms,
            });
        }
    }

    /// What is to be known of hints that were tried after a restart, by shard; of the first ones
    /// only.
    pub fn heads(&self) -> Vec<HeadStatus> {
        let tried = self.shards.iter().filter_map(|(shard, trouble)| {
            let tried = trouble.tried.as_ref()?;
            Some(HeadStatus {
                shard: *shard,
                queue: tried.place.queue.queue,
                meant_for: tried.place.queue.node,
                sequence: tried.place.sequence,
                attempts: tried.attempts,
                first_failed_unix_ms: tried.first_failed_unix_ms,
                last_failed_unix_ms: tried.last_failed_unix_ms,
            })
        });
        tried.take(HEADS_MAX).collect()
    }

    /// Nothing waits for the node any more.
    pub fn clear(&mut self) {
        self.shards.clear();
        self.failed.clear();
        self.in_vain = 0;
        self.unknown.clear();
    }

    /// Whether the shard's last send failed.
    pub fn has_failed(&self, shard: ShardId) -> bool {
        self.failed.contains(&shard)
    }

    /// Whether that of any shard did.
    pub fn has_failed_any(&self) -> bool {
        !self.failed.is_empty()
    }

    /// How many times as far as the first one a round goes in which all sends fail: four times as
    /// far as the one before, since shards that go well may stand behind those that do not.
    pub fn reach(&self) -> usize {
        1 << (2 * self.in_vain)
    }

    /// A round ended since its sends failed.
    pub fn was_in_vain(&mut self) {
        self.in_vain = (self.in_vain + 1).min(IN_VAIN_MAX);
    }

    /// A ping failed, so it was the node.
    pub fn is_down(&mut self) {
        self.in_vain = 0;
    }

    /// When the shard may be sent to, if that is not now.
    pub fn backing_off(&self, shard: ShardId, now: Instant) -> Option<Instant> {
        let until = self.shards.get(&shard)?.until;
        (until > now).then_some(until)
    }

    /// How many hints the next send to the shard may carry, whose next hint is `head`.
    pub fn most_hints(&self, shard: ShardId, head: Place, max_attempts: u32) -> usize {
        // One is enough to see whether its format is known by now.
        if self.is_unknown(shard) {
            return 1;
        }
        let trouble = self.shards.get(&shard);
        let tried = trouble.and_then(|it| it.tried.as_ref());
        let attempts = tried
            .filter(|it| it.place == head)
            .map_or(0, |it| it.attempts);
        if max_attempts > 0 && attempts + 1 >= max_attempts {
            return 1;
        }
        let most = trouble.and_then(|it| it.most_eighths);
        let most = most.map_or(usize::MAX, |eighths| eighths / 8);
        match trouble.map_or(0, |it| it.suspects) {
            0 => most,
            // The first half: if that is taken, it is in the other one.
            suspects => (suspects / 2).clamp(1, most),
        }
    }

    /// How many times as long as usual the answer to a send is waited for.
    pub fn patience(&self, shard: ShardId) -> u32 {
        self.shards.get(&shard).map_or(1, |it| it.patience)
    }

    /// A send failed after a long time. The next one carries half as much, or is given twice the
    /// time if it was one hint. Returns whether a smaller send may do better.
    pub fn was_slow(&mut self, shard: ShardId, sent: usize) -> bool {
        let trouble = self.trouble(shard);
        if sent > 1 {
            trouble.most_eighths = Some(sent / 2 * 8);
        } else {
            trouble.patience = (trouble.patience * 2).min(PATIENCE_MAX);
        }
        sent > 1
    }

    /// A send failed in a way that is worth a retry.
    pub fn leave_alone(&mut self, shard: ShardId, wish: Option<Duration>) {
        let trouble = self.trouble(shard);
        trouble.until = Instant::now() + trouble.backoff.next(wish);
        self.failed.insert(shard);
    }

    /// That was an attempt of this hint, which was in front. Returns how many there were.
    pub fn failed(&mut self, shard: ShardId, head: Place) -> u32 {
        let now = self.clock.unix_ms();
        let trouble = self.trouble(shard);
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

    /// The shard's next hint is of a format that is not read here. Nothing was tried, so no attempt
    /// counts. Returns whether that is news.
    pub fn unknown_format(&mut self, shard: ShardId, found: u16, written: u16) -> bool {
        self.leave_alone(shard, None);
        self.unknown.insert(shard, (found, written)).is_none()
    }

    /// The format of the shard's next hint is known. Returns whether that is news; then the shard's
    /// waits start over.
    pub fn known_format(&mut self, shard: ShardId) -> bool {
        let is_news = self.unknown.remove(&shard).is_some();
        if is_news && let Some(trouble) = self.shards.get_mut(&shard) {
            trouble.backoff.reset();
        }
        is_news
    }

    /// Whether the shard's next hint was of a format that is not read here.
    pub fn is_unknown(&self, shard: ShardId) -> bool {
        self.unknown.contains_key(&shard)
    }

    /// Forgets of unknown formats in shards of which nothing waits any more. Returns whether there
    /// were any.
    pub fn keep_unknown(&mut self, waits: impl Fn(ShardId) -> bool) -> bool {
        let before = self.unknown.len();
        self.unknown.retain(|shard, _| waits(*shard));
        self.unknown.len() < before
    }

    /// What is to be shown of unknown formats.
    pub fn unknown(&self) -> Option<UnknownFormat> {
        let (shard, (found, written)) = self.unknown.first_key_value()?;
        Some(UnknownFormat {
            shards: self.unknown.len() as u64,
            shard: *shard,
            found: *found,
            written: *written,
        })
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

    /// The node took something of the shard, well within the usual time if it `is_quick`.
    pub fn taken(&mut self, shard: ShardId, hints: usize, is_quick: bool) {
        self.left(shard, hints);
        self.failed.remove(&shard);
        let Some(trouble) = self.shards.get_mut(&shard) else {
            return;
        };
        if is_quick {
            trouble.patience = 1;
        }
        if trouble.suspects == 0 && trouble.most_eighths.is_none() && trouble.patience == 1 {
            self.shards.remove(&shard);
            return;
        }
        trouble.backoff.reset();
        trouble.until = Instant::now();
        // As much as was allowed: a little more may go, too.
        if let Some(eighths) = &mut trouble.most_eighths
            && hints >= *eighths / 8
        {
            *eighths += (*eighths / 8).max(1);
        }
    }

    /// What to write on the grave of the hint `head`. The send that decided it counts if it was
    /// rejected.
    pub fn dead_cause(
        &self,
        shard: ShardId,
        head: Place,
        reason: DeadReason,
        error: String,
    ) -> DeadCause {
        let tried = self.shards.get(&shard).and_then(|it| it.tried.as_ref());
        let tried = tried.filter(|it| it.place == head);
        let now = self.clock.unix_ms();
        let attempts = tried.map_or(0, |it| it.attempts);
        DeadCause {
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
            most_eighths: None,
            patience: 1,
            tried: None,
        })
    }
}

#[cfg(test)]
mod tests;
