//! What waits for a node can be looked at without being taken.
//!
//! Method: hints are stored for a node that is paused, looked at in pages of all sizes, and
//! delivered afterwards; what was seen is held against what was stored and what arrives.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    BarrierState, Config, HandoffError, HintId, HintedHandoff, NodeId, Pause, PendingHint, ShardId,
    StoreId,
};
use hinted_handoff_testkit::ScriptedWriter;

use crate::common::{changed_for_good, chunk_keys, config, service::start};

const NODE: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const SHARD: ShardId = ShardId(7);

/// A store whose nodes are all paused.
async fn held(config: &Config) -> (HintedHandoff<Bytes>, Arc<ScriptedWriter>) {
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(config, &writer).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    (handoff, writer)
}

async fn write(handoff: &HintedHandoff<Bytes>, node: NodeId, texts: &[&'static str]) {
    for text in texts {
        let points = Bytes::from_static(text.as_bytes());
        handoff.write_shard(node, SHARD, &points).await.unwrap();
    }
}

fn texts(hints: &[PendingHint]) -> Vec<&str> {
    let text = |it: &PendingHint| std::str::from_utf8(&it.raw).unwrap().to_owned().leak() as &str;
    hints.iter().map(text).collect()
}

#[tokio::test]
async fn pages_of_any_size_show_all_that_waits_in_order_and_take_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, writer) = held(&config(dir.path())).await;
    write(&handoff, NODE, &["a", "bb", "ccc", "d", "e"]).await;
    for size in 1..=6 {
        let mut seen: Vec<PendingHint> = Vec::new();
        loop {
            let after = seen.last().map(|it| it.id);
            let page = handoff.pending_hints(NODE, after, size).await.unwrap();
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(
            texts(&seen),
            ["a", "bb", "ccc", "d", "e"],
            "pages of {size}"
        );
        assert!(seen.iter().all(|it| it.shard == SHARD && it.format == 0));
        assert!(
            seen.windows(2)
                .all(|it| it[0].id.sequence < it[1].id.sequence)
        );
    }
    assert_eq!(handoff.stats().nodes[0].pending.hints, 5);
    handoff.resume_all().await.unwrap();
    let drained = handoff.drain(NODE, Duration::from_secs(20)).await.unwrap();
    assert_eq!(drained, BarrierState::Delivered);
    let arrived: Vec<Bytes> = writer.seen().into_iter().flat_map(|it| it.points).collect();
    assert_eq!(arrived, ["a", "bb", "ccc", "d", "e"]);
    assert!(
        handoff
            .pending_hints(NODE, None, 9)
            .await
            .unwrap()
            .is_empty()
    );
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_look_goes_on_from_queue_to_queue() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = held(&config(dir.path())).await;
    write(&handoff, NODE, &["a", "b"]).await;
    write(&handoff, OTHER, &["c", "d"]).await;
    handoff.rename_node(OTHER, NODE).await.unwrap();
    let all = handoff.pending_hints(NODE, None, 9).await.unwrap();
    assert_eq!(texts(&all), ["a", "b", "c", "d"]);
    assert_ne!(all[0].id.queue, all[3].id.queue);
    let behind = handoff.pending_hints(NODE, Some(all[1].id), 1).await;
    assert_eq!(texts(&behind.unwrap()), ["c"]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_look_is_bounded_in_bytes_and_shows_one_hint_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        batch_bytes: 4,
        ..config(dir.path())
    };
    let (handoff, _) = held(&config).await;
    write(&handoff, NODE, &["larger than four", "aa", "bb", "cc"]).await;
    let first = handoff.pending_hints(NODE, None, 9).await.unwrap();
    assert_eq!(texts(&first), ["larger than four"]);
    let next = handoff.pending_hints(NODE, Some(first[0].id), 9).await;
    assert_eq!(texts(&next.unwrap()), ["aa", "bb"]);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn nodes_and_hints_that_are_not_known_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = held(&config(dir.path())).await;
    write(&handoff, NODE, &["a"]).await;
    let unknown = handoff.pending_hints(OTHER, None, 1).await;
    assert!(matches!(
        unknown,
        Err(HandoffError::UnknownNode { node: OTHER, .. })
    ));
    let hint = handoff.pending_hints(NODE, None, 1).await.unwrap()[0].id;
    let elsewhere = HintId {
        store: StoreId([9; 16]),
        ..hint
    };
    let other = handoff.pending_hints(NODE, Some(elsewhere), 1).await;
    assert!(matches!(
        other,
        Err(HandoffError::HintOfAnotherStore { .. })
    ));
    handoff.shutdown().await.unwrap();
    let closed = handoff.pending_hints(NODE, None, 1).await;
    assert!(matches!(closed, Err(HandoffError::ShutDown)));
}

#[tokio::test]
async fn a_damaged_hint_is_named_and_those_behind_it_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = held(&config(dir.path())).await;
    // Each in a block of its own.
    write(&handoff, NODE, &["a", "b", "c"]).await;
    handoff.shutdown().await.unwrap();
    drop(handoff);
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = chunk_keys(&hints, NODE.0).remove(1);
        let value = hints.get(&key).unwrap().unwrap();
        hints.insert(key, &value[..value.len() / 2]).unwrap();
    });
    let config = Config {
        start_paused: true,
        ..config(dir.path())
    };
    let handoff = start(&config, &Arc::new(ScriptedWriter::taking())).await;
    let before = handoff.pending_hints(NODE, None, 9).await.unwrap();
    assert_eq!(texts(&before), ["a"]);
    let hit = handoff.pending_hints(NODE, Some(before[0].id), 9).await;
    let Err(HandoffError::DamagedHint { hint, .. }) = hit else {
        panic!("{hit:?}");
    };
    let behind = handoff.pending_hints(NODE, Some(hint), 9).await.unwrap();
    assert_eq!(texts(&behind), ["c"]);
    handoff.shutdown().await.unwrap();
}
