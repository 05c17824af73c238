//! What happens is told to whoever listens, and what is shown of a node outlives a restart.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::common::{
    config,
    service::{quick, soon_node, start},
};
use bytes::Bytes;
use hinted_handoff::{
    Config, DeadReason, Event, LossReason, NodeId, Pause, ShardId, internals::CommitFault,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::{sync::broadcast::Receiver, time::timeout};

const NODE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(7);

async fn next(events: &mut Receiver<Event>) -> Event {
    let told = timeout(Duration::from_secs(20), events.recv()).await;
    told.expect("an event in time").unwrap()
}

/// All that was told by now and not heard yet.
fn rest(events: &mut Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_node_that_goes_down_comes_back_and_catches_up_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Retry);
    // Several sends, so that the node could be told of more than once.
    let config = Config {
        batch_bytes: 1,
        ..quick(dir.path())
    };
    let handoff = start(config, &writer).await;
    let mut events = handoff.events();
    handoff
        .write_shard(NODE, SHARD, &Bytes::from_static(b"points"))
        .await
        .unwrap();
    match next(&mut events).await {
        // With what the node said, below what is made of it.
        Event::NodeDown {
            node: NODE, error, ..
        } => {
            assert!(error.contains("scripted: down"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    // It is told once, however often it is tried.
    soon_node(&handoff, NODE, |node| node.failures >= 4).await;
    assert!(rest(&mut events).is_empty());
    let failed = handoff.stats().nodes.remove(0);
    assert!(failed.attempts >= 4 && failed.last_error.is_some());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ago = now.as_millis() as u64 - failed.last_error_unix_ms.unwrap();
    assert!(ago < 600_000, "{ago} ms ago");

    for _ in 0..20 {
        let points = Bytes::from_static(b"more points");
        handoff.write_shard(NODE, SHARD, &points).await.unwrap();
    }
    assert!(rest(&mut events).is_empty());
    writer.follow(|_| Reply::Take);
    assert!(matches!(
        next(&mut events).await,
        Event::Replaying { node: NODE, .. }
    ));
    assert!(matches!(
        next(&mut events).await,
        Event::CaughtUp { node: NODE, .. }
    ));
    let well = handoff.stats().nodes.remove(0);
    assert_eq!((well.attempts, well.last_error), (0, None));
    assert_eq!(well.last_error_unix_ms, None);
    handoff.shutdown().await.unwrap();
    let last = rest(&mut events);
    assert!(matches!(last.as_slice(), [Event::ShutDown]), "{last:?}");
}

#[tokio::test]
async fn what_is_rejected_and_what_is_lost_is_told_of_once_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|_| Reply::Reject);
    let handoff = start(quick(dir.path()), &writer).await;
    let mut events = handoff.events();
    handoff
        .write_shard(NODE, SHARD, &Bytes::from_static(b"poison"))
        .await
        .unwrap();
    let hint = loop {
        match next(&mut events).await {
            Event::Rejected {
                node,
                hint,
                shard,
                reason,
                error,
                ..
            } => {
                assert_eq!((node, shard, reason), (NODE, SHARD, DeadReason::Rejected));
                assert!(error.contains("field type conflict"), "{error}");
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
    let again = rest(&mut events);
    let is_loss = |it: &Event| matches!(it, Event::Lost(_) | Event::Rejected { .. });
    assert!(!again.iter().any(is_loss), "{again:?}");
}

#[tokio::test]
async fn nothing_is_told_of_what_left_before_that_is_durable() {
    for reply in [Reply::Reject, Reply::Obsolete] {
        let dir = tempfile::tempdir().unwrap();
        let writer = Arc::new(ScriptedWriter::taking());
        writer.follow(move |_| reply);
        let handoff = start(quick(dir.path()), &writer).await;
        handoff.pause_all(Pause::UntilRestart).await.unwrap();
        let points = Bytes::from_static(b"points");
        handoff.write_shard(NODE, SHARD, &points).await.unwrap();
        let mut events = handoff.events();
        // The commit with which it leaves is the first that there is.
        handoff.inject(CommitFault::Fail);
        handoff.resume_all().await.unwrap();
        let mut told = Vec::new();
        while !matches!(told.last(), Some(Event::StoreFailed(_))) {
            told.push(next(&mut events).await);
        }
        let left = |it: &Event| matches!(it, Event::Lost(_) | Event::Rejected { .. });
        assert!(!told.iter().any(left), "{told:?}");
        assert_eq!(writer.seen().len(), 1, "it was sent");
        handoff.disk_works_again();
        while !matches!(next(&mut events).await, Event::Reopened) {}
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_fails_and_reopens_itself_tells_both() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    let mut events = handoff.events();
    handoff.inject(CommitFault::Fail);
    let refused = handoff
        .write_shard(NODE, SHARD, &Bytes::from_static(b"points"))
        .await;
    assert!(refused.is_err());
    handoff.disk_works_again();
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
    let handoff = start(quick(dir.path()), &writer).await;
    handoff
        .write_shard(NODE, SHARD, &Bytes::from_static(b"points"))
        .await
        .unwrap();
    while handoff.stats().nodes[0].attempts < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handoff.shutdown().await.unwrap();
    let before = handoff.stats().nodes.remove(0);
    assert!(before.last_error.is_some() && before.last_error_unix_ms.is_some());
    drop(handoff);

    // It is held, so that nothing adds to that before it was looked at.
    let paused = start(quick(dir.path()), &writer).await;
    paused.pause(NODE, Pause::Lasting).await.unwrap();
    paused.shutdown().await.unwrap();
    let before = paused.stats().nodes.remove(0);
    drop(paused);
    let handoff = start(quick(dir.path()), &writer).await;
    // Its task begins.
    soon_node(&handoff, NODE, |node| node.attempts > 0).await;
    let after = handoff.stats().nodes.remove(0);
    assert_eq!(after.attempts, before.attempts);
    assert_eq!(after.last_error, before.last_error);
    assert_eq!(after.last_error_unix_ms, before.last_error_unix_ms);
    handoff.resume(NODE).await.unwrap();
    soon_node(&handoff, NODE, |node| node.attempts > before.attempts).await;
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
    let handoff = start(config, &writer).await;
    // Time goes by whenever nobody works on the runtime, as while the store does.
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for number in 0..200 {
        handoff
            .write_shard(NODE, SHARD, &Bytes::from(format!("{number}")))
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
