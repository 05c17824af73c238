//! The store under test: how it is opened, filled and settled.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, HintedHandoff, NodeId, Pong, ShardId, ShardWrite, ShardWriter, Stats,
    WriteError, database_config, open_database, sled::Db,
};

use super::{
    Outcome,
    entries::Entries,
    producers::{Done, Target, Until, produce},
    receiver::Receiver,
};

pub type Handoff = HintedHandoff<Bytes>;

pub const SHARD: ShardId = ShardId(7);
/// Longer than any scenario.
const NEVER: Duration = Duration::from_secs(86_400);

/// Every node is down: what is written stays.
struct Down;

impl ShardWriter<Bytes> for Down {
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        Err(WriteError::retry("the node is down"))
    }

    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        Err(WriteError::retry("the node is down"))
    }
}

fn config_down(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.retry_interval = NEVER;
    config.retry_max_interval = NEVER;
    config
}

/// Opens a store with all defaults, whose nodes are down.
pub async fn open_down(dir: &Path) -> Outcome<Handoff> {
    Ok(Handoff::open(config_down(dir), Down).await?)
}

/// The same in a database that it shares with a host.
pub async fn open_down_shared(dir: &Path) -> Outcome<(Db, Handoff)> {
    let db = open_database(&database_config(dir))?;
    let handoff = Handoff::open_in(&db, config_down(dir), Down).await?;
    Ok((db, handoff))
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
    turn: Arc<AtomicU64>,
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
        let turn = self.turn.fetch_add(1, Relaxed);
        let node = NodeId(1 + turn % self.nodes);
        self.handoff.write_shard(node, SHARD, &entry).await?;
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
    let pending = |of: fn(&Amount) -> u64| {
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
