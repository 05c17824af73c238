//! How a database that embeds the queue runs the crash loop on itself: 20 lives, each stopped by
//! SIGKILL at a random moment, then one that delivers all that is left; the oracle says whether
//! anything was lost, invented, reordered or numbered twice.
//!
//! ```text
//! cargo run --example crash_test
//! ```
//!
//! The program starts itself as a child, which is the database under test. It tells its parent of
//! each write before it is handed in and after it was answered, and of each delivery, by lines on
//! stdout (`tell`). What it told is true whenever it dies, and the parent keeps it outside
//! of the store. To cut the power instead, put the store on a `PowerCut` and give that to
//! the loop in place of `Kill`; to stop at a named step, set `HH_FAILPOINT` for the child
//! (`internals::POINTS` names them).

use std::{
    error::Error,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use hinted_handoff::{
    Accepted, Config, HintedHandoff, NodeId, ShardId, ShardWrite, ShardWriter, WriteError,
};
use hinted_handoff_testkit::{CrashLoop, Ended, Event, Kill, tell};

const LIVES: u64 = 20;
const NODE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(7);

/// The replica: takes what it is given, and tells of it right before it says so.
struct Replica;

impl ShardWriter<String> for Replica {
    async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
        for batch in write.batches {
            let (Some(id), Ok(number)) = (batch.hint, batch.points.parse()) else {
                return Err(WriteError::reject("nobody wrote this"));
            };
            let delivered = Event::Delivered {
                id,
                number,
                node: write.node,
                shard: write.shard,
            };
            tell(&delivered).map_err(WriteError::retry)?;
        }
        Ok(())
    }
}

/// One life of the database under test. The last one writes nothing and delivers what is left.
async fn live(dir: &Path, life: u64) -> Result<(), Box<dyn Error>> {
    let mut config = Config::new(dir);
    config.retry_interval = Duration::from_millis(2);
    let handoff = HintedHandoff::open(config, Replica).await?;
    let pending = |handoff: &HintedHandoff<String>| -> u64 {
        let nodes = handoff.stats().nodes;
        nodes.iter().map(|node| node.pending.hints).sum()
    };
    tell(&Event::Opened {
        pending: pending(&handoff),
    })?;
    // No number is ever used twice, so each life has a range of its own.
    let numbers = if life < LIVES { 1..20_000 } else { 0..0 };
    for number in numbers.map(|number| life * 1_000_000 + number) {
        tell(&Event::Tried {
            number,
            node: NODE,
            shard: SHARD,
        })?;
        let points = number.to_string();
        if let Accepted::Durable(id) = handoff.write_shard(NODE, SHARD, &points).await? {
            let id = Some(id);
            tell(&Event::Answered { number, id })?;
        }
    }
    while pending(&handoff) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handoff.shutdown().await?;
    tell(&Event::Closed)?;
    Ok(())
}

fn test() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut crash_loop = CrashLoop::new(Kill, dir.path().join("children.log"));
    for life in 0..=LIVES {
        let mut child = Command::new(std::env::current_exe()?);
        child
            .arg("child")
            .arg(dir.path().join("store"))
            .arg(life.to_string());
        let after = (life < LIVES).then(|| Duration::from_millis(fastrand::u64(50..600)));
        // After five deaths in a row while it opened a store is refused. We know that these were
        // kills.
        let _ = std::fs::remove_file(dir.path().join("store/OPENING"));
        let ended = crash_loop.live(&mut child, after, Duration::from_secs(60))?;
        if ended == Ended::Failed {
            return Err(std::fs::read_to_string(&crash_loop.log)?.into());
        }
    }
    let counts = crash_loop.oracle.finish();
    println!("{counts:?}");
    match crash_loop.oracle.violations() {
        [] => Ok(()),
        violations => Err(violations.join("\n").into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [word, dir, life] if word == "child" => tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|runtime| {
                let life = life.parse()?;
                runtime.block_on(live(Path::new(dir), life))
            }),
        _ => test(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}
