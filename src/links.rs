//! Links: what is known of reaching each node, shared by direct writes and replay.
//!
//! A link has a **gate**. While it is open, a write is sent to the node; while it is closed, a
//! write becomes a hint at once, instead of each waiting for its own timeout. It closes when a
//! direct write is outstanding past [`Config::hint_after`] and the node has answered nothing since
//! that write began; when writes to two shards fail and the node has answered nothing in between;
//! and when a ping fails. One bad shard does not close it. It opens when the node answers: replay
//! pings and sends the oldest hint, so that no write has to try. Where replay does not run, for a
//! node that is paused, parked or manual, one direct write each [`Config::retry_interval`] tries.
//!
//! [`Config::hint_after`]: crate::Config::hint_after
//! [`Config::retry_interval`]: crate::Config::retry_interval

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::time::Instant;

use crate::{
    ageing::Ageing,
    clock::Clock,
    config::Config,
    events::{Event, Events},
    stats::{DirectStats, Gate},
    types::{Amount, NodeId, ShardId},
};

/// After so long an outstanding write counts as not answered, where `hint_after` is 0.
const SLOW_AFTER: Duration = Duration::from_millis(100);

/// The links of all nodes that were written to or replayed since open.
///
/// `links` guards the map alone, and is held for a look-up.
#[derive(Debug)]
pub struct Links {
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    settings: Arc<LinkSettings>,
}

#[derive(Debug)]
struct LinkSettings {
    most: Amount,
    trial_every: Duration,
    slow_after: Duration,
    ageing: Arc<Ageing>,
    events: Events,
}

/// What is known of reaching one node.
///
/// `state` guards the gate and the counts; it is held for a few instructions, and an event is told
/// after it is let go.
#[derive(Debug)]
pub struct Link {
    node: NodeId,
    settings: Arc<LinkSettings>,
    state: Mutex<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    /// Why it is closed, if it is.
    closed: Option<Closed>,
    /// When the node last answered: took something, or refused it.
    answered: Option<Instant>,
    /// A shard that failed since then.
    failing: Option<ShardId>,
    /// When a write last tried a gate that replay does not open.
    tried: Option<Instant>,
    direct: DirectStats,
}

#[derive(Debug)]
struct Closed {
    since_unix_ms: u64,
    why: String,
}

/// A direct write that is under way, until it is dropped.
#[derive(Debug)]
pub struct Outstanding {
    link: Arc<Link>,
    bytes: u64,
}

/// Why a write is not sent directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// The gate is closed.
    Closed,
    /// As many are outstanding as may be.
    Full,
}

impl Links {
    pub fn new(config: &Config, ageing: Arc<Ageing>, events: Events) -> Self {
        Links {
            links: RwLock::default(),
            settings: Arc::new(LinkSettings {
                most: Amount {
                    hints: config.max_outstanding as u64,
                    bytes: config.max_outstanding_bytes,
                },
                trial_every: config.retry_interval,
                slow_after: match config.hint_after.is_zero() {
                    true => SLOW_AFTER,
                    false => config.hint_after,
                },
                ageing,
                events,
            }),
        }
    }

    /// The link of a node.
    pub fn of(&self, node: NodeId) -> Arc<Link> {
        if let Some(link) = self.links.read().get(&node) {
            return Arc::clone(link);
        }
        let new = || {
            Arc::new(Link {
                node,
                settings: Arc::clone(&self.settings),
                state: Mutex::default(),
            })
        };
        Arc::clone(self.links.write().entry(node).or_insert_with(new))
    }

    /// Forgets a node that is gone.
    pub fn forget(&self, node: NodeId) {
        self.links.write().remove(&node);
    }

    /// What is shown of each, by node.
    pub fn seen(&self) -> BTreeMap<NodeId, (Gate, DirectStats)> {
        let links = self.links.read();
        links
            .iter()
            .map(|(node, link)| (*node, link.seen()))
            .collect()
    }

    pub fn clock(&self) -> &Clock {
        self.settings.ageing.clock()
    }

    /// How old hints are, for those who send them.
    pub fn ageing(&self) -> &Arc<Ageing> {
        &self.settings.ageing
    }

    /// After so long without an answer a write counts as a failure, if it may take that long.
    pub fn slow_after(&self) -> Duration {
        self.settings.slow_after
    }
}

impl Link {
    /// Begins a direct write, or says why there is none.
    pub fn begin(self: &Arc<Self>, bytes: u64) -> Result<Outstanding, Barred> {
        let state = self.state.lock();
        match state.closed.is_some() || state.direct.held_since_unix_ms.is_some() {
            true => Err(Barred::Closed),
            false => self.begin_within(state, bytes),
        }
    }

    /// The same where nobody else finds out whether the node answers again: a gate that is closed
    /// lets one write try now and then.
    pub fn try_closed(self: &Arc<Self>, bytes: u64) -> Result<Outstanding, Barred> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let is_due = |tried: Instant| now.duration_since(tried) >= self.settings.trial_every;
        let is_not_tried = state.closed.is_some() && !state.tried.is_none_or(is_due);
        if is_not_tried || state.direct.held_since_unix_ms.is_some() {
            return Err(Barred::Closed);
        }
        state.tried = Some(now);
        self.begin_within(state, bytes)
    }

    fn begin_within(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, LinkState>,
        bytes: u64,
    ) -> Result<Outstanding, Barred> {
        let (now, most) = (state.direct.outstanding, self.settings.most);
        let then = now.plus(Amount { hints: 1, bytes });
        if now.hints > 0 && (then.hints > most.hints || then.bytes > most.bytes) {
            return Err(Barred::Full);
        }
        state.direct.outstanding = then;
        drop(state);
        Ok(Outstanding {
            link: Arc::clone(self),
            bytes,
        })
    }

    /// The host holds direct writes.
    pub fn hold(&self) {
        let now = self.settings.ageing.clock().unix_ms();
        self.state
            .lock()
            .direct
            .held_since_unix_ms
            .get_or_insert(now);
    }

    /// It does not any more.
    pub fn release(&self) {
        self.state.lock().direct.held_since_unix_ms = None;
    }

    /// A write was not sent.
    pub fn not_tried(&self) {
        self.state.lock().direct.not_tried += 1;
    }

    /// The node took something.
    pub fn taken(&self) {
        self.answered(|direct| direct.taken += 1);
    }

    /// The node refused a direct write for good.
    pub fn refused(&self) {
        self.answered(|direct| direct.rejected += 1);
    }

    /// The node answered replay.
    pub fn replayed(&self) {
        self.answered(|_| {});
    }

    /// When the node last answered anything: took or refused a send of replay or a direct write.
    pub fn last_answer(&self) -> Option<Instant> {
        self.state.lock().answered
    }

    fn answered(&self, count: impl FnOnce(&mut DirectStats)) {
        let was_closed = {
            let mut state = self.state.lock();
            count(&mut state.direct);
            state.answered = Some(Instant::now());
            state.failing = None;
            state.tried = None;
            state.closed.take().is_some()
        };
        if was_closed {
            tracing::info!(
                node = self.node.0,
                "node answers; writes are sent to it again"
            );
            let node = self.node;
            self.tell(Event::GateOpened { node });
        }
    }

    /// A direct write to a shard failed in a way that is worth a retry.
    pub fn failed(&self, shard: ShardId, error: &str) {
        self.state.lock().direct.failed += 1;
        self.shard_failed(shard, error);
    }

    /// A write to a shard failed, a direct one or one of replay.
    pub fn shard_failed(&self, shard: ShardId, error: &str) {
        let mut state = self.state.lock();
        let other = state.failing.replace(shard);
        let is_second = other.is_some_and(|other| other != shard);
        if is_second {
            self.close(state, || {
                format!("writes to two shards failed, the last with: {error}")
            });
        }
    }

    /// A direct write that began then has been outstanding for so long.
    pub fn slow(&self, began: Instant, after: Duration) {
        let state = self.state.lock();
        if state.answered.is_none_or(|at| at < began) {
            let after = humantime::format_duration(after);
            self.close(state, || format!("nothing was answered within {after}"));
        }
    }

    /// A ping failed.
    pub fn ping_failed(&self, error: &str) {
        self.close(self.state.lock(), || format!("the ping failed: {error}"));
    }

    fn close(&self, mut state: MutexGuard<'_, LinkState>, why: impl FnOnce() -> String) {
        if state.closed.is_some() {
            return;
        }
        let (node, why) = (self.node, why());
        state.closed = Some(Closed {
            since_unix_ms: self.settings.ageing.clock().unix_ms(),
            why: why.clone(),
        });
        // Whoever tried it now would find what is known already.
        state.tried = Some(Instant::now());
        drop(state);
        tracing::warn!(node = node.0, error = %why, "node does not answer; writes to it are hinted at once");
        self.tell(Event::GateClosed { node, why });
    }

    fn seen(&self) -> (Gate, DirectStats) {
        let state = self.state.lock();
        let gate = match (&state.closed, state.direct.held_since_unix_ms) {
            (None, None) => Gate::Open,
            (Some(closed), _) => Gate::Closed {
                since_unix_ms: closed.since_unix_ms,
                why: closed.why.clone(),
            },
            (None, Some(since_unix_ms)) => Gate::Closed {
                since_unix_ms,
                why: "the host holds direct writes".to_owned(),
            },
        };
        (gate, state.direct)
    }

    fn tell(&self, event: Event) {
        self.settings.events.tell(event);
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        let mut state = self.link.state.lock();
        let bytes = self.bytes;
        state.direct.outstanding = state.direct.outstanding.less(Amount { hints: 1, bytes });
    }
}

#[cfg(test)]
mod tests;
