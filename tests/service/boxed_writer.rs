//! Writers of different types behind one: `BoxShardWriter`.

use std::sync::{Arc, Mutex};

use hinted_handoff::{
    BoxShardWriter, Config, ConsistencyLevel, HintedHandoff, NodeId, NodeState, PointsWriter, Pong,
    Shard, ShardId, ShardWrite, ShardWriter, WriteError,
};

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(7);

type Took = Arc<Mutex<Vec<String>>>;

/// Takes all.
struct Takes(Took);

impl ShardWriter<String> for Takes {
    async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
        let points = write.batches.into_iter().map(|batch| batch.points);
        self.0.lock().unwrap().extend(points);
        Ok(())
    }
}

/// Answers pings, and fails all sends.
struct Fails {
    with: &'static str,
}

impl ShardWriter<String> for Fails {
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        Ok(Pong::Answered)
    }

    async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> {
        tokio::task::yield_now().await;
        Err(WriteError::retry(self.with))
    }
}

#[tokio::test]
async fn two_writers_of_different_types_are_one_type_and_each_is_called() {
    let took = Took::default();
    let writers: Vec<BoxShardWriter<String>> = vec![
        BoxShardWriter::new(Takes(Arc::clone(&took))),
        BoxShardWriter::new(Fails {
            with: "the disk is full",
        }),
    ];
    let write = |text: &str| {
        let batch = hinted_handoff::Batch::new(text.to_owned());
        ShardWrite::new(NODE, SHARD, vec![batch])
    };
    assert_eq!(writers[0].ping(NODE).await.unwrap(), Pong::NotAsked);
    assert_eq!(writers[1].ping(NODE).await.unwrap(), Pong::Answered);
    writers[0].write_shard(write("direct")).await.unwrap();
    let failed = writers[1].write_shard(write("fails")).await.unwrap_err();
    assert!(matches!(failed, WriteError::Retry { .. }), "{failed}");

    for (writer, state) in writers
        .into_iter()
        .zip([NodeState::CaughtUp, NodeState::Failing])
    {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            min_free_disk: 0,
            ..Config::new(dir.path().join("hints"))
        };
        let handoff = HintedHandoff::open(config, writer.clone()).await.unwrap();
        let points_writer = PointsWriter::new(handoff.clone(), writer);
        let shard = Shard {
            id: SHARD,
            owners: vec![NODE],
        };
        let points = "by fan-out".to_owned();
        let written = points_writer
            .write(&shard, ConsistencyLevel::Any, points)
            .await;
        written.unwrap();
        handoff
            .write_shard(NODE, SHARD, &"as a hint".to_owned())
            .await
            .unwrap();
        let seen = || handoff.stats().nodes[0].clone();
        while seen().state != state {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        if state == NodeState::Failing {
            assert!(seen().last_error.unwrap().contains("the disk is full"));
        }
        handoff.shutdown().await.unwrap();
    }
    assert_eq!(*took.lock().unwrap(), ["direct", "by fan-out", "as a hint"]);
}
