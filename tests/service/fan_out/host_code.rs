//! The host's own code misbehaves.

use std::sync::Arc;

use bytes::Bytes;
use hinted_handoff::{
    ConsistencyLevel::Any, EncodeError, HintedHandoff, Payload, PayloadError, PointsWriter, Pong,
    ShardWrite, ShardWriter, WriteError, WriteOutcome,
};

use super::world::{config, paused, shard, stepping};

/// Points that cannot be cloned.
struct Fragile;

impl Clone for Fragile {
    fn clone(&self) -> Self {
        panic!("it breaks")
    }
}

impl Payload for Fragile {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(1);
        Ok(())
    }

    fn decode(_: u16, _: Bytes) -> Result<Self, PayloadError> {
        Ok(Fragile)
    }
}

struct Nobody;

impl ShardWriter<Fragile> for Nobody {
    async fn ping(&self, _: hinted_handoff::NodeId) -> Result<Pong, WriteError> {
        Err(WriteError::retry("down"))
    }

    async fn write_shard(&self, _: ShardWrite<Fragile>) -> Result<(), WriteError> {
        Err(WriteError::retry("down"))
    }
}

#[test]
fn points_whose_clone_panics_are_hinted() {
    paused(async {
        let dir = tempfile::tempdir().unwrap();
        let writer = Arc::new(Nobody);
        let handoff = HintedHandoff::open(config(dir.path()), Arc::clone(&writer));
        let handoff = handoff.await.unwrap();
        let points_writer = PointsWriter::new(handoff.clone(), writer);
        let shard = shard(7, &[1, 2, 3]);
        let queued = stepping(points_writer.write(&shard, Any, Fragile)).await;
        assert_eq!(queued.unwrap(), WriteOutcome::Queued { owners: 3 });
        let stats = handoff.stats();
        let failed: Vec<u64> = stats.nodes.iter().map(|node| node.direct.failed).collect();
        assert_eq!(failed, [1, 1, 1]);
        stepping(handoff.shutdown()).await.unwrap();
    });
}
