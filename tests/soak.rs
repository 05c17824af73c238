//! The load that deadlocks naive sled and leaks its disk (docs/sled.md rules 4 and 3), over and
//! over: writers append hints of 128 B to 1 MiB and replay drains them, one after the other and
//! both at once.
//!
//! Goal: it never stands still, each answered hint is delivered once, in order and unchanged, and
//! the disk use stays bounded. Method: two stores in one process, because sled's lock and threads
//! are the process's; one is kept for the whole run, the other made anew now and then. Both are
//! closed and opened every few rounds, with a backlog too, and are `Sync` and `Buffered` in turns.
//! Nothing is made to fail but sends, so nothing may be refused, lost or taken twice. A thread of
//! its own fails the run when a store gave no sign of progress for a minute. `HH_CYCLES` is the
//! length of the run in seconds (an hour by hand), `HH_SEED` runs a seed again.
//!
//! Controls, by hand: `HH_SWITCHED_OFF=LargeSegments,LogScan` makes blobs, `GroupCommits` lets the
//! log grow without bound; with `HH_WATCH=progress` too nothing but a standstill fails.
//! `HH_CONTROL=naive` shows the deadlock on sled itself.

#[path = "soak/counts.rs"]
mod counts;
mod crash;
#[path = "soak/ledger.rs"]
mod ledger;
#[path = "soak/naive.rs"]
mod naive;

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use counts::{Counts, blobs, disk_bytes, mib};
use hinted_handoff::{
    Config, Durability, Health, HintedHandoff, NodeId, Pong, ShardId, ShardWrite, ShardWriter,
    WriteError,
};
use ledger::{Ledger, To};
use parking_lot::Mutex;
use tokio::task::JoinSet;

const NODES: u64 = 3;
const HINT_BYTES_MIN: u64 = 128;
/// 128 B doubled so often is 1 MiB.
const DOUBLINGS_MAX: u32 = 13;
/// What waits in one store at most: 64 MiB in both.
const BACKLOG_BYTES_MAX: u64 = 32 << 20;
/// Or a round of the smallest hints would take all the time.
const BACKLOG_HINTS_MAX: u64 = 4_000;
const ROUNDS_A_LIFE: u64 = 3;
const ROUNDS_A_STORE: u64 = 12;
const ROUNDS_A_LINE: u64 = 15;

type Handoff = HintedHandoff<Bytes>;
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One of the two stores, with all that becomes of it.
struct Lane {
    name: &'static str,
    kept: bool,
    seed: u64,
    dir: PathBuf,
    nodes_are_up: AtomicBool,
    /// Held for a moment only, and never while the storage is waited for.
    state: Mutex<State>,
}

struct State {
    doing: &'static str,
    handoff: Option<Handoff>,
    ledger: Ledger,
    last_sign: Instant,
    ended: bool,
    counts: Counts,
}

impl Lane {
    fn new(name: &'static str, kept: bool, seed: u64, dir: &Path) -> Arc<Self> {
        let state = State {
            doing: "nothing",
            handoff: None,
            ledger: Ledger::default(),
            last_sign: Instant::now(),
            ended: false,
            counts: Counts::default(),
        };
        Arc::new(Lane {
            name,
            kept,
            seed,
            dir: dir.join(name),
            nodes_are_up: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Round after round, until it is time.
    async fn run(self: Arc<Self>, until: Instant) -> Outcome<()> {
        let mut random = fastrand::Rng::with_seed(self.seed ^ u64::from(self.kept));
        while Instant::now() < until {
            let mut handoff = self.open().await?;
            let mut rounds = 0;
            while Instant::now() < until && (self.kept || rounds < ROUNDS_A_STORE) {
                handoff = self.round(handoff, &mut random).await?;
                rounds += 1;
                if rounds.is_multiple_of(ROUNDS_A_LIFE) {
                    handoff = self.reopen(handoff).await?;
                }
                self.check_disk()?;
            }
            self.close(handoff).await?;
            fs::remove_dir_all(&self.dir)?;
            let mut state = self.state.lock();
            state.ledger = Ledger::default();
            state.counts.stores += 1;
        }
        self.state.lock().ended = true;
        Ok(())
    }

    /// Append only, drain only, both at once.
    async fn round(
        self: &Arc<Self>,
        mut handoff: Handoff,
        random: &mut fastrand::Rng,
    ) -> Outcome<Handoff> {
        self.nodes_are_up.store(false, Relaxed);
        self.does("append");
        self.append(&handoff, random).await?;
        self.all_is_pending(&handoff)?;
        if random.u8(..3) == 0 {
            handoff = self.reopen(handoff).await?;
            self.all_is_pending(&handoff)?;
        }
        self.does("drain");
        self.nodes_are_up.store(true, Relaxed);
        self.drained(&handoff).await?;
        self.does("append and drain");
        self.append(&handoff, random).await?;
        self.drained(&handoff).await?;
        self.state.lock().counts.rounds += 1;
        Ok(handoff)
    }

    /// Some writers at once append as much as a round may have.
    async fn append(
        self: &Arc<Self>,
        handoff: &Handoff,
        random: &mut fastrand::Rng,
    ) -> Outcome<()> {
        let writers = 1 << random.u32(..=4);
        let doublings = random.u32(..=DOUBLINGS_MAX);
        let bytes = random.u64(BACKLOG_BYTES_MAX / 8..=BACKLOG_BYTES_MAX);
        let left = Arc::new(AtomicU64::new(bytes));
        let mut tasks = JoinSet::new();
        for writer in 1..=writers {
            let (lane, handoff, left) = (Arc::clone(self), handoff.clone(), Arc::clone(&left));
            let mut random = random.fork();
            tasks.spawn(async move {
                for _ in 0..BACKLOG_HINTS_MAX / writers {
                    let largest = HINT_BYTES_MIN << random.u32(..=doublings);
                    let bytes = random.u64(HINT_BYTES_MIN..=largest);
                    let rest = |left: u64| left.checked_sub(bytes);
                    if left.fetch_update(Relaxed, Relaxed, rest).is_err() {
                        break;
                    }
                    let to = (NodeId(random.u64(1..=NODES)), ShardId(writer));
                    lane.write(&handoff, to, bytes).await?;
                }
                Outcome::Ok(())
            });
        }
        while let Some(writer) = tasks.join_next().await {
            writer??;
        }
        // Only what is durable is pending.
        handoff.sync().await?;
        let appended = bytes - left.load(Relaxed);
        let mut state = self.state.lock();
        let most = &mut state.counts.backlog_bytes_max;
        *most = appended.max(*most);
        Ok(())
    }

    async fn write(&self, handoff: &Handoff, to: To, bytes: u64) -> Outcome<()> {
        let hint = self.state.lock().ledger.awaits(to, bytes);
        let points = hint.payload(self.seed);
        handoff.write_shard(to.0, to.1, &points).await?;
        self.sign(|counts| {
            counts.answered += 1;
            counts.answered_bytes += bytes;
        });
        Ok(())
    }

    /// Compares what is delivered with what is to come next.
    fn take(&self, write: &ShardWrite<Bytes>) -> Outcome<()> {
        for batch in &write.batches {
            let id = batch.hint.ok_or("a hint came without its id")?;
            let to = (write.node, write.shard);
            let awaited = self.state.lock().ledger.comes(to, id)?;
            awaited.is(self.seed, &batch.points)?;
            self.sign(|counts| counts.delivered += 1);
        }
        Ok(())
    }

    async fn open(self: &Arc<Self>) -> Outcome<Handoff> {
        self.does("open");
        let opened = self.state.lock().counts.opened;
        let config = Config {
            durability: match (opened + u64::from(self.kept)) % 2 {
                0 => Durability::Sync,
                _ => Durability::Buffered,
            },
            retry_interval: Duration::from_millis(5),
            retry_max_interval: Duration::from_millis(20),
            // The run's own watch comes first, and tells more.
            commit_timeout: crash::PATIENCE * 2,
            ..Config::new(&self.dir)
        };
        let handoff = HintedHandoff::open(config, Replica(Arc::clone(self))).await?;
        let mut state = self.state.lock();
        state.counts.opened += 1;
        state.handoff = Some(handoff.clone());
        Ok(handoff)
    }

    async fn close(&self, handoff: Handoff) -> Outcome<()> {
        self.does("close");
        handoff.shutdown().await?;
        self.state.lock().handoff = None;
        Ok(())
    }

    async fn reopen(self: &Arc<Self>, handoff: Handoff) -> Outcome<Handoff> {
        self.close(handoff).await?;
        self.open().await
    }

    fn awaited(&self) -> u64 {
        self.state.lock().ledger.awaited()
    }

    /// How many hints are pending, in a store that is well and lost nothing.
    fn pending(&self, handoff: &Handoff) -> Outcome<u64> {
        let stats = handoff.stats();
        let lost: u64 = stats.nodes.iter().map(|node| node.lost.hints).sum();
        let store = &stats.store;
        let rebuilt = store.reopened > 0 || store.moved_aside.is_some();
        let damaged = lost > 0 || rebuilt || !store.damage.is_empty();
        if damaged || !matches!(handoff.health(), Health::Serving) {
            return Err("the store is not well".into());
        }
        Ok(stats.nodes.iter().map(|node| node.pending.hints).sum())
    }

    /// All that is to come is pending, while nothing is delivered.
    fn all_is_pending(&self, handoff: &Handoff) -> Outcome<()> {
        match (self.pending(handoff)?, self.awaited()) {
            (pending, awaited) if pending == awaited => Ok(()),
            (pending, awaited) => {
                Err(format!("{pending} hints are pending, {awaited} should be").into())
            }
        }
    }

    /// Returns when all is delivered and acknowledged; the watch bounds the wait.
    async fn drained(&self, handoff: &Handoff) -> Outcome<()> {
        // In this order: a hint comes before it is no longer pending.
        while self.pending(handoff)? > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match self.awaited() {
            0 => Ok(()),
            missing => Err(format!("{missing} answered hints never came").into()),
        }
    }

    /// Space is reused, so the disk holds some times what waited there at once, however much went
    /// through; and no value became a blob, which might stay for ever.
    fn check_disk(&self) -> Outcome<()> {
        // A control that looks for the deadlock must not end at what else goes wrong.
        let only_progress = std::env::var("HH_WATCH").is_ok_and(|watched| watched == "progress");
        match blobs(&self.dir) {
            _ if only_progress => {}
            0 => {}
            blobs => return Err(format!("{blobs} blobs").into()),
        }
        let bytes = disk_bytes(&self.dir)?;
        let counts = {
            let mut state = self.state.lock();
            let counts = &mut state.counts;
            counts.disk_bytes_max = counts.disk_bytes_max.max(bytes);
            *counts
        };
        let bound = counts.disk_bytes_bound();
        if counts.rounds.is_multiple_of(ROUNDS_A_LINE) {
            println!(
                "soak, {}: {} rounds, {} MiB delivered, {} MiB on disk (bound {})",
                self.name,
                counts.rounds,
                mib(counts.answered_bytes),
                mib(bytes),
                mib(bound)
            );
        }
        match bytes > bound && !only_progress {
            true => Err(format!(
                "{} MiB on disk, at most {} should be",
                mib(bytes),
                mib(bound)
            )
            .into()),
            false => Ok(()),
        }
    }

    fn does(&self, doing: &'static str) {
        self.state.lock().doing = doing;
    }

    /// An append was answered or a hint delivered.
    fn sign(&self, count: impl FnOnce(&mut Counts)) {
        let mut state = self.state.lock();
        let pause = state.last_sign.elapsed();
        state.last_sign = Instant::now();
        state.counts.pause_max = state.counts.pause_max.max(pause);
        count(&mut state.counts);
    }

    /// Fails the run if nothing moves.
    fn watch(&self) {
        let (paused, doing) = {
            let state = self.state.lock();
            (state.last_sign.elapsed(), state.doing)
        };
        if paused > crash::PATIENCE && !self.state.lock().ended {
            self.fail(format!("no sign of progress for {paused:?} in: {doing}"));
        }
    }

    /// Says what is wrong and how things are, and ends the process: what hangs cannot be waited
    /// for.
    fn fail(&self, what: impl Display) -> ! {
        println!("FAILED: soak, {}: {what}", self.name);
        let (doing, handoff, counts) = {
            let state = self.state.lock();
            (state.doing, state.handoff.clone(), state.counts)
        };
        println!(
            "  HH_SEED={}, at: {doing}, {} awaited, {counts:?}",
            self.seed,
            self.awaited()
        );
        println!("  store kept at {}", self.dir.display());
        if let Some(handoff) = handoff {
            println!("  {:?}", handoff.health());
            println!("  {:?}", handoff.stats());
        }
        println!("0 passed, 1 failed");
        std::process::exit(1)
    }
}

/// The nodes behind a lane. Now and then one asks to be tried again, before it took anything.
struct Replica(Arc<Lane>);

impl ShardWriter<Bytes> for Replica {
    async fn ping(&self, _node: NodeId) -> Result<Pong, WriteError> {
        match self.0.nodes_are_up.load(Relaxed) {
            true => Ok(Pong::Answered),
            false => Err(WriteError::retry("down")),
        }
    }

    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let lane = &self.0;
        if fastrand::u8(..100) < 2 {
            lane.state.lock().counts.retries += 1;
            return Err(WriteError::retry("busy"));
        }
        if let Err(what) = lane.take(&write) {
            lane.fail(what);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    if let Some(code) = naive::as_child() {
        return code;
    }
    if std::env::var("HH_CONTROL").is_ok_and(|control| control == "naive") {
        return naive::control(crash::cycles(500));
    }
    let length = Duration::from_secs(crash::cycles(30));
    let seed = crash::seed();
    println!("soak: {} s, HH_SEED={seed}", length.as_secs());
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let lanes = [
        Lane::new("kept", true, seed, dir.path()),
        Lane::new("made anew", false, seed, dir.path()),
    ];
    let watched = lanes.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            watched.iter().for_each(|lane| lane.watch());
        }
    });
    let running = lanes.clone().map(|lane| {
        runtime.spawn(async move {
            if let Err(error) = Arc::clone(&lane).run(begun + length).await {
                lane.fail(error);
            }
        })
    });
    for lane in running {
        runtime.block_on(lane).unwrap();
    }
    let mut sum = Counts::default();
    for lane in &lanes {
        sum.add(&lane.state.lock().counts);
    }
    println!("soak: {sum}, {} s", begun.elapsed().as_secs());
    crash::verdict(true)
}
