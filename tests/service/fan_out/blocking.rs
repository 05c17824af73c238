//! A writer that blocks the thread it runs on: nothing ends such a send, and nobody waits for it
//! without a bound.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Config, ConsistencyLevel::Quorum, HandoffError, HintedHandoff, NodeId, PointsWriter, Pong,
    ShardWrite, ShardWriter, WriteError, WriteOutcome,
};

use super::world::{points, shard};
use crate::common;

const BLOCKS: NodeId = NodeId(3);

/// Direct writes to a node block until the other end is dropped.
struct Blocking(Mutex<mpsc::Receiver<()>>);

impl ShardWriter<Bytes> for Blocking {
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        Err(WriteError::retry("no ping is answered"))
    }

    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        if write.node == BLOCKS {
            let _ = self.0.lock().unwrap().recv();
        }
        Ok(())
    }
}

async fn written(config: Config) -> (HintedHandoff<Bytes>, mpsc::Sender<()>) {
    let (release, blocked) = mpsc::channel();
    let writer = Arc::new(Blocking(Mutex::new(blocked)));
    let handoff = HintedHandoff::open(config, Arc::clone(&writer));
    let handoff = handoff.await.unwrap();
    let points_writer = PointsWriter::new(handoff.clone(), writer);
    let shard = shard(7, &[1, 2, BLOCKS.0]);
    let written = points_writer.write(&shard, Quorum, points(1)).await;
    assert_eq!(written.unwrap(), WriteOutcome::Written { owners: 2 });
    (handoff, release)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_send_that_blocks_its_thread_is_hinted_and_then_waited_for_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = common::config(dir.path());
    config.write_timeout = Duration::from_millis(200);
    let (handoff, release) = written(config).await;
    let settled = async {
        while handoff.stats().writes.hinted == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
    settled.expect("the write never ended");
    let nodes = handoff.stats().nodes;
    let pending = nodes.iter().find(|it| it.node == BLOCKS);
    assert_eq!(pending.unwrap().pending.hints, 1);
    drop(release);
    handoff.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_says_that_it_could_not_wait_for_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = common::config(dir.path());
    config.shutdown_grace = Duration::from_millis(100);
    config.write_timeout = Duration::from_secs(3600);
    let (handoff, release) = written(config).await;
    let closed = handoff.shutdown().await;
    assert!(
        matches!(closed, Err(HandoffError::WritesUnderWay { writes: 1, .. })),
        "{closed:?}"
    );
    drop(release);
}
