//! A service whose nodes a test scripts, and what is known of one of them.

use std::{borrow::Borrow, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    Config, HintedHandoff, NodeId, NodeState, NodeStats, Payload, Shard, ShardId,
};
use hinted_handoff_testkit::ScriptedWriter;

use super::soon;

/// That tries again after moments, in real time.
pub fn quick(dir: &Path) -> Config {
    Config {
        retry_interval: Duration::from_millis(10),
        retry_max_interval: Duration::from_millis(20),
        ..super::config(dir)
    }
}

pub fn shard(id: u64, owners: &[u64]) -> Shard {
    Shard {
        id: ShardId(id),
        owners: owners.iter().copied().map(NodeId).collect(),
    }
}

pub async fn start(
    config: impl Borrow<Config>,
    writer: &Arc<ScriptedWriter>,
) -> HintedHandoff<Bytes> {
    let opened = HintedHandoff::open(config.borrow().clone(), Arc::clone(writer));
    opened.await.unwrap()
}

/// Leaves behind a hint for each of the shards, with its number as text, in this order.
pub async fn queue_up(config: &Config, node: NodeId, shards: impl IntoIterator<Item = u64>) {
    let handoff = start(config, &Arc::new(ScriptedWriter::down())).await;
    for (number, shard) in shards.into_iter().enumerate() {
        let points = Bytes::from(number.to_string());
        let written = handoff.write_shard(node, ShardId(shard), &points).await;
        written.unwrap();
    }
    handoff.sync().await.unwrap();
    handoff.shutdown().await.unwrap();
}

pub fn node_stats<P: Payload>(handoff: &HintedHandoff<P>, node: NodeId) -> NodeStats {
    let mut nodes = handoff.stats().nodes.into_iter();
    nodes.find(|it| it.node == node).unwrap()
}

/// Waits on paused time until what is known of the node is as wished, and returns it.
pub async fn until_node<P: Payload>(
    handoff: &HintedHandoff<P>,
    node: NodeId,
    wished: impl Fn(&NodeStats) -> bool,
) -> NodeStats {
    for _ in 0..100_000 {
        let known = handoff.stats().nodes.into_iter().find(|it| it.node == node);
        if let Some(known) = known.filter(&wished) {
            return known;
        }
        // Real time for the commit thread, a moment of tokio's clock for the tasks.
        std::thread::sleep(Duration::from_micros(50));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the node never got there: {:?}", handoff.stats().nodes);
}

/// The same until all that it missed is delivered.
pub async fn until_caught_up<P: Payload>(handoff: &HintedHandoff<P>, node: NodeId) -> NodeStats {
    let is_done = |it: &NodeStats| it.state == NodeState::CaughtUp && it.pending.hints == 0;
    until_node(handoff, node, is_done).await
}

/// The same as `until_node` in real time.
pub async fn soon_node<P: Payload>(
    handoff: &HintedHandoff<P>,
    node: NodeId,
    wished: impl Fn(&NodeStats) -> bool,
) -> NodeStats {
    let mut known = node_stats(handoff, node);
    let is_so = || {
        known = node_stats(handoff, node);
        wished(&known)
    };
    soon("what is wished of the node", is_so).await;
    known
}
