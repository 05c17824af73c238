//! What a node's task is doing, for everybody else to see, and the bell that wakes it.

use std::error::Error;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};

use super::rate::Rate;
use crate::{
    events::Event,
    stats::{NodeState, UnknownFormat},
    types::{NodeId, ShardId},
};

/// `seen` guards what is shown; it is held for a copy only.
#[derive(Debug)]
pub struct Progress {
    node: NodeId,
    bell: Notify,
    seen: Mutex<Seen>,
    events: broadcast::Sender<Event>,
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
    /// Whether it was down since it last caught up: only then is recovering worth a line in the log.
    troubled: bool,
}

impl Progress {
    pub fn new(node: NodeId, events: broadcast::Sender<Event>) -> Self {
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

    /// The node is down. Logged when it was not, not at every retry.
    pub fn down(&self) {
        let mut seen = self.seen.lock();
        seen.troubled = true;
        if seen.state == NodeState::Down {
            return;
        }
        seen.state = NodeState::Down;
        let error = seen.last_error.clone().map(|(text, _)| text);
        let error = error.unwrap_or_default();
        drop(seen);
        tracing::warn!(node = self.node.0, state = ?NodeState::Down, %error, "node changed state");
        self.tell(Event::NodeDown {
            node: self.node,
            error,
        });
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
        // Nobody may listen.
        let _ = self.events.send(event);
    }
}

/// An error and all its causes in a line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
