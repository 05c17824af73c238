//! The host under test, as a child process: writes, has some writes leave as dead letters at once,
//! replays, settles, pauses, parks, renames and removes nodes, shuts down, and tells its parent.

mod dead_lettering;
mod receiver;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::RwLock;

use super::event::{Event, tell};
use hinted_handoff::internals::with_causes;
use hinted_handoff::{
    Accepted, Config, FailedOutcome, Health, HintedHandoff, NodeId, Pause, ShardId,
};
pub(super) use receiver::Node;

/// What a child is told to do.
#[derive(Debug, Clone)]
pub struct Workload {
    /// How to open the store.
    pub config: Config,
    /// Decides everything random in it.
    pub seed: u64,
    /// The first number it gives to a write.
    pub first_number: u64,
    /// Nodes, each with two shards.
    pub nodes: u64,
    /// Largest payload in bytes.
    pub payload_bytes_max: usize,
    /// Deliver all that is pending, write nothing, close.
    pub drain: bool,
    /// How long to work before a clean shutdown, if nothing stops it before.
    pub work_for: Duration,
    /// Of a hundred disturbances, how many remove a node.
    pub removals_percent: u8,
    /// Of a hundred buffered writes, how many wait until they are durable; and how often, in a
    /// hundred disturbances, everything else does.
    pub syncs_percent: u8,
}

/// Of a hundred writes, how many leave as dead letters in the step that stores them.
const DEAD_LETTERS_PERCENT: u8 = 4;

/// Of a payload: the number, the node and the shard.
const HEADER_BYTES: usize = 24;

/// A node goes by its number and this while it is renamed, which is nothing that the oracle need
/// know.
const ALIAS: u64 = 1 << 32;

/// The node that is meant, whatever name it goes by.
fn by_first_name(node: NodeId) -> NodeId {
    NodeId(node.0 % ALIAS)
}

/// A payload that says which write it is, the rest of which hardly compresses.
pub(super) fn payload(number: u64, node: NodeId, shard: ShardId, bytes: usize) -> Bytes {
    let mut payload = Vec::with_capacity(HEADER_BYTES + bytes);
    payload.extend(number.to_be_bytes());
    payload.extend(node.0.to_be_bytes());
    payload.extend(shard.0.to_be_bytes());
    let mut noise = fastrand::Rng::with_seed(number);
    payload.extend((0..bytes).map(|_| noise.u8(..)));
    payload.into()
}

/// The number, if every byte is the one that was written.
pub(super) fn read_payload(payload_read: &Bytes, node: NodeId, shard: ShardId) -> Option<u64> {
    let (number, _) = payload_read.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(*number);
    let bytes = payload_read.len().checked_sub(HEADER_BYTES)?;
    (payload(number, node, shard, bytes) == payload_read).then_some(number)
}

struct Host {
    workload: Workload,
    handoff: HintedHandoff<Bytes>,
    node: Arc<Node>,
    next: AtomicU64,
    stop: AtomicBool,
    /// Per node: read-locked by a write, write-locked by a removal, so that it is known what a
    /// removal takes along.
    removals: Vec<RwLock<()>>,
}

/// Runs a workload. The exit code is 0 if it came to its end; what ended it before is said to
/// stderr.
pub(super) fn to_its_end(
    workload: &str,
    living: impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>>,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(living),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let said = with_causes(error.as_ref());
            eprintln!("{workload} ended early: {said}");
            ExitCode::FAILURE
        }
    }
}

impl Workload {
    /// Does it, in this process. The exit code is 0 if it came to its end and closed cleanly.
    pub fn run(self) -> ExitCode {
        to_its_end("the workload", self.live())
    }

    async fn live(self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let node = Node::new(self.seed, self.drain);
        // Nothing is sent before the depth found at open is told.
        let shut = node.gate.write().await;
        let handoff = HintedHandoff::open(self.config.clone(), Arc::clone(&node)).await?;
        // A cycle, which the end of the process breaks.
        let _ = node.handoff.set(handoff.clone());
        let stats = handoff.stats();
        if let Some(damage) = stats.store.damage.first() {
            return Err(format!("damage at open: {damage:?}").into());
        }
        let pending = stats.nodes.iter().map(|node| node.pending.hints).sum();
        tell(&Event::Opened { pending })?;
        drop(shut);
        let host = Arc::new(Host {
            next: AtomicU64::new(self.first_number),
            removals: (0..self.nodes).map(|_| RwLock::new(())).collect(),
            stop: AtomicBool::new(false),
            workload: self,
            handoff,
            node,
        });
        host.put_right().await;
        if host.workload.drain {
            host.drain().await?;
        } else {
            host.work().await;
        }
        host.handoff.shutdown().await?;
        // A store that reopened itself at the very end has delivered nothing since.
        host.node.tell_of_reopens()?;
        tell(&Event::Closed)?;
        Ok(())
    }
}

impl Host {
    async fn drain(&self) -> std::io::Result<()> {
        // The parent bounds this wait.
        let pending = || {
            let stats = self.handoff.stats();
            stats.nodes.iter().any(|node| node.pending.hints > 0)
        };
        while pending() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.tell_dead_letters()?;
        let nodes = self.handoff.stats().nodes;
        let delivered = nodes.iter().map(|node| node.delivered.hints).sum();
        tell(&Event::CaughtUp { delivered })
    }

    async fn work(self: &Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for node in 0..self.workload.nodes {
            for shard in 0..2 {
                let host = Arc::clone(self);
                tasks.spawn(async move { host.write(node, shard).await });
            }
        }
        let host = Arc::clone(self);
        tasks.spawn(async move { host.disturb().await });
        tokio::time::sleep(self.workload.work_for).await;
        self.stop.store(true, Relaxed);
        while tasks.join_next().await.is_some() {}
    }

    /// Writes to one shard of one node, one after the other, so that the order of numbers is the
    /// order of the shard.
    async fn write(&self, node: u64, shard: u64) {
        let mut random =
            fastrand::Rng::with_seed(self.workload.seed ^ (node << 8) ^ (shard << 16) ^ 1);
        let (node_id, shard_id) = (NodeId(node + 1), ShardId(shard + 1));
        let Some(removal) = self.removals.get(node as usize) else {
            return;
        };
        // A sync tells each handle once that the store failed, so each task has its own.
        let handoff = self.handoff.clone();
        while !self.stop.load(Relaxed) {
            let _no_removal = removal.read().await;
            let largest = match random.u8(..20) {
                0 => self.workload.payload_bytes_max,
                _ => self.workload.payload_bytes_max.min(2_000),
            };
            let number = self.next.fetch_add(1, Relaxed);
            if random.u8(..100) < DEAD_LETTERS_PERCENT {
                let bytes = random.usize(..=largest);
                match self
                    .make_dead_letter(number, node_id, shard_id, bytes)
                    .await
                {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            let points = payload(number, node_id, shard_id, random.usize(..=largest));
            let tried = Event::Tried {
                number,
                node: node_id,
                shard: shard_id,
            };
            if tell(&tried).is_err() {
                return;
            }
            let told = match handoff.write_shard(node_id, shard_id, &points).await {
                Ok(Accepted::Durable(id)) => tell(&Event::Answered {
                    number,
                    id: Some(id),
                }),
                // Durable after the next sync; some of these ask for one.
                Ok(_) if random.u8(..100) < self.workload.syncs_percent => {
                    match handoff.sync().await {
                        Ok(()) => tell(&Event::Answered { number, id: None }),
                        Err(_) => Ok(()),
                    }
                }
                Ok(_) => Ok(()),
                Err(error) if error.outcome() == FailedOutcome::Refused => {
                    tell(&Event::Refused { number })
                }
                Err(_) => Ok(()),
            };
            if told.is_err() {
                return;
            }
            if random.u8(..4) == 0 {
                tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await;
            }
        }
    }

    /// Settles now and then, and removes a node once in a while.
    async fn disturb(&self) {
        let mut random = fastrand::Rng::with_seed(self.workload.seed ^ 2);
        let handoff = self.handoff.clone();
        while !self.stop.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(random.u64(1..40))).await;
            let told = match random.u8(..100) {
                it if it < self.workload.removals_percent => {
                    self.remove(random.u64(..self.workload.nodes)).await
                }
                it if it < self.workload.removals_percent + self.workload.syncs_percent => {
                    self.node.settle(&handoff).await
                }
                _ => {
                    self.operate(&mut random).await;
                    Ok(())
                }
            };
            if told.is_err() {
                return;
            }
        }
    }

    /// Does what an operator may, and puts it right again: nothing of it loses a hint, or changes
    /// the order of a shard.
    async fn operate(&self, random: &mut fastrand::Rng) {
        let index = random.u64(..self.workload.nodes);
        let Some(removal) = self.removals.get(index as usize) else {
            return;
        };
        let node = NodeId(index + 1);
        // What fails here is put right below, or in the next life.
        match random.u8(..5) {
            4 => drop(self.handoff.retain_only_nodes(&[node]).await),
            0 => drop(self.handoff.pause(node, Pause::Lasting).await),
            1 => drop(self.handoff.pause_all(Pause::Lasting).await),
            2 => drop(self.handoff.retain_nodes(&[node]).await),
            _ => {
                let _no_writes = removal.write().await;
                let alias = NodeId(node.0 + ALIAS);
                let _ = self.handoff.rename_node(node, alias).await;
                tokio::time::sleep(Duration::from_micros(random.u64(..3_000))).await;
                return self.put_right().await;
            }
        }
        tokio::time::sleep(Duration::from_micros(random.u64(..3_000))).await;
        self.put_right().await;
    }

    /// Gives every node its first name back, and ends pauses and parking. Tried until the store
    /// does all of it, or is done for.
    async fn put_right(&self) {
        let handoff = &self.handoff;
        for _ in 0..2_000 {
            let mut well = handoff.resume_all().await.is_ok();
            // Only a store that serves shows which names came of what failed.
            let nodes: Vec<_> = handoff
                .stats()
                .nodes
                .into_iter()
                .map(|it| it.node)
                .collect();
            well &= handoff.retain_nodes(&nodes).await.is_ok();
            for node in nodes {
                well &= handoff.resume(node).await.is_ok();
                if node != by_first_name(node) {
                    let back = handoff.rename_node(node, by_first_name(node)).await;
                    well &= back.is_ok();
                }
            }
            if well || matches!(handoff.health(), Health::RestartRequired(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn remove(&self, node: u64) -> std::io::Result<()> {
        let Some(removal) = self.removals.get(node as usize) else {
            return Ok(());
        };
        let _no_writes = removal.write().await;
        let node = NodeId(node + 1);
        tell(&Event::Discarding { node })?;
        match self.handoff.remove_node(node).await {
            Ok(_) => tell(&Event::Discarded { node }),
            Err(_) => Ok(()),
        }
    }
}
