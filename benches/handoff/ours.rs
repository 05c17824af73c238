//! The store under test: how it is opened, filled and drained.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Config, HintId, HintedHandoff, NodeId, Sequence, ShardId, ShardWrite, ShardWriter, Stats,
    WriteError,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    Outcome,
    entries::Entries,
    producers::{Done, Target, Until, produce},
};

pub type Handoff = HintedHandoff<Bytes>;

const SHARD: ShardId = ShardId(7);
/// Longer than any scenario.
const NEVER: Duration = Duration::from_secs(86_400);

/// Every node is down: what is written stays.
struct Down;

impl ShardWriter<Bytes> for Down {
    async fn ping(&self, _: NodeId) -> Result<(), WriteError> {
        Err(WriteError::retry("the node is down"))
    }

    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        Err(WriteError::retry("the node is down"))
    }
}

/// Opens a store with all defaults, whose nodes are down.
pub async fn open_down(dir: &Path) -> Outcome<Handoff> {
    let mut config = Config::new(dir);
    config.retry_interval = NEVER;
    config.retry_max_interval = NEVER;
    Ok(Handoff::open(config, Down).await?)
}

/// Opens a store with all defaults, whose nodes write to `receiver`.
pub async fn open_up(dir: &Path, receiver: &Arc<Receiver>) -> Outcome<Handoff> {
    Ok(Handoff::open(Config::new(dir), Arc::clone(receiver)).await?)
}

/// Appends to nodes 1 to `nodes` in turn.
#[derive(Clone)]
pub struct Appender {
    handoff: Handoff,
    nodes: u64,
    turn: Arc<std::sync::atomic::AtomicU64>,
}

impl Appender {
    pub fn new(handoff: &Handoff, nodes: u64) -> Self {
        Appender {
            handoff: handoff.clone(),
            nodes,
            turn: Arc::default(),
        }
    }
}

impl Target for Appender {
    async fn append(&self, entry: Bytes) -> Outcome<()> {
        let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let node = NodeId(1 + turn % self.nodes);
        self.handoff.write_shard(SHARD, node, &entry).await?;
        Ok(())
    }
}

/// Appends `count` entries for one node, checks that they wait, and shuts down.
pub async fn fill(
    dir: &Path,
    entries: &Arc<Entries>,
    producers: usize,
    count: u64,
) -> Outcome<(Done, Stats)> {
    let handoff = open_down(dir).await?;
    let target = Appender::new(&handoff, 1);
    let done = produce(&target, entries, producers, Until::Entries(count)).await?;
    let stats = check_pending(&handoff, &done)?;
    handoff.shutdown().await?;
    Ok((done, stats))
}

/// Nothing that was answered may be missing.
pub fn check_pending(handoff: &Handoff, done: &Done) -> Outcome<Stats> {
    let stats = handoff.stats();
    let pending = |of: fn(&hinted_handoff::Amount) -> u64| {
        stats
            .nodes
            .iter()
            .map(|node| of(&node.pending))
            .sum::<u64>()
    };
    let (hints, bytes) = (pending(|it| it.hints), pending(|it| it.bytes));
    if (hints, bytes) != (done.entries, done.bytes) {
        return Err(format!(
            "LOST: {} hints of {} bytes were answered, {hints} of {bytes} wait",
            done.entries, done.bytes
        )
        .into());
    }
    Ok(stats)
}

/// A writer that answers at once, and counts.
pub struct Receiver {
    expected_hints: u64,
    expected_nodes: usize,
    /// Takes nothing: the first send is noted and never answered.
    holds: bool,
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Default)]
struct Seen {
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
        Arc::new(Receiver {
            expected_hints,
            expected_nodes,
            holds: false,
            seen: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// One that never answers, to see only when the first hint arrives.
    pub fn holding() -> Arc<Self> {
        Arc::new(Receiver {
            expected_hints: u64::MAX,
            expected_nodes: usize::MAX,
            holds: true,
            seen: Mutex::default(),
            changed: Notify::new(),
        })
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

    /// When the last expected hint arrived, with all payload bytes so far; an error if any came out of its place, or
    /// if nothing came for ten seconds.
    pub async fn all(&self, bytes: u64) -> Outcome<Instant> {
        let mut before = 0;
        let at = loop {
            match tokio::time::timeout(Duration::from_secs(10), self.wait(|seen| seen.all)).await {
                Ok(at) => break at,
                Err(_) => {
                    let hints = self.seen.lock().hints;
                    if hints == before {
                        let expected = self.expected_hints;
                        return Err(
                            format!("LOST: {hints} of {expected} hints came, then none").into()
                        );
                    }
                    before = hints;
                }
            }
        };
        let seen = self.seen.lock();
        if seen.misplaced > 0 || seen.bytes != bytes || seen.hints != self.expected_hints {
            return Err(format!(
                "LOST: {} hints of {} bytes came ({} not right behind the one before), {} of {bytes} were answered",
                seen.hints, seen.bytes, seen.misplaced, self.expected_hints
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
            if seen.hints >= self.expected_hints {
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

/// Waits until everything received is acknowledged, and that durably.
pub async fn settle(handoff: &Handoff) -> Outcome<()> {
    let started = Instant::now();
    loop {
        let pending: u64 = handoff
            .stats()
            .nodes
            .iter()
            .map(|node| node.pending.hints)
            .sum();
        if pending == 0 {
            break;
        }
        if started.elapsed() > Duration::from_secs(30) {
            return Err(format!("{pending} hints that were received still wait").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(handoff.sync().await?)
}
