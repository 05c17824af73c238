//! The node that hints are replayed to: it answers at once, counts, and checks that each hint
//! stands right behind the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{HintId, NodeId, Sequence, ShardWrite, ShardWriter, WriteError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Outcome;

/// Reports when the first hint, the first of every node, and the last one arrived.
pub struct Receiver {
    expected_nodes: usize,
    /// Takes nothing: the first send is noted and never answered.
    holds: bool,
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Default)]
struct Seen {
    expected_hints: u64,
    hints: u64,
    bytes: u64,
    last: BTreeMap<NodeId, HintId>,
    nodes: BTreeSet<NodeId>,
    /// Hints that did not stand right behind the one before.
    misplaced: u64,
    first: Option<Instant>,
    all_nodes: Option<Instant>,
    all: Option<Instant>,
}

impl Receiver {
    pub fn new(expected_hints: u64, expected_nodes: usize) -> Arc<Self> {
        Self::with(expected_hints, expected_nodes, false)
    }

    /// One that never answers, to see only when the first hint arrives.
    pub fn holding() -> Arc<Self> {
        Self::with(u64::MAX, usize::MAX, true)
    }

    /// One that is told by [`expect`](Self::expect) how many will come.
    pub fn unending() -> Arc<Self> {
        Self::with(u64::MAX, usize::MAX, false)
    }

    fn with(expected_hints: u64, expected_nodes: usize, holds: bool) -> Arc<Self> {
        let seen = Seen {
            expected_hints,
            ..Seen::default()
        };
        Arc::new(Receiver {
            expected_nodes,
            holds,
            seen: Mutex::new(seen),
            changed: Notify::new(),
        })
    }

    pub fn expect(&self, hints: u64) {
        let mut seen = self.seen.lock();
        seen.expected_hints = hints;
        if seen.hints >= hints {
            seen.all = Some(Instant::now());
        }
    }

    async fn wait(&self, of: impl Fn(&Seen) -> Option<Instant>) -> Instant {
        loop {
            if let Some(at) = of(&self.seen.lock()) {
                return at;
            }
            self.changed.notified().await;
        }
    }

    /// When the first hint arrived.
    pub async fn first(&self) -> Instant {
        self.wait(|seen| seen.first).await
    }

    /// When each expected node had got its first hint.
    pub async fn all_nodes(&self) -> Instant {
        self.wait(|seen| seen.all_nodes).await
    }

    /// When the last expected hint arrived, with all payload bytes so far; an error if any came out
    /// of its place, or if nothing came for ten seconds.
    pub async fn all(&self, bytes: u64) -> Outcome<Instant> {
        let mut before = 0;
        let at = loop {
            match tokio::time::timeout(Duration::from_secs(10), self.wait(|seen| seen.all)).await {
                Ok(at) => break at,
                Err(_) => {
                    let seen = self.seen.lock();
                    let (hints, expected) = (seen.hints, seen.expected_hints);
                    if hints == before {
                        return Err(
                            format!("LOST: {hints} of {expected} hints came, then none").into()
                        );
                    }
                    before = hints;
                }
            }
        };
        let seen = self.seen.lock();
        if seen.misplaced > 0 || seen.bytes != bytes || seen.hints != seen.expected_hints {
            return Err(format!(
                "LOST: {} hints of {} bytes came ({} not right behind the one before), {} of {bytes} were answered",
                seen.hints, seen.bytes, seen.misplaced, seen.expected_hints
            )
            .into());
        }
        Ok(at)
    }
}

impl ShardWriter<Bytes> for Receiver {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let now = Instant::now();
        {
            let mut seen = self.seen.lock();
            seen.first.get_or_insert(now);
            if !self.holds {
                seen.note(&write);
            }
            if seen.nodes.len() >= self.expected_nodes {
                seen.all_nodes.get_or_insert(now);
            }
            if seen.hints >= seen.expected_hints {
                seen.all.get_or_insert(now);
            }
        }
        self.changed.notify_one();
        if self.holds {
            return pending().await;
        }
        Ok(())
    }
}

impl Seen {
    fn note(&mut self, write: &ShardWrite<Bytes>) {
        self.nodes.insert(write.node);
        for batch in &write.batches {
            self.hints += 1;
            self.bytes += batch.points.len() as u64;
            let Some(hint) = batch.hint else {
                self.misplaced += 1;
                continue;
            };
            let before = self.last.insert(write.node, hint);
            let expected = match before {
                Some(before) if before.queue == hint.queue => before.sequence.0 + 1,
                _ => 1,
            };
            if hint.sequence != Sequence(expected) {
                self.misplaced += 1;
            }
        }
    }
}
