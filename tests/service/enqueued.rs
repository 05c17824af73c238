//! The time that a batch says it came in: the same in the direct write and in the hint of another
//! owner, in this life and in the next one.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hinted_handoff::{
    Config, ConsistencyLevel, HintedHandoff, NodeId, PointsWriter, Shard, ShardId, ShardWrite,
    ShardWriter, WriteError,
};

const UP: NodeId = NodeId(1);
const DOWN: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(7);

/// Keeps what came, as it came.
#[derive(Default)]
struct Receiver {
    is_up: AtomicBool,
    came: Mutex<Vec<ShardWrite<String>>>,
}

impl ShardWriter<String> for Receiver {
    async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
        if write.node == DOWN && !self.is_up.load(Relaxed) {
            return Err(WriteError::retry("it is down"));
        }
        self.came.lock().unwrap().push(write);
        Ok(())
    }
}

impl Receiver {
    /// When the batches that came to a node were enqueued, in order.
    fn enqueued(&self, node: NodeId) -> Vec<SystemTime> {
        let came = self.came.lock().unwrap();
        let of_node = came.iter().filter(|write| write.node == node);
        let batches = of_node.flat_map(|write| &write.batches);
        batches.map(|batch| batch.enqueued).collect()
    }
}

async fn open(dir: &Path, writer: &Arc<Receiver>) -> HintedHandoff<String> {
    let mut config = Config::new(dir);
    config.retry_interval = Duration::from_millis(2);
    config.retry_max_interval = Duration::from_millis(5);
    config.min_free_disk = 0;
    let opened = HintedHandoff::open(config, Arc::clone(writer)).await;
    opened.unwrap()
}

/// What is stored are whole milliseconds.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
}

#[tokio::test]
async fn a_copy_says_when_its_write_came_in_directly_and_as_a_hint_of_a_later_life() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(Receiver::default());
    let handoff = open(dir.path(), &writer).await;
    let points_writer = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let shard = Shard {
        id: SHARD,
        owners: vec![UP, DOWN],
    };
    let (before, points) = (now(), "points".to_owned());
    let written = points_writer.write(&shard, ConsistencyLevel::One, points);
    written.await.unwrap();
    let after = now();
    let direct = writer.enqueued(UP);
    // A little, since the clock of a life goes on from what was read once at open.
    let slack = Duration::from_millis(50);
    assert_eq!(direct.len(), 1);
    assert!(
        (before - slack..=after + slack).contains(&direct[0]),
        "{before:?} {direct:?} {after:?}"
    );
    handoff.shutdown().await.unwrap();
    drop((points_writer, handoff));

    // So long that a time of the delivery is another one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let handoff = open(dir.path(), &writer).await;
    writer.is_up.store(true, Relaxed);
    while writer.enqueued(DOWN).is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let hinted = writer.enqueued(DOWN);
    let apart = hinted[0]
        .duration_since(direct[0])
        .unwrap_or_else(|error| error.duration());
    assert!(apart <= slack, "{direct:?} {hinted:?}");
    assert_eq!(hinted.len(), 1);
    let writes: Vec<_> = {
        let came = writer.came.lock().unwrap();
        came.iter().map(|it| it.batches[0].write).collect()
    };
    assert_eq!(writes[0], writes[1]);
    handoff.shutdown().await.unwrap();
}
