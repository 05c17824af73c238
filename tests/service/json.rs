//! What the service tells goes to JSON and back, so that a host can serve it as it is.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use crate::common;
use bytes::Bytes;
use hinted_handoff::{
    Barrier, BarrierState, DeadLetter, HintId, HintedHandoff, Losses, NodeId, Pause, Redriven,
    ShardId,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use serde::{Serialize, de::DeserializeOwned};

const NODE: NodeId = NodeId(u64::MAX);

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> String {
    let json = serde_json::to_string_pretty(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value, "{json}");
    json
}

#[tokio::test]
async fn dead_letters_barriers_and_losses_come_back_from_json_with_ids_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Reject));
    let opened = HintedHandoff::open(common::config(dir.path()), Arc::clone(&writer));
    let handoff = opened.await.unwrap();
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for points in ["a", "b"] {
        let points = Bytes::from(points);
        handoff
            .write_shard(NODE, ShardId(7), &points)
            .await
            .unwrap();
    }
    let barrier = handoff.barrier(&[NODE]).await.unwrap();
    handoff.resume_all().await.unwrap();
    let letters = loop {
        let letters = handoff.dead_letters(NODE, None, 9).await.unwrap();
        if letters.len() == 2 {
            break letters;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let id = letters[0].id;
    let text = format!("\"{id}\"");
    assert!(round_trip::<Vec<DeadLetter>>(&letters).contains(&text));
    let by_id: BTreeMap<HintId, DeadLetter> =
        letters.iter().map(|it| (it.id, it.clone())).collect();
    assert!(round_trip(&by_id).contains(&text));

    assert!(round_trip::<Barrier>(&barrier).contains(&format!("\"{}\"", id.store)));
    let state = handoff.wait(&barrier, Duration::ZERO).await.unwrap();
    round_trip::<BarrierState>(&state);
    handoff.discard(NODE, &[id]).await.unwrap();
    let state = handoff.wait(&barrier, Duration::ZERO).await.unwrap();
    assert!(matches!(state, BarrierState::Lost { .. }), "{state:?}");
    round_trip::<BarrierState>(&state);
    let losses = handoff.losses(0).await.unwrap();
    assert_eq!(losses.entries.len(), 1);
    round_trip::<Losses>(&losses);

    writer.follow(|_| Reply::Take);
    let redriven = handoff.redrive_all(NODE).await.unwrap();
    assert_eq!(redriven.hints.len(), 1);
    round_trip::<Redriven>(&redriven);
    let stats = serde_json::to_value(handoff.stats()).unwrap();
    assert_eq!(stats["store"]["store"], id.store.to_string());
    assert_eq!(stats["nodes"][0]["node"], u64::MAX);
    handoff.shutdown().await.unwrap();
}
