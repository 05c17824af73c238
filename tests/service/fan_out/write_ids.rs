//! All copies of a write bear the same id, whether they are sent directly or as a hint.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hinted_handoff::{
    ConsistencyLevel::Quorum, HintedHandoff, NodeId, PointsWriter, ShardWrite, ShardWriter,
    WriteError, WriteId,
};

use super::world::{config, paused, points, shard};

/// Takes everything, but for the first writes to node 3, whose reply is lost.
#[derive(Default)]
struct Receiver {
    lost: Mutex<BTreeSet<Bytes>>,
    seen: Mutex<Vec<(NodeId, bool, WriteId, Bytes)>>,
}

impl ShardWriter<Bytes> for Receiver {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let is_replay = write.is_replay();
        for batch in write.batches {
            let id = batch.write.unwrap();
            let seen = (write.node, is_replay, id, batch.points.clone());
            self.seen.lock().unwrap().push(seen);
            if write.node == NodeId(3) && self.lost.lock().unwrap().insert(batch.points) {
                return Err(WriteError::retry("the reply is lost"));
            }
        }
        Ok(())
    }
}

#[test]
fn the_second_copy_of_a_write_has_the_id_of_the_first_over_restarts_too() {
    paused(async {
        let dir = tempfile::tempdir().unwrap();
        let receiver = Arc::new(Receiver::default());
        for life in 0..2 {
            let handoff = HintedHandoff::open(config(dir.path()), Arc::clone(&receiver));
            let handoff = handoff.await.unwrap();
            let points_writer = PointsWriter::new(handoff.clone(), Arc::clone(&receiver));
            for number in life * 10..life * 10 + 10 {
                let shard = shard(7, &[1, 2, 3]);
                let written = points_writer.write(&shard, Quorum, points(number)).await;
                written.unwrap();
            }
            handoff
                .drain(NodeId(3), std::time::Duration::from_secs(60))
                .await
                .ok();
            handoff.shutdown().await.unwrap();
        }
        let handoff = HintedHandoff::open(config(dir.path()), Arc::clone(&receiver));
        let handoff = handoff.await.unwrap();
        let limit = std::time::Duration::from_secs(60);
        handoff.drain(NodeId(3), limit).await.unwrap();
        let seen = receiver.seen.lock().unwrap().clone();
        let mut ids = BTreeSet::new();
        for number in 0..20 {
            let copies = seen.iter().filter(|(.., it)| *it == points(number));
            let of_write: BTreeSet<WriteId> = copies.clone().map(|(_, _, id, _)| *id).collect();
            assert_eq!(of_write.len(), 1, "{of_write:?}");
            assert!(
                ids.insert(*of_write.first().unwrap()),
                "an id was used twice"
            );
            assert!(copies.clone().any(|(_, is_replay, ..)| *is_replay));
            assert!(copies.clone().any(|(_, is_replay, ..)| !*is_replay));
        }
        let boots: BTreeSet<u64> = ids.iter().map(|id| id.boot).collect();
        assert_eq!(boots.len(), 2, "each life draws its own");
        handoff.shutdown().await.unwrap();
    });
}
