//! Age: the task that has hints leave which are too old, whether their node is up or down, and that learns how old the oldest are.
//!
//! It sleeps until the oldest hint it knows of is due, a minute at most, and reads nothing before that: when a block was stored is
//! kept in memory, and the heads of queues that were there at open are read once. Hints are looked at in the order of their queue up to
//! the first that is not old enough, so one that was stamped earlier than those before it waits for these.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    jumps::{Jump, Jumps},
    oldest::{lose, read_unclaimed},
};
use crate::{
    clock::Clock,
    config::Config,
    error::HandoffError,
    store::{LossReason, PeekedHint, Reader, Store},
    types::NodeId,
};

/// Between two looks, so that hints that come due one after the other leave together.
const LOOKS_APART_MIN: Duration = Duration::from_secs(1);
/// So that a clock that is set is noticed before what it shows is acted on for long.
const LOOKS_APART_MAX: Duration = Duration::from_secs(60);

/// The task's state.
pub struct Housekeeper {
    store: Arc<Store>,
    clock: Clock,
    runtime: Handle,
    /// `None` if nothing expires.
    max_age: Option<Duration>,
    grace: Duration,
}

impl Housekeeper {
    /// `None` if there is nothing to do: no age is too old, and no queue was there before this open.
    pub fn new(config: &Config, store: &Arc<Store>, clock: Clock, runtime: Handle) -> Option<Self> {
        let max_age = (!config.max_age.is_zero()).then_some(config.max_age);
        if max_age.is_none() && store.heads().is_empty() {
            return None;
        }
        Some(Housekeeper {
            store: Arc::clone(store),
            clock,
            runtime,
            max_age,
            grace: config.expiry_grace,
        })
    }

    /// Runs until told to stop, or until there is nothing more to learn and nothing expires.
    pub async fn run(self, stop: CancellationToken) {
        let mut jumps = Jumps::new(Instant::now(), self.clock.unix_ms(), self.grace);
        loop {
            self.note_jumps(&mut jumps);
            let quiet = jumps.quiet_for(Instant::now());
            let expires = self.max_age.filter(|_| quiet.is_none());
            let looked = stop.run_until_cancelled(self.look(expires)).await;
            let pause = match looked {
                None => return,
                Some(Ok(())) if self.max_age.is_none() => return,
                Some(Ok(())) => quiet.unwrap_or_else(|| self.until_next()),
                // A store that failed mends itself, and one that was closed stops this task.
                Some(Err(error)) => {
                    tracing::debug!(%error, "the age of hints is not looked at for a while");
                    LOOKS_APART_MAX
                }
            };
            let pause = pause.clamp(LOOKS_APART_MIN, LOOKS_APART_MAX);
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    fn note_jumps(&self, jumps: &mut Jumps) {
        let now = self.clock.unix_ms();
        let Some(jump) = jumps.look(Instant::now(), now) else {
            return;
        };
        tracing::warn!(?jump, grace = ?self.grace, "the wall clock was set; nothing expires for a while");
        // Hints that were stamped by a clock that was ahead would live until it comes there again.
        if matches!(jump, Jump::Back(_)) {
            self.store.bound_ages(now);
        }
    }

    /// How long until the oldest hint that is known is too old.
    fn until_next(&self) -> Duration {
        let Some(max_age) = self.max_age else {
            return LOOKS_APART_MAX;
        };
        let ages = self.store.heads().into_iter();
        let oldest = ages.filter_map(|head| Some(self.clock.since(head.unix_ms?)));
        oldest
            .max()
            .map_or(LOOKS_APART_MAX, |age| max_age.saturating_sub(age))
    }

    /// Reads the heads that are not known or too old, and has those leave that are too old.
    async fn look(&self, expires: Option<Duration>) -> Result<(), HandoffError> {
        for head in self.store.heads() {
            let is_due = |unix_ms| expires.is_some_and(|max| self.clock.since(unix_ms) >= max);
            if head.unix_ms.is_none_or(is_due) {
                self.visit(head.node, expires).await?;
            }
        }
        Ok(())
    }

    async fn visit(&self, node: NodeId, expires: Option<Duration>) -> Result<(), HandoffError> {
        let (mut from, mut reader) = (None, Reader::default());
        loop {
            let read = read_unclaimed(&self.runtime, &self.store, node, from, reader).await?;
            let mut hints = read.1;
            reader = read.0;
            // Noted as it is found: the next look need not read for it.
            let is_old = |hint: &PeekedHint| {
                let at = self.enqueued(hint);
                let age = self.clock.since(at);
                let is_old = expires.is_some_and(|max_age| age >= max_age);
                if !is_old {
                    self.store.note_read(node, hint.mark.place(), at);
                }
                is_old
            };
            let young = hints.iter().position(|hint| !is_old(hint));
            hints.truncate(young.unwrap_or(hints.len()));
            let Some(last) = hints.last() else {
                return Ok(());
            };
            from = Some(last.mark.place().next());
            self.store.claim(node, &mut hints);
            if !hints.is_empty() {
                self.expire(node, hints).await?;
            }
            if young.is_some() {
                return Ok(());
            }
        }
    }

    /// When a hint was enqueued. What was stamped by a clock that was ahead counts from when it was first seen.
    fn enqueued(&self, hint: &PeekedHint) -> u64 {
        let (stamp, now) = (hint.hint.enqueued_unix_ms, self.clock.unix_ms());
        match stamp <= now {
            true => stamp,
            false => {
                let seen = self.store.first_seen(hint.mark.place());
                seen.map_or(now, |seen| seen.min(now))
            }
        }
    }

    async fn expire(&self, node: NodeId, hints: Vec<PeekedHint>) -> Result<(), HandoffError> {
        let places = (hints.first(), hints.last());
        let (Some(first), Some(last)) = places else {
            return Ok(());
        };
        let (queue, first, last) = (first.mark.queue, first.mark.sequence, last.mark.sequence);
        let left = lose(&self.store, node, hints, LossReason::Expired).await?;
        tracing::warn!(
            node = node.0,
            queue = queue.queue.0,
            first_lost = first.0,
            last_lost = last.0,
            hints = left.hints,
            bytes = left.bytes,
            "hints older than max_age are gone undelivered"
        );
        Ok(())
    }
}
