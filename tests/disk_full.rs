//! A full disk: with the free-space reserve hints are refused in time and draining goes on; without
//! it sled meets ENOSPC, and still nothing that was answered is lost, and the store reopens itself
//! once there is room.
//!
//! Method: a tmpfs of 256 MiB, filled with hints that do not compress while the node is down, then
//! drained, then enlarged. Needs root to mount. `HH_CYCLES` repeats it.

mod crash;

use std::{
    collections::HashSet,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{Config, EnqueueError, Health, HintedHandoff, NodeId, ShardId};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

const NODE: NodeId = NodeId(1);
const HINT_BYTES: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(120);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A mounted tmpfs; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

fn mount(options: &str, path: &Path) -> Outcome<()> {
    let output = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(path)
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
    }
}

impl SmallDisk {
    fn new() -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        mount("size=256m,mode=0700", dir.path())?;
        Ok(SmallDisk(dir))
    }

    fn enlarge(&self) -> Outcome<()> {
        mount("remount,size=768m", self.0.path())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A payload that does not compress and says which it is.
fn payload(number: u64) -> Bytes {
    let mut noise = fastrand::Rng::with_seed(number);
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize_with(HINT_BYTES, || noise.u8(..));
    payload.into()
}

struct Story {
    handoff: HintedHandoff<Bytes>,
    writer: Arc<ScriptedWriter>,
    answered: HashSet<u64>,
    next: u64,
}

impl Story {
    async fn open(dir: &Path, reserve: u64) -> Outcome<Self> {
        let config = Config {
            min_free_disk: reserve,
            retry_interval: Duration::from_millis(5),
            retry_max_interval: Duration::from_millis(20),
            ..Config::new(dir.join("hints"))
        };
        let writer = Arc::new(ScriptedWriter::down());
        let handoff = HintedHandoff::open(config, Arc::clone(&writer)).await?;
        Ok(Story {
            handoff,
            writer,
            answered: HashSet::new(),
            next: 0,
        })
    }

    async fn write(&mut self) -> Result<(), EnqueueError> {
        self.next += 1;
        let points = payload(self.next);
        self.handoff.write_shard(NODE, ShardId(1), &points).await?;
        self.answered.insert(self.next);
        Ok(())
    }

    async fn fill(&mut self) -> Outcome<EnqueueError> {
        // More than the disk can ever hold.
        for _ in 0..10_000 {
            if let Err(error) = self.write().await {
                return Ok(error);
            }
        }
        Err("the disk never got full".into())
    }

    async fn until(&self, what: &str, wished: impl Fn(&Self) -> bool) -> Outcome<()> {
        let waiting = async {
            while !wished(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.map_err(|_| {
            format!(
                "{what}: not within {PATIENCE:?}: {:?}",
                self.handoff.health()
            )
            .into()
        })
    }

    fn pending(&self) -> u64 {
        self.handoff
            .stats()
            .nodes
            .iter()
            .map(|node| node.pending.hints)
            .sum()
    }

    /// Delivers what is left and compares it with what was answered.
    async fn drain(&mut self) -> Outcome<()> {
        self.writer.follow(|_| Reply::Take);
        self.writer.follow_pings(|_| Reply::Take);
        self.until("draining", |story| story.pending() == 0).await?;
        let delivered = self.writer.taken();
        let mut numbers = HashSet::new();
        for points in &delivered {
            let number = points
                .first_chunk()
                .map(|bytes| u64::from_be_bytes(*bytes))
                .ok_or("a short payload")?;
            if *points != payload(number) {
                return Err(format!("hint {number} came back changed").into());
            }
            numbers.insert(number);
        }
        match self.answered.difference(&numbers).count() {
            0 => Ok(()),
            lost => Err(format!("{lost} answered hints are lost").into()),
        }
    }
}

/// Refused in time, drained while full, and on it goes with more room.
async fn with_the_reserve() -> Outcome<String> {
    let disk = SmallDisk::new()?;
    let mut story = Story::open(disk.0.path(), 128 << 20).await?;
    let refusal = story.fill().await?;
    if !matches!(refusal, EnqueueError::DiskReserve { .. }) {
        return Err(format!("refused otherwise: {refusal}").into());
    }
    let filled = story.answered.len();
    story.drain().await?;
    if !matches!(story.handoff.health(), Health::Serving) {
        return Err(format!(
            "draining a full disk failed the store: {:?}",
            story.handoff.health()
        )
        .into());
    }
    disk.enlarge()?;
    story.write().await?;
    story.drain().await?;
    story.handoff.shutdown().await?;
    Ok(format!(
        "refused after {filled} hints, all delivered, {} in all",
        story.answered.len()
    ))
}

/// sled meets ENOSPC. Nothing answered is lost, and with room the store reopens itself.
async fn without_the_reserve() -> Outcome<String> {
    let disk = SmallDisk::new()?;
    let mut story = Story::open(disk.0.path(), 0).await?;
    let error = story.fill().await?;
    if !matches!(error, EnqueueError::Unknown(_)) {
        return Err(format!("a full disk gave: {error}").into());
    }
    let filled = story.answered.len();
    disk.enlarge()?;
    story
        .until("reopening", |story| {
            matches!(story.handoff.health(), Health::Serving)
        })
        .await?;
    for _ in 0..50 {
        story.write().await?;
    }
    story.drain().await?;
    let reopened = story.handoff.stats().store.reopened;
    story.handoff.shutdown().await?;
    Ok(format!(
        "ENOSPC after {filled} hints, reopened {reopened} times, {} delivered",
        story.answered.len()
    ))
}

fn main() -> ExitCode {
    if let Err(missing) = SmallDisk::new() {
        println!("disk_full: SKIPPED: {missing}");
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        return crash::closing(0, in_ci.into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("FAILED: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed) = (0, 0);
    for cycle in 1..=crash::cycles(1) {
        for (name, outcome) in [
            ("with the reserve", runtime.block_on(with_the_reserve())),
            (
                "without the reserve",
                runtime.block_on(without_the_reserve()),
            ),
        ] {
            match outcome {
                Ok(told) => {
                    passed += 1;
                    println!("disk_full {cycle}, {name}: {told}");
                }
                Err(error) => {
                    failed += 1;
                    println!("FAILED: disk_full {cycle}, {name}: {error}");
                }
            }
        }
    }
    crash::closing(passed, failed)
}
