//! What a node's task is doing, for everybody else to see, and the bell that wakes it.

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::rate::Rate;
use crate::{
    events::{Event, Events},
    stats::{NodeState, UnknownFormat},
    types::{NodeId, ShardId},
};

/// `seen` guards what is shown; it is held for a copy only.
#[derive(Debug)]
pub struct Progress {
    node: NodeId,
    bell: Notify,
    seen: Mutex<Seen>,
    events: Events,
}

#[derive(Debug, Clone)]
pub struct Seen {
    pub state: NodeState,
    pub failures: u64,
    /// Failures since the node last took something, those of earlier lives too.
    pub attempts: u64,
    /// With its time, by the wall clock, in milliseconds since 1970.
    pub last_error: Option<(String, u64)>,
    pub stalled_by: Option<ShardId>,
    pub unknown_format: Option<UnknownFormat>,
    pub rate: Rate,
    /// Whether it was down since it last caught up: only then is recovering worth a line in the
    /// log.
    troubled: bool,
}

impl Progress {
    pub fn new(node: NodeId, events: Events) -> Self {
        Progress {
            node,
            bell: Notify::new(),
            seen: Mutex::new(Seen {
                state: NodeState::CaughtUp,
                failures: 0,
                attempts: 0,
                last_error: None,
                stalled_by: None,
                unknown_format: None,
                rate: Rate::default(),
                troubled: false,
            }),
            events,
        }
    }

    /// How it went before a restart.
    pub fn restore(&self, attempts: u64, last_error: Option<(String, u64)>) {
        let mut seen = self.seen.lock();
        seen.attempts = attempts;
        seen.last_error = last_error;
    }

    /// Rings; a bell rung while nobody listens is heard by the next who does.
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    pub async fn woken(&self) {
        self.bell.notified().await;
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// The node took so many hints.
    pub fn took(&self, hints: u64) {
        self.seen.lock().rate.add(hints, Instant::now());
    }

    /// A send succeeded, or nothing is left to send.
    pub fn well(&self, state: NodeState) {
        let mut seen = self.seen.lock();
        seen.attempts = 0;
        seen.last_error = None;
        if state == NodeState::CaughtUp {
            seen.stalled_by = None;
            seen.unknown_format = None;
        }
        if seen.state == state {
            return;
        }
        seen.state = state;
        let troubled = seen.troubled;
        if state == NodeState::CaughtUp {
            seen.troubled = false;
        }
        drop(seen);
        let node = self.node;
        self.tell(match state {
            NodeState::CaughtUp => Event::CaughtUp { node },
            _ => Event::Replaying { node },
        });
        match troubled {
            true => tracing::info!(node = node.0, ?state, "node changed state"),
            // A node that is up flips between these two with every hint.
            false => tracing::debug!(node = node.0, ?state, "node changed state"),
        }
    }

    /// An attempt failed, with the causes of that.
    pub fn failed(&self, error: String, now_unix_ms: u64) {
        let mut seen = self.seen.lock();
        seen.failures += 1;
        seen.attempts += 1;
        seen.last_error = Some((error, now_unix_ms));
    }

    /// The node does not answer. Logged when it did, not at every retry.
    pub fn down(&self) {
        let Some((error, _)) = self.fails(NodeState::Down) else {
            return;
        };
        let (node, state) = (self.node, NodeState::Down);
        tracing::warn!(node = node.0, ?state, %error, "node changed state");
        self.tell(Event::NodeDown { node, error });
    }

    /// The node answers, and sends to some of its shards fail.
    pub fn failing(&self) {
        let Some((error, was_troubled)) = self.fails(NodeState::Failing) else {
            return;
        };
        let (node, state) = (self.node, NodeState::Failing);
        match was_troubled {
            // It goes to and fro with every hint that another shard takes.
            true => tracing::debug!(node = node.0, ?state, %error, "node changed state"),
            false => tracing::warn!(node = node.0, ?state, %error, "node changed state"),
        }
        self.tell(Event::NodeFailing { node, error });
    }

    /// The last error, and whether it was in trouble before, if this is another state than it was
    /// in.
    fn fails(&self, state: NodeState) -> Option<(String, bool)> {
        let mut seen = self.seen.lock();
        let was_troubled = std::mem::replace(&mut seen.troubled, true);
        if seen.state == state {
            return None;
        }
        seen.state = state;
        let error = seen.last_error.clone().map(|(text, _)| text);
        Some((error.unwrap_or_default(), was_troubled))
    }

    /// Hints wait that nobody is sending, for a reason that is not the node's.
    pub fn waits(&self) {
        let mut seen = self.seen.lock();
        seen.state = NodeState::Waiting;
        seen.stalled_by = None;
    }

    /// All that could be sent was, and some are left.
    pub fn waits_still(&self) {
        if self.seen.lock().state != NodeState::Replaying {
            self.waits();
        }
    }

    /// Whether it took nothing since a ping or a send failed.
    pub fn is_in_doubt(&self) -> bool {
        self.seen.lock().attempts > 0
    }

    /// Which shard holds up the cursor.
    pub fn stalled_by(&self, shard: Option<ShardId>) {
        self.seen.lock().stalled_by = shard;
    }

    /// Which hints wait for a host that reads their format.
    pub fn unknown_format(&self, unknown: Option<UnknownFormat>) {
        self.seen.lock().unknown_format = unknown;
    }

    /// The node answers, and nothing but such hints waits for it.
    pub fn only_unknown(&self) {
        self.seen.lock().state = NodeState::UnknownFormat;
    }

    pub fn tell(&self, event: Event) {
        self.events.tell(event);
    }
}
