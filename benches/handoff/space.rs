//! An outage that takes 4 GiB on the disk is drained: how soon is the space given back, how much
//! stays, and what do writers notice?

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{Config, NodeId, Pong, ShardId, ShardWrite, ShardWriter, WriteError};
use tokio::task::JoinSet;

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::{Place, allocated_bytes},
        ours::{Handoff, settle},
        report::{Table, mib},
    },
};

const GIB: u64 = 1 << 30;

const ENTRIES: usize = 2_000;
/// What does not compress takes the most space for each byte written.
const OUTAGE_ENTRY_BYTES: usize = 16 * 1024;
const OUTAGE_WRITERS: u64 = 64;
/// While it drains, and after that: writers that are not at the limit.
const WRITERS: u64 = 8;
const WRITES_APART: Duration = Duration::from_millis(10);
/// How long writers are watched when all is over.
const AFTERWARDS: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);

/// Takes everything, once it is up.
struct Node(AtomicBool);

impl Node {
    fn answer(&self) -> Result<(), WriteError> {
        let up = self.0.load(Relaxed);
        up.then_some(()).ok_or(WriteError::retry("it is down"))
    }
}

impl ShardWriter<Bytes> for Node {
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        self.answer().map(|()| Pong::Answered)
    }

    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        self.answer()
    }
}

/// How long a write took, and when it began.
type Write = (Instant, Duration);

pub async fn run(settings: &Settings, place: &Place) -> Outcome<()> {
    let entries = Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let outage_bytes = (4.0 * GIB as f64 * settings.scale) as u64;
    if place.free_bytes()? < outage_bytes + GIB {
        return Err("too little room on the disk for an outage of 4 GiB".into());
    }
    let temporary = place.fresh_dir()?;
    let dir = temporary.path().join("store");
    let node = Arc::new(Node(AtomicBool::new(false)));
    let config = Config {
        retry_interval: Duration::from_millis(50),
        retry_max_interval: Duration::from_millis(200),
        ..Config::new(&dir)
    };
    let handoff = Handoff::open(config, Arc::clone(&node)).await?;
    fill(&handoff, &dir, outage_bytes).await?;
    let (payload, peak) = (handoff.stats().store.pending.bytes, allocated_bytes(&dir)?);

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for shard in 0..WRITERS {
        let (handoff, entries, stop) = (handoff.clone(), Arc::clone(&entries), Arc::clone(&stop));
        writers.spawn(async move { write(&handoff, shard, &entries, &stop).await });
    }
    let up = Instant::now();
    node.0.store(true, Relaxed);
    until(|| Ok(handoff.stats().store.pending.hints < 1_000)).await?;
    let drained = up.elapsed();
    let kept = peak / 4;
    until(|| Ok(allocated_bytes(&dir).is_ok_and(|bytes| bytes < kept))).await?;
    let given_back = up.elapsed();
    tokio::time::sleep(AFTERWARDS).await;
    stop.store(true, Relaxed);
    let mut writes: Vec<Write> = Vec::new();
    while let Some(written) = writers.join_next().await {
        writes.append(&mut written??);
    }
    settle(&handoff).await?;
    let left = allocated_bytes(&dir)?;
    let compactions = handoff.stats().store.compactions;
    handoff.shutdown().await?;

    let seconds = |it: Duration| format!("{:.1}", it.as_secs_f64());
    let mut table = Table::new(&["an outage, drained while 8 writers go on", "figure", "goal"]);
    let mut row = |name: &str, figure: String, goal: &str| {
        table.row([name.to_owned(), figure, goal.to_owned()]);
    };
    row("waiting, MiB of payload", mib(Some(payload)), "");
    row("on disk, MiB", mib(Some(peak)), "4096");
    row("drained after, s", seconds(drained), "");
    row("space given back after, s", seconds(given_back), "");
    row("left on disk, MiB", mib(Some(left)), "64");
    row("compactions", compactions.to_string(), "");
    let spans = [
        ("while it drains", Duration::ZERO..drained),
        ("while space is given back", drained..given_back),
        ("afterwards", given_back..given_back + AFTERWARDS),
    ];
    for (name, span) in spans {
        let within = |(begun, _): &&Write| span.contains(&(*begun - up));
        let mut took: Vec<_> = writes.iter().filter(within).map(|it| it.1).collect();
        took.sort_unstable();
        let at = |share: f64| {
            let place = (took.len() as f64 * share) as usize;
            took.get(place.min(took.len().saturating_sub(1)))
                .map_or("-".to_owned(), |it| {
                    format!("{:.1}", it.as_secs_f64() * 1e3)
                })
        };
        let figure = format!("{} / {} / {}", at(0.5), at(0.99), at(1.0));
        row(
            &format!("a write, {name}: median / p99 / longest, ms"),
            figure,
            "",
        );
    }
    table.print("Space given back after an outage");
    Ok(())
}

async fn until(wished: impl Fn() -> Outcome<bool>) -> Outcome<()> {
    let started = Instant::now();
    while !wished()? {
        if started.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Writes until the store takes so much on the disk.
async fn fill(handoff: &Handoff, dir: &Path, bytes: u64) -> Outcome<()> {
    let full = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..OUTAGE_WRITERS {
        let (handoff, full) = (handoff.clone(), Arc::clone(&full));
        writers.spawn(async move {
            let mut noise = fastrand::Rng::with_seed(number);
            while !full.load(Relaxed) {
                let mut entry = vec![0; OUTAGE_ENTRY_BYTES];
                noise.fill(&mut entry);
                let entry = Bytes::from(entry);
                let shard = ShardId(100 + number % 8);
                handoff.write_shard(NodeId(1), shard, &entry).await?;
            }
            Outcome::Ok(())
        });
    }
    while allocated_bytes(dir)? < bytes {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    full.store(true, Relaxed);
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}

/// Writes at a steady rate until it is told to stop; returns how long each write took.
async fn write(
    handoff: &Handoff,
    shard: u64,
    entries: &Entries,
    stop: &AtomicBool,
) -> Outcome<Vec<Write>> {
    let mut writes = Vec::new();
    while !stop.load(Relaxed) {
        let entry = entries.next();
        let begun = Instant::now();
        handoff
            .write_shard(NodeId(1), ShardId(shard), &entry)
            .await?;
        writes.push((begun, begun.elapsed()));
        tokio::time::sleep(WRITES_APART).await;
    }
    Ok(writes)
}
