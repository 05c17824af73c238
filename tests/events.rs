//! What happens is told to whoever listens, and what is shown of a node outlives a restart.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::config;
use hinted_handoff::{
    Config, DeadReason, Event, HintedHandoff, LossReason, NodeId, NodeState, Pause, ShardId,
    testkit::{CommitFault, Reply, ScriptedWriter},
};
use tokio::{sync::broadcast::Receiver, time::timeout};

const NODE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(7);

async fn next(events: &mut Receiver<Event>) -> Event {
    let told = timeout(Duration::from_secs(20), events.recv()).await;
    told.expect("an event in time").unwrap()
}

async fn open(config: Config, writer: &Arc<ScriptedWriter>) -> HintedHandoff<Bytes> {
    HintedHandoff::open(config, Arc::clone(writer))
        .await
        .unwrap()
}

fn quick(dir: &std::path::Path) -> Config {
    Config {
        retry_interval: Duration::from_millis(10),
        retry_max_interval: Duration::from_millis(20),
        ..config(dir)
    }
}

#[tokio::test]
async fn a_node_that_goes_down_comes_back_and_catches_up_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Retry);
    let handoff = open(quick(dir.path()), &writer).await;
    let mut events = handoff.events();
    handoff
        .write_shard(SHARD, NODE, &Bytes::from_static(b"points"))
        .await
        .unwrap();
    match next(&mut events).await {
        Event::NodeDown { node: NODE, error } => assert!(!error.is_empty()),
        other => panic!("{other:?}"),
    }
    writer.follow(|_| Reply::Take);
    assert!(matches!(
        next(&mut events).await,
        Event::Replaying { node: NODE }
    ));
    assert!(matches!(
        next(&mut events).await,
        Event::CaughtUp { node: NODE }
    ));
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_rejected_and_what_is_lost_is_told_of_once_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Reject);
    let handoff = open(quick(dir.path()), &writer).await;
    let mut events = handoff.events();
    handoff
        .write_shard(SHARD, NODE, &Bytes::from_static(b"poison"))
        .await
        .unwrap();
    let hint = loop {
        match next(&mut events).await {
            Event::Rejected {
                node,
                hint,
                shard,
                reason,
                ..
            } => {
                assert_eq!((node, shard, reason), (NODE, SHARD, DeadReason::Rejected));
                break hint;
            }
            Event::Replaying { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(handoff.stats().nodes[0].dead_letters.hints, 1);
    handoff.discard(NODE, &[hint]).await.unwrap();
    let loss = loop {
        match next(&mut events).await {
            Event::Lost(loss) => break loss,
            Event::Replaying { .. } | Event::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((loss.reason, loss.amount.hints), (LossReason::Discarded, 1));
    assert_eq!(handoff.losses(0).await.unwrap().entries[0].1, loss);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_and_mends_itself_tells_both() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = open(quick(dir.path()), &writer).await;
    let mut events = handoff.events();
    handoff.inject(CommitFault::Fail);
    let refused = handoff
        .write_shard(SHARD, NODE, &Bytes::from_static(b"points"))
        .await;
    assert!(refused.is_err());
    handoff.heal_disk();
    assert!(matches!(next(&mut events).await, Event::StoreFailed(_)));
    loop {
        match next(&mut events).await {
            Event::Reopened => break,
            Event::Replaying { .. } | Event::CaughtUp { .. } | Event::NodeDown { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn attempts_and_the_last_error_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Retry);
    let handoff = open(quick(dir.path()), &writer).await;
    handoff
        .write_shard(SHARD, NODE, &Bytes::from_static(b"points"))
        .await
        .unwrap();
    while handoff.stats().nodes[0].attempts < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handoff.shutdown().await.unwrap();
    let before = handoff.stats().nodes.remove(0);
    assert!(before.last_error.is_some() && before.last_error_unix_ms.is_some());
    drop(handoff);

    // It is not tried again before it was looked at.
    writer.follow_pings(|_| Reply::Retry);
    let hour = Duration::from_secs(3600);
    let slow = Config {
        retry_interval: hour,
        retry_max_interval: hour,
        ..config(dir.path())
    };
    let handoff = open(slow, &writer).await;
    let after = loop {
        let stats = handoff.stats().nodes.remove(0);
        if stats.state == NodeState::Down {
            break stats;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(after.attempts, before.attempts + 1, "the ping that failed");
    handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_delivery_says_when_a_node_will_have_caught_up() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Slow(Duration::from_millis(100)));
    let config = Config {
        batch_bytes: 1,
        ..config(dir.path())
    };
    let handoff = open(config, &writer).await;
    // Time goes by whenever nobody works on the runtime, as while the store does.
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for number in 0..200 {
        handoff
            .write_shard(SHARD, NODE, &Bytes::from(format!("{number}")))
            .await
            .unwrap();
    }
    handoff.resume_all().await.unwrap();
    let stats = loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let stats = handoff.stats().nodes.remove(0);
        if stats.pending.hints < 150 {
            break stats;
        }
    };
    // Ten a second, one at a time.
    assert!((8.0..12.0).contains(&stats.delivery_rate), "{stats:?}");
    let left = stats.caught_up_in.unwrap().as_secs_f64() * stats.delivery_rate;
    assert!((left - stats.pending.hints as f64).abs() < 1.0);
    assert_eq!(stats.in_flight, 1);
    handoff.shutdown().await.unwrap();
}
