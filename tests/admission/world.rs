//! A handoff with direct writes, what every receiver saw, and whether that was in order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::AddAssign,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, ConsistencyLevel, HandoffError, HintedHandoff, NodeId, NodeState,
    PointsWriteError, PointsWriter, Shard, ShardId, WriteOrdering, WriteOutcome,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter, Seen};

pub use crate::common::service::shard;
use crate::common::{self, clock::stepping};

pub type Answer = Result<WriteOutcome, PointsWriteError>;

/// What all worlds did and saw.
#[derive(Debug, Default)]
pub struct Figures {
    pub writes: u64,
    pub direct: u64,
    pub hinted: u64,
    pub backlogged: u64,
    /// First arrivals that were compared with what came before them.
    pub checked: u64,
    /// Copies that receivers refused as known, by the mark of their queue and by their write.
    pub refused: (u64, u64),
}

impl AddAssign for Figures {
    fn add_assign(&mut self, more: Figures) {
        self.writes += more.writes;
        self.direct += more.direct;
        self.hinted += more.hinted;
        self.backlogged += more.backlogged;
        self.checked += more.checked;
        self.refused.0 += more.refused.0;
        self.refused.1 += more.refused.1;
    }
}

pub static FIGURES: Mutex<Figures> = Mutex::new(Figures {
    writes: 0,
    direct: 0,
    hinted: 0,
    backlogged: 0,
    checked: 0,
    refused: (0, 0),
});

/// When the call of a write began and when it was answered, on a clock that only counts.
#[derive(Debug, Clone, Copy)]
struct Call {
    began: u64,
    answered: u64,
}

/// One life of a handoff. `close` ends it.
#[derive(Clone)]
pub struct World {
    pub handoff: HintedHandoff<Bytes>,
    points_writer: PointsWriter<Bytes, Arc<ScriptedWriter>>,
    calls: Arc<Calls>,
}

/// The writes of one or more lives.
#[derive(Default)]
pub struct Calls {
    clock: AtomicU64,
    /// By what was written; each is written once.
    calls: Mutex<HashMap<Bytes, Call>>,
}

/// Strict, and quick to try again.
pub fn config(dir: &Path) -> Config {
    Config {
        ordering: WriteOrdering::Strict,
        retry_interval: Duration::from_millis(1),
        retry_max_interval: Duration::from_millis(5),
        ..common::config(dir)
    }
}

/// Whose write, and the how many-eth of his. Only those of one client are compared by their
/// numbers.
pub fn points(client: u64, number: u64) -> Bytes {
    Bytes::from(format!("{client}:{number}"))
}

fn numbers(points: &Bytes) -> (u64, u64) {
    let text = std::str::from_utf8(points).unwrap();
    let (client, number) = text.split_once(':').unwrap();
    (client.parse().unwrap(), number.parse().unwrap())
}

impl World {
    pub async fn open(config: Config, writer: &Arc<ScriptedWriter>, calls: &Arc<Calls>) -> World {
        let handoff = HintedHandoff::open(config, Arc::clone(writer))
            .await
            .unwrap();
        World::of(handoff, writer, calls)
    }

    pub fn of(
        handoff: HintedHandoff<Bytes>,
        writer: &Arc<ScriptedWriter>,
        calls: &Arc<Calls>,
    ) -> World {
        World {
            points_writer: PointsWriter::new(handoff.clone(), Arc::clone(writer)),
            handoff,
            calls: Arc::clone(calls),
        }
    }

    pub async fn write(&self, shard: &Shard, level: ConsistencyLevel, points: Bytes) -> Answer {
        let now = || self.calls.clock.fetch_add(1, Relaxed);
        let unanswered = Call {
            began: now(),
            answered: u64::MAX,
        };
        let before = (self.calls.calls.lock().unwrap()).insert(points.clone(), unanswered);
        assert!(before.is_none(), "each is written once");
        let answer = self.points_writer.write(shard, level, points.clone()).await;
        let mut calls = self.calls.calls.lock().unwrap();
        calls.get_mut(&points).unwrap().answered = now();
        answer
    }

    pub fn stats(&self) -> hinted_handoff::WriteStats {
        self.handoff.stats().writes
    }

    /// Waits until no node has anything left to be sent.
    pub async fn caught_up(&self) {
        // What is in the pipeline is not pending yet.
        let synced = self.handoff.sync().await;
        assert!(matches!(
            synced,
            Ok(()) | Err(HandoffError::FailedMeanwhile)
        ));
        let is_caught_up = || {
            let nodes = self.handoff.stats().nodes;
            nodes
                .iter()
                .all(|it| it.pending == Amount::default() && it.state == NodeState::CaughtUp)
        };
        self.until("caught up", is_caught_up).await;
    }

    /// Waits on whatever clock.
    pub async fn until(&self, what: &str, wished: impl Fn() -> bool) {
        for _ in 0..20_000 {
            if wished() {
                return;
            }
            // Real time for the commit thread, a moment of tokio's clock for the tasks.
            std::thread::sleep(Duration::from_micros(50));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never {what}: {:?}", self.handoff.stats());
    }

    pub async fn close(self) {
        self.count();
        stepping(self.handoff.shutdown()).await.unwrap();
    }

    pub fn count(&self) {
        let stats = self.stats();
        *FIGURES.lock().unwrap() += Figures {
            direct: stats.direct,
            hinted: stats.hinted,
            backlogged: stats.backlogged,
            ..Figures::default()
        };
    }
}

fn was_taken(seen: &Seen) -> bool {
    matches!(seen.reply, Reply::Take | Reply::Slow(_))
}

impl Calls {
    /// Checks the order of all that was written, and that of what was taken. Once, when all is
    /// done.
    pub fn check(&self, writer: &ScriptedWriter) {
        let mut seen = writer.seen();
        self.check_order(seen.iter(), "sent");
        // Also what a node took of a send before it failed: a store that opens itself again may
        // have that sent once more, behind others.
        for seen in &mut seen {
            seen.points.truncate(seen.taken().len());
        }
        self.check_order(seen.iter(), "taken");
    }

    /// Checks the order of what was applied.
    pub fn check_applied(&self, applied: &[Seen]) {
        self.check_order(applied.iter(), "applied");
    }

    fn check_order<'a>(&self, seen: impl Iterator<Item = &'a Seen>, what: &str) {
        let checked = self.broken(seen);
        let checked = checked.unwrap_or_else(|broken| panic!("{what} out of order: {broken}"));
        FIGURES.lock().unwrap().checked += checked;
    }

    /// Counts all calls, and the copies that receivers refused as known.
    pub fn count(&self, refused: (u64, u64)) {
        *FIGURES.lock().unwrap() += Figures {
            writes: self.calls.lock().unwrap().len() as u64,
            refused,
            ..Figures::default()
        };
    }

    /// Checks that each of these nodes applied all that was written, or rejected it; or that the
    /// other one rejected it and nobody took it, so that it was withdrawn.
    pub fn check_complete(&self, writer: &ScriptedWriter, applied: &[Seen], nodes: [u64; 2]) {
        let seen = writer.seen();
        let rejected = seen.iter().filter(|seen| seen.reply == Reply::Reject);
        let copies = |seen: &Seen| {
            let node = seen.node;
            seen.points.clone().into_iter().map(move |it| (node, it))
        };
        let rejected: HashSet<_> = rejected.flat_map(copies).collect();
        let applied: HashSet<_> = applied.iter().flat_map(copies).collect();
        for points in self.calls.lock().unwrap().keys() {
            let at = |node: u64| (NodeId(node), points.clone());
            let is_applied = nodes.iter().any(|node| applied.contains(&at(*node)));
            let is_refused = nodes.iter().any(|node| rejected.contains(&at(*node)));
            for node in nodes {
                let is_there = applied.contains(&at(node)) || rejected.contains(&at(node));
                let is_withdrawn = is_refused && !is_applied;
                assert!(is_there || is_withdrawn, "{node} misses {points:?}");
            }
        }
    }

    /// How often the order held, or where it did not: the first arrival of a write must not come
    /// after that of a later one. Later is the one with the higher number of the same client, and
    /// one that began after the other was answered.
    pub fn broken<'a>(&self, seen: impl Iterator<Item = &'a Seen>) -> Result<u64, String> {
        let calls = self.calls.lock().unwrap();
        let mut lanes: BTreeMap<_, Vec<&Bytes>> = BTreeMap::new();
        for seen in seen {
            let lane = lanes.entry((seen.node, seen.shard)).or_default();
            lane.extend(&seen.points);
        }
        let mut checked = 0;
        for ((node, shard), arrivals) in lanes {
            let (mut known, mut of_client) = (HashSet::new(), HashMap::new());
            let mut latest: Option<(u64, &Bytes)> = None;
            for points in arrivals {
                if !known.insert(points) {
                    continue;
                }
                let ((client, number), call) = (numbers(points), calls[points]);
                let before = of_client.insert(client, number);
                let by_number = before.filter(|before| *before > number).is_some();
                let by_time = latest.filter(|(began, _)| *began > call.answered);
                if by_number || by_time.is_some() {
                    let after = by_time.map(|(_, points)| points);
                    return Err(format!(
                        "{points:?} after {before:?} of its client and {after:?} at {node}, {shard}"
                    ));
                }
                if latest.is_none_or(|(began, _)| began < call.began) {
                    latest = Some((call.began, points));
                }
                checked += 1;
            }
        }
        Ok(checked)
    }
}

/// What node 1 took of a shard, in order, as numbers.
pub fn taken(writer: &ScriptedWriter, shard: u64) -> Vec<u64> {
    taken_by(writer, 1, shard)
}

pub fn taken_by(writer: &ScriptedWriter, node: u64, shard: u64) -> Vec<u64> {
    let seen = writer.seen().into_iter();
    let at = (NodeId(node), ShardId(shard));
    let taken = seen.filter(|it| was_taken(it) && (it.node, it.shard) == at);
    taken
        .flat_map(|it| it.points)
        .map(|it| numbers(&it).1)
        .collect()
}
