//! What is in a store, and a node that takes it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hinted_handoff::{
    Config, HintedHandoff, NodeId, Payload, ShardWrite, ShardWriter, WriteError,
    offline::{ClosedStore, Selection},
};
use hinted_handoff_influx::LinePoints;

/// Lines by node and place, each with how often it is there.
pub type Lines = BTreeMap<(u64, String, String), usize>;

pub fn note(lines: &mut Lines, node: NodeId, points: &LinePoints) {
    let target = points.target();
    let policy = target.retention_policy.clone().unwrap_or_default();
    let place = format!("{}.{policy}", target.database);
    let text = String::from_utf8(points.lines().to_vec()).unwrap();
    for line in text.split_inclusive('\n') {
        *lines
            .entry((node.0, place.clone(), line.to_owned()))
            .or_default() += 1;
    }
}

/// All that waits in a store.
pub fn pending(store: &Path) -> Lines {
    let mut lines = Lines::new();
    let closed = ClosedStore::open(store).unwrap();
    for hint in closed.hints(&Selection::default()) {
        let hint = hint.unwrap();
        let points = LinePoints::decode(hint.format, Bytes::clone(&hint.payload)).unwrap();
        note(&mut lines, hint.node, &points);
    }
    lines
}

/// A node that takes so many writes, and no more.
#[derive(Clone, Default)]
pub struct Node {
    pub taken: Arc<Mutex<(Lines, usize)>>,
}

impl ShardWriter<LinePoints> for Node {
    async fn write_shard(&self, write: ShardWrite<LinePoints>) -> Result<(), WriteError> {
        let mut taken = self.taken.lock().unwrap();
        if taken.1 == 0 {
            return Err(WriteError::retry("that is enough"));
        }
        taken.1 -= 1;
        for batch in &write.batches {
            note(&mut taken.0, write.node, &batch.points);
        }
        Ok(())
    }
}

/// A relay runs, until its node has taken so many writes or nothing waits.
pub fn relay(store: &Path, node: &Node, writes: usize) {
    node.taken.lock().unwrap().1 = writes;
    hinted_handoff_influx::import::settle(store).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = Config::new(store);
        // One hint a write, so that it can stop behind each.
        config.max_in_flight = 1;
        config.batch_bytes = 1;
        let handoff = HintedHandoff::open(config, node.clone()).await.unwrap();
        let is_over = || {
            let waits = handoff
                .stats()
                .nodes
                .iter()
                .map(|it| it.pending.hints)
                .sum::<u64>();
            waits == 0 || node.taken.lock().unwrap().1 == 0
        };
        while !is_over() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        handoff.shutdown().await.unwrap();
    });
}
