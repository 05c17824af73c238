//! Over a link with latency the shards of a node are sent to side by side, and each of them in
//! order all the same.
//!
//! On paused time: what counts is how often somebody waits for the link, not how fast this machine
//! is. `HH_SEED` gives the failures.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use crate::common::{self, copy::copy_files};
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
const SHARDS: u64 = 64;
const HINTS: u64 = 20_000;
const HINT_BYTES: usize = 200;
const LATENCY: Duration = Duration::from_millis(50);

fn config(dir: &Path, max_in_flight: usize) -> Config {
    Config {
        durability: Durability::Buffered,
        max_in_flight,
        // Twenty hints; the window has room for a dozen such sends a shard.
        batch_bytes: 20 * HINT_BYTES as u64,
        window_hints: 16_384,
        ..common::config(dir)
    }
}

/// Hint by hint in the order of their numbers, which they begin with.
async fn fill(dir: &Path) {
    let down = ScriptedWriter::down();
    let handoff = HintedHandoff::open(config(dir, 1), down).await.unwrap();
    for number in 0..HINTS {
        let mut points = number.to_be_bytes().to_vec();
        points.resize(HINT_BYTES, 0);
        let shard = ShardId(number % SHARDS);
        handoff
            .write_shard(NODE, shard, &Bytes::from(points))
            .await
            .unwrap();
    }
    handoff.sync().await.unwrap();
    handoff.shutdown().await.unwrap();
}

/// The other end: it takes its time, fails as often as it is told, and checks the order of each
/// shard.
struct Link {
    seen: Mutex<Seen>,
    taken: watch::Sender<u64>,
}

struct Seen {
    /// Of 100 sends.
    failures: u32,
    random: fastrand::Rng,
    sends: u64,
    under_way: usize,
    most_under_way: usize,
    /// The next number of each shard.
    next: HashMap<ShardId, u64>,
    out_of_order: Vec<String>,
}

impl Link {
    fn new(failures: u32, seed: u64) -> Arc<Self> {
        Arc::new(Link {
            seen: Mutex::new(Seen {
                failures,
                random: fastrand::Rng::with_seed(seed),
                sends: 0,
                under_way: 0,
                most_under_way: 0,
                next: HashMap::new(),
                out_of_order: Vec::new(),
            }),
            taken: watch::Sender::new(0),
        })
    }
}

/// A send is under way until it is answered or given up.
struct UnderWay<'a>(&'a Mutex<Seen>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

enum Fate {
    Take(usize),
    Fail,
    Panic,
    Hang,
}

impl Seen {
    /// What becomes of a send of so many batches.
    fn fate(&mut self, batches: usize) -> Fate {
        self.sends += 1;
        self.under_way += 1;
        self.most_under_way = self.most_under_way.max(self.under_way);
        if self.random.u32(0..100) >= self.failures {
            return Fate::Take(batches);
        }
        match self.random.u32(0..8) {
            0 => Fate::Panic,
            1 => Fate::Hang,
            2..5 => Fate::Take(self.random.usize(0..=batches)),
            _ => Fate::Fail,
        }
    }

    fn take(&mut self, write: &ShardWrite<Bytes>, taken: usize) {
        let next = self.next.entry(write.shard).or_insert(write.shard.0);
        for batch in write.batches.iter().take(taken) {
            let number = u64::from_be_bytes(batch.points[..8].try_into().unwrap());
            if number != *next {
                let text = format!("shard {}: {number} instead of {next}", write.shard);
                self.out_of_order.push(text);
            }
            *next = number + SHARDS;
        }
    }
}

impl ShardWriter<Bytes> for Link {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let fate = self.seen.lock().fate(write.batches.len());
        let _under_way = UnderWay(&self.seen);
        sleep(LATENCY).await;
        match fate {
            Fate::Take(taken) => {
                self.seen.lock().take(&write, taken);
                self.taken.send_modify(|all| *all += taken as u64);
                match taken == write.batches.len() {
                    true => Ok(()),
                    false => Err(WriteError::partial(taken, "the link broke")),
                }
            }
            Fate::Fail => Err(WriteError::retry("the link is down")),
            // Past the hook, which would print hundreds of these.
            Fate::Panic => std::panic::resume_unwind(Box::new("the writer panics")),
            Fate::Hang => std::future::pending().await,
        }
    }
}

/// Drains a copy of the backlog; how long that took, and how many sends.
async fn drain(backlog: &Path, max_in_flight: usize, failures: u32, seed: u64) -> (Duration, u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    copy_files(backlog, &store);
    let link = Link::new(failures, seed);
    let began = Instant::now();
    let config = config(&store, max_in_flight);
    let handoff = HintedHandoff::open(config, Arc::clone(&link))
        .await
        .unwrap();
    let mut taken = link.taken.subscribe();
    taken.wait_for(|taken| *taken >= HINTS).await.unwrap();
    let took = began.elapsed();
    handoff.shutdown().await.unwrap();
    let seen = link.seen.lock();
    assert_eq!(seen.out_of_order, [""; 0], "seed {seed}");
    assert_eq!(seen.next.values().sum::<u64>(), {
        let ends = (0..SHARDS).map(|shard| shard + SHARDS * (HINTS - shard).div_ceil(SHARDS));
        ends.sum::<u64>()
    });
    assert!(seen.most_under_way <= max_in_flight);
    (took, seen.sends)
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_many_shards_drains_side_by_side_and_each_shard_in_order() {
    let seed =
        std::env::var("HH_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    println!("HH_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let backlog = dir.path().join("backlog");
    fill(&backlog).await;

    let (alone, sends_alone) = drain(&backlog, 1, 0, seed).await;
    let (together, sends_together) = drain(&backlog, 32, 0, seed).await;
    let (failing, sends_failing) = drain(&backlog, 32, 20, seed).await;
    let times = alone.as_secs_f64() / together.as_secs_f64();
    assert!(times >= 20.0, "{times:.1} times as fast");
    println!(
        "{HINTS} hints of {HINT_BYTES} B, {SHARDS} shards, {LATENCY:?}: {:.1} s one at a time ({sends_alone} sends), {:.1} s with 32 \
         ({sends_together} sends), {times:.1} times as fast; in order within {:.1} s while a fifth of {sends_failing} sends fails",
        alone.as_secs_f64(),
        together.as_secs_f64(),
        failing.as_secs_f64()
    );
}
