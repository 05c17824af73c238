//! Shards that fail or hang do not starve those that go well.
//!
//! On paused time, over random mixes (`HH_SEED`, `HH_FAIRNESS_CASES`): every healthy hint is
//! delivered, and in no more than twice the time that it takes without the others, but for finding
//! out which these are.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::{self, clock::paused};
use bytes::Bytes;
use hinted_handoff::{
    Config, Durability, HintedHandoff, NodeId, ShardId, ShardWrite, ShardWriter, WriteError,
};
use hinted_handoff_testkit::ScriptedWriter;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

const NODE: NodeId = NodeId(1);
/// How long a send takes, whether it is taken or fails.
const LATENCY: Duration = Duration::from_millis(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A node with shards that fail, and shards that hang.
struct Node {
    failing: HashSet<u64>,
    hanging: HashSet<u64>,
    /// All goes well.
    is_well: AtomicBool,
    seen: Mutex<Seen>,
    taken: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    /// The numbers of what was taken, by shard.
    taken: HashMap<u64, Vec<u64>>,
    under_way: usize,
    most_under_way: usize,
}

impl Node {
    fn new(mix: &Mix) -> Self {
        Node {
            failing: mix.failing.clone(),
            hanging: mix.hanging.clone(),
            is_well: AtomicBool::new(false),
            seen: Mutex::default(),
            taken: watch::Sender::new(0),
        }
    }
}

struct UnderWay<'a>(&'a Node);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().under_way -= 1;
    }
}

impl ShardWriter<Bytes> for Node {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        {
            let mut seen = self.seen.lock();
            seen.under_way += 1;
            seen.most_under_way = seen.most_under_way.max(seen.under_way);
        }
        let _under_way = UnderWay(self);
        let shard = write.shard.0;
        let is_bad = !self.is_well.load(Relaxed);
        if is_bad && self.hanging.contains(&shard) {
            std::future::pending::<()>().await;
        }
        sleep(LATENCY).await;
        if is_bad && self.failing.contains(&shard) {
            return Err(WriteError::retry("this shard fails"));
        }
        let numbers = write.batches.iter().map(|it| number(&it.points));
        let numbers: Vec<_> = numbers.collect();
        self.taken
            .send_modify(|taken| *taken += numbers.len() as u64);
        let mut seen = self.seen.lock();
        seen.taken.entry(shard).or_default().extend(numbers);
        Ok(())
    }
}

fn number(points: &Bytes) -> u64 {
    let (number, _) = points.split_first_chunk::<8>().unwrap();
    u64::from_be_bytes(*number)
}

/// A node's backlog, and which of its shards go well.
#[derive(Debug, Clone)]
struct Mix {
    shards: u64,
    hints_a_shard: u64,
    failing: HashSet<u64>,
    hanging: HashSet<u64>,
    max_in_flight: usize,
    window_hints: usize,
}

impl Mix {
    fn random(random: &mut fastrand::Rng) -> Self {
        // As many small ones as large ones.
        let shards = (20_000_f64.powf(random.f64()) as u64).clamp(1, 20_000);
        let bad = random.f64() * 0.95;
        let hang = [0.0, 0.0, 0.5, 1.0][random.usize(..4)];
        let mut mix = Mix {
            shards,
            hints_a_shard: random.u64(1..=(20_000 / shards).clamp(1, 50)),
            failing: HashSet::new(),
            hanging: HashSet::new(),
            max_in_flight: random.usize(1..=32),
            window_hints: [64, 1024, 8192][random.usize(..3)],
        };
        // Here and there, or all of them first.
        let in_a_row = random.bool();
        for shard in 0..shards {
            let is_bad = match in_a_row {
                true => shard < (bad * shards as f64) as u64,
                false => random.f64() < bad,
            };
            if is_bad && random.f64() < hang {
                mix.hanging.insert(shard);
            } else if is_bad {
                mix.failing.insert(shard);
            }
        }
        mix
    }

    fn healthy(&self) -> impl Iterator<Item = u64> {
        let is_bad = |shard: &u64| self.failing.contains(shard) || self.hanging.contains(shard);
        (0..self.shards).filter(move |shard| !is_bad(shard))
    }

    /// How long the node is left alone after rounds in which all sends failed: 1, 2, 4 s and so on.
    /// Each goes four times as far as the one before, and the first one to as many shards as are
    /// sent to at a time. It ends with its sends, and one that hangs is waited for ten times
    /// `send_timeout` at most.
    fn waits(&self) -> Duration {
        let bad = self.failing.len() + self.hanging.len();
        let mut rounds = 0;
        while self.max_in_flight.max(4) << (2 * rounds) <= bad {
            rounds += 1;
        }
        let last_send = match self.hanging.is_empty() {
            true => LATENCY,
            false => 10 * SEND_TIMEOUT,
        };
        Duration::from_secs(2 << rounds) + rounds * last_send
    }

    /// What it takes at least to find out which shards go wrong.
    fn finding_out(&self) -> Duration {
        let (failing, hanging) = (self.failing.len() as u32, self.hanging.len() as u32);
        (failing * LATENCY + hanging * SEND_TIMEOUT) / self.max_in_flight as u32
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} shards of {} hints, {} fail, {} hang, {} sends at a time, a window of {}",
            self.shards,
            self.hints_a_shard,
            self.failing.len(),
            self.hanging.len(),
            self.max_in_flight,
            self.window_hints,
        )
    }
}

fn config(dir: &Path, mix: &Mix) -> Config {
    Config {
        durability: Durability::Buffered,
        max_in_flight: mix.max_in_flight,
        window_hints: mix.window_hints,
        send_timeout: SEND_TIMEOUT,
        ..common::config(dir)
    }
}

/// Hints in rounds over these shards, numbered.
async fn fill(dir: &Path, mix: &Mix, shards: &[u64]) {
    let down = ScriptedWriter::down();
    let handoff = HintedHandoff::open(config(dir, mix), down).await.unwrap();
    for round in 0..mix.hints_a_shard {
        for shard in shards {
            let points = Bytes::from(round.to_be_bytes().to_vec());
            let write = handoff.write_shard(NODE, ShardId(*shard), &points);
            write.await.unwrap();
        }
    }
    handoff.sync().await.unwrap();
    handoff.shutdown().await.unwrap();
}

/// How long it takes until all hints of shards that go well are delivered. Then all shards go well,
/// and all is.
async fn drain(dir: &Path, mix: &Mix, shards: &[u64]) -> Duration {
    let node = Arc::new(Node::new(mix));
    let before = Instant::now();
    let config = config(dir, mix);
    let handoff = HintedHandoff::open(config, Arc::clone(&node))
        .await
        .unwrap();
    let until_taken = async |hints: u64| {
        let mut taken = node.taken.subscribe();
        let limit = Duration::from_secs(48 * 3600);
        let all = tokio::time::timeout(limit, taken.wait_for(|taken| *taken >= hints)).await;
        if all.is_err() {
            let taken = *node.taken.borrow();
            panic!("{taken} of {hints} hints of {mix}: {:?}", handoff.stats());
        }
    };
    until_taken(mix.healthy().count() as u64 * mix.hints_a_shard).await;
    let took = before.elapsed();
    node.is_well.store(true, Relaxed);
    until_taken(shards.len() as u64 * mix.hints_a_shard).await;
    {
        let seen = node.seen.lock();
        assert!(
            seen.most_under_way <= mix.max_in_flight,
            "{}",
            seen.most_under_way
        );
        let all: Vec<_> = (0..mix.hints_a_shard).collect();
        for shard in shards {
            assert_eq!(seen.taken[shard], all, "shard {shard}");
        }
    }
    handoff.shutdown().await.unwrap();
    took
}

/// How long it takes without the others, and with them.
fn alone_and_together(mix: &Mix) -> (Duration, Duration) {
    let healthy: Vec<_> = mix.healthy().collect();
    let everyone: Vec<_> = (0..mix.shards).collect();
    let [alone, together] = [healthy, everyone].map(|shards| {
        paused(async {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path(), mix, &shards).await;
            drain(dir.path(), mix, &shards).await
        })
    });
    (alone, together)
}

#[test]
fn every_healthy_hint_is_delivered_at_no_less_than_half_the_rate() {
    let seed =
        std::env::var("HH_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    let cases = std::env::var("HH_FAIRNESS_CASES").map_or(6, |it| it.parse().unwrap());
    println!("HH_SEED={seed}");
    for case in 0..cases {
        let mix = Mix::random(&mut fastrand::Rng::with_seed(seed + case));
        let (alone, together) = alone_and_together(&mix);
        let limit = 2 * (alone + mix.finding_out()) + mix.waits();
        println!(
            "seed {}: {mix}: {alone:.2?} alone, {together:.2?} with the others, {limit:.0?} allowed",
            seed + case
        );
        assert!(
            together <= limit,
            "HH_SEED={}: {mix}: {together:?} of {limit:?}",
            seed + case
        );
    }
}

/// A shard that fails between any two that go well: more runs of hints than a stored cursor names.
#[test]
fn what_is_taken_past_too_many_stalled_hints_comes_again_after_a_restart_and_none_is_lost() {
    let mix = Mix {
        shards: 6000,
        hints_a_shard: 1,
        failing: (0..6000).filter(|shard| shard % 2 == 0).collect(),
        hanging: HashSet::new(),
        max_in_flight: 8,
        window_hints: 1024,
    };
    let dir = tempfile::tempdir().unwrap();
    let everyone: Vec<_> = (0..mix.shards).collect();
    paused(fill(dir.path(), &mix, &everyone));
    // Until so many are taken, and then until all that is pending is.
    let replay = |is_well: bool, hints: Option<u64>| {
        paused(async {
            let node = Arc::new(Node::new(&mix));
            node.is_well.store(is_well, Relaxed);
            let config = config(dir.path(), &mix);
            let handoff = HintedHandoff::open(config, Arc::clone(&node))
                .await
                .unwrap();
            let hints = hints.unwrap_or(handoff.stats().store.pending.hints);
            let mut taken = node.taken.subscribe();
            taken.wait_for(|taken| *taken >= hints).await.unwrap();
            handoff.shutdown().await.unwrap();
            node.seen.lock().taken.clone()
        })
    };
    replay(false, Some(3000));
    let taken = replay(true, None);
    assert!(taken.values().all(|hints| *hints == [0]), "none twice");
    let again = taken.keys().filter(|shard| *shard % 2 == 1).count();
    assert_eq!(taken.len() - again, 3000, "all that had failed");
    assert_eq!(again, 3000 - 2048);
}

/// A window that one stalled shard fills, and sends that nothing but failures ends.
#[test]
fn shards_that_go_well_again_are_delivered_in_full_and_in_order() {
    for (max_in_flight, failing, hanging, window_hints) in [
        (1, 0, 2, 1),
        (1, 0, 2, 2),
        (1, 2, 0, 2),
        (8, 30, 10, 2),
        (3, 60, 0, 64),
    ] {
        let mix = Mix {
            shards: 2 + failing + hanging,
            hints_a_shard: 20,
            failing: (0..failing).collect(),
            hanging: (failing..failing + hanging).collect(),
            max_in_flight,
            window_hints,
        };
        let dir = tempfile::tempdir().unwrap();
        let everyone: Vec<_> = (0..mix.shards).collect();
        paused(async {
            fill(dir.path(), &mix, &everyone).await;
            drain(dir.path(), &mix, &everyone).await;
        });
    }
}
