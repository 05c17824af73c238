//! Sends to many nodes at once: bounded in number and bytes, and no node starves. On paused time.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use crate::common;
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

const LATENCY: Duration = Duration::from_millis(10);
const HINT_BYTES: usize = 2048;

/// Nodes that are up, but for those below a number, which hang. `half` is half of all hints.
#[derive(Default)]
struct Nodes {
    hanging: u64,
    half: u64,
    seen: Mutex<Seen>,
    taken: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    sends: usize,
    most_sends: usize,
    bytes: usize,
    most_bytes: usize,
    hanging: usize,
    most_hanging: usize,
    taken: BTreeMap<NodeId, u64>,
    /// Hints that the node with the fewest had taken when half of all were taken.
    fewest_at_half: u64,
}

struct UnderWay<'a> {
    nodes: &'a Nodes,
    bytes: usize,
    hangs: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut seen = self.nodes.seen.lock();
        seen.sends -= 1;
        seen.bytes -= self.bytes;
        seen.hanging -= usize::from(self.hangs);
    }
}

impl ShardWriter<Bytes> for Nodes {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let hangs = write.node.0 < self.hanging;
        let bytes: usize = write.batches.iter().map(|it| it.points.len()).sum();
        {
            let mut seen = self.seen.lock();
            seen.sends += 1;
            seen.bytes += bytes;
            seen.hanging += usize::from(hangs);
            seen.most_hanging = seen.most_hanging.max(seen.hanging);
            seen.most_sends = seen.most_sends.max(seen.sends);
            seen.most_bytes = seen.most_bytes.max(seen.bytes);
        }
        let _under_way = UnderWay {
            nodes: self,
            bytes,
            hangs,
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        sleep(LATENCY).await;
        let hints = write.batches.len() as u64;
        {
            let mut seen = self.seen.lock();
            *seen.taken.entry(write.node).or_default() += hints;
            if seen.taken.values().sum::<u64>() == self.half {
                seen.fewest_at_half = seen.taken.values().copied().min().unwrap_or(0);
            }
        }
        self.taken.send_modify(|taken| *taken += hints);
        Ok(())
    }
}

fn config(dir: &Path) -> Config {
    Config {
        durability: Durability::Buffered,
        ..common::config(dir)
    }
}

/// A hint of each shard of each node.
async fn fill(dir: &Path, nodes: u64, shards: u64) {
    let down = ScriptedWriter::down();
    let handoff = HintedHandoff::open(config(dir), down).await.unwrap();
    let points = Bytes::from(vec![0; HINT_BYTES]);
    for shard in 0..shards {
        for node in 0..nodes {
            let write = handoff.write_shard(NodeId(node), ShardId(shard), &points);
            write.await.unwrap();
        }
    }
    handoff.sync().await.unwrap();
    handoff.shutdown().await.unwrap();
}

/// Replays until so many hints are taken. Returns how long it took.
async fn replay(config: Config, nodes: &Arc<Nodes>, hints: u64) -> Duration {
    let before = Instant::now();
    let handoff = HintedHandoff::open(config, Arc::clone(nodes))
        .await
        .unwrap();
    let mut taken = nodes.taken.subscribe();
    let all = taken.wait_for(|taken| *taken >= hints);
    let all = tokio::time::timeout(Duration::from_secs(3600), all).await;
    all.expect("some node starves").unwrap();
    let took = before.elapsed();
    handoff.shutdown().await.unwrap();
    took
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nodes_that_come_back_take_turns_within_the_limits_of_all() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 1000, 8).await;
    let nodes = Arc::new(Nodes {
        half: 4000,
        ..Nodes::default()
    });
    nodes.seen.lock().taken = (0..1000).map(|node| (NodeId(node), 0)).collect();
    let took = replay(config(dir.path()), &nodes, 8000).await;
    let seen = nodes.seen.lock();
    println!("{} sends at a time, {took:?}", seen.most_sends);
    assert!(seen.fewest_at_half > 0, "some node was not sent to by then");
    assert_eq!(seen.most_sends, 256);
    assert!(seen.taken.values().all(|hints| *hints == 8));
}

#[tokio::test(start_paused = true)]
async fn so_many_bytes_are_in_flight_at_most() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 100, 8).await;
    let config = Config {
        max_bytes_in_flight: 5 * HINT_BYTES as u64,
        ..config(dir.path())
    };
    let nodes = Arc::new(Nodes::default());
    replay(config, &nodes, 800).await;
    let seen = nodes.seen.lock();
    assert_eq!((seen.most_sends, seen.most_bytes), (5, 5 * HINT_BYTES));
}

#[tokio::test(start_paused = true)]
async fn a_hint_larger_than_all_that_may_be_in_flight_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 20, 2).await;
    let config = Config {
        max_bytes_in_flight: 1,
        ..config(dir.path())
    };
    let nodes = Arc::new(Nodes::default());
    replay(config, &nodes, 40).await;
    assert_eq!(nodes.seen.lock().most_sends, 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_hang_leave_half_of_all_sends_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 200, 8).await;
    let config = Config {
        max_sends: 16,
        send_timeout: Duration::from_secs(1),
        ..config(dir.path())
    };
    let nodes = Arc::new(Nodes {
        hanging: 190,
        ..Nodes::default()
    });
    let took = replay(config, &nodes, 80).await;
    println!("{took:?} for 80 hints beside 190 nodes that hang");
    assert!(took < Duration::from_secs(60), "{took:?}");
    let seen = nodes.seen.lock();
    assert!(seen.most_sends <= 16, "{}", seen.most_sends);
    assert_eq!(seen.most_hanging, 8);
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_all_nodes_together_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 50, 4).await;
    let config = Config {
        retry_rate_limit_total: 10 * HINT_BYTES as u64,
        batch_bytes: HINT_BYTES as u64,
        ..config(dir.path())
    };
    let nodes = Arc::new(Nodes::default());
    // 200 hints at 10 a second, the first at once.
    let took = replay(config, &nodes, 200).await.as_secs_f64();
    assert!((19.8..20.2).contains(&took), "{took}");
}
