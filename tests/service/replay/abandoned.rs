//! Sends that are abandoned: in real time, since they block threads, as no writer should.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use hinted_handoff::{Config, HintedHandoff, NodeId, ShardId, ShardWrite, ShardWriter, WriteError};
use tokio::{sync::mpsc, time::timeout};

use super::{NODE, config};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

/// Its first write blocks a thread until it is let go.
struct Blocking {
    began: mpsc::UnboundedSender<NodeId>,
    let_go: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

impl ShardWriter<Bytes> for Blocking {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        self.began.send(write.node).map_err(WriteError::retry)?;
        let blocks = self.let_go.lock().unwrap().take();
        match blocks {
            None => Ok(()),
            Some(blocks) => Err(WriteError::retry(format!("{:?}", blocks.recv()))),
        }
    }
}

/// One with a hint that is being sent.
struct World {
    _dir: tempfile::TempDir,
    handoff: HintedHandoff<Bytes>,
    began: mpsc::UnboundedReceiver<NodeId>,
    let_go: std::sync::mpsc::Sender<()>,
}

impl World {
    async fn that_sends() -> World {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            shutdown_grace: Duration::from_millis(10),
            retry_interval: HOUR,
            retry_max_interval: HOUR,
            ..config(&dir)
        };
        let (tell, mut began) = mpsc::unbounded_channel();
        let (let_go, blocks) = std::sync::mpsc::channel();
        let writer = Blocking {
            began: tell,
            let_go: Mutex::new(Some(blocks)),
        };
        let handoff = HintedHandoff::open(config, writer).await.unwrap();
        let points = Bytes::from_static(b"points");
        handoff
            .write_shard(NODE, ShardId(1), &points)
            .await
            .unwrap();
        assert_eq!(timeout(PATIENCE, began.recv()).await.unwrap(), Some(NODE));
        World {
            _dir: dir,
            handoff,
            began,
            let_go,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_cannot_be_stopped_keeps_a_shutdown_for_a_moment_only() {
    let world = World::that_sends().await;
    let shutdown = timeout(PATIENCE, world.handoff.shutdown()).await;
    // The runtime waits for it.
    world.let_go.send(()).unwrap();
    shutdown.expect("it waits on").unwrap();
    assert_eq!(world.handoff.stats().nodes[0].pending.hints, 1);
}

/// Nobody else may send what is in the hands of one that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_being_sent_to_a_node_that_is_renamed_is_sent_under_its_new_name_at_once() {
    const RENAMED: NodeId = NodeId(4);
    // It is waited for no longer than a second: a machine that stands still for so long gets
    // another try.
    for _ in 0..3 {
        let mut world = World::that_sends().await;
        let renaming = {
            let handoff = world.handoff.clone();
            tokio::spawn(async move { handoff.rename_node(NODE, RENAMED).await })
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        let waits = !renaming.is_finished();
        world.let_go.send(()).unwrap();
        assert_eq!(renaming.await.unwrap().unwrap().hints, 1);
        let sent = timeout(Duration::from_secs(5), world.began.recv()).await;
        world.handoff.shutdown().await.unwrap();
        if waits && sent == Ok(Some(RENAMED)) {
            return;
        }
    }
    panic!("the send was not waited for, or its hint is left until the next retry");
}
