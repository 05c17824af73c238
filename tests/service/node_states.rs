//! What is said of a node is so: caught up is one for which nothing waits, down is one that does
//! not answer, and events come to an end with the service.

use std::{sync::Arc, time::Duration};

use crate::common::{
    EVERYTHING,
    service::{node_stats, quick, soon_node, start},
};
use bytes::Bytes;
use hinted_handoff::{
    Config, ConsistencyLevel, Event, Health, HintedHandoff, NodeId, NodeState, Pause, PointsWriter,
    Shard, ShardId,
    internals::{CommitFault, Peek, Reader},
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};

const NODE: NodeId = NodeId(2);
const BAD: ShardId = ShardId(1);
const GOOD: ShardId = ShardId(2);
const SOON: Duration = Duration::from_secs(20);

type Handoff = HintedHandoff<Bytes>;

async fn hint(handoff: &Handoff, shard: ShardId) {
    let points = Bytes::from_static(b"points");
    handoff.write_shard(NODE, shard, &points).await.unwrap();
}

fn told(events: &mut Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_node_is_not_caught_up_while_a_hint_waits_for_an_answer_or_was_found_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    for hangs_at_ping in [false, true] {
        writer.follow(|_| Reply::Hang);
        writer.follow_pings(move |_| match hangs_at_ping {
            true => Reply::Hang,
            false => Reply::Take,
        });
        let config = Config {
            shutdown_grace: Duration::ZERO,
            ..quick(dir.path())
        };
        let handoff = start(config, &writer).await;
        let mut events = handoff.events();
        for _ in 0..20 {
            hint(&handoff, GOOD).await;
            let seen = node_stats(&handoff, NODE);
            assert_eq!(seen.state, NodeState::Waiting, "{seen:?}");
            assert_eq!(seen.caught_up_in, None);
        }
        let is_caught_up = |it: &Event| matches!(it, Event::CaughtUp { .. });
        assert!(!told(&mut events).iter().any(is_caught_up));
        handoff.shutdown().await.unwrap();
    }
    let handoff = start(quick(dir.path()), &writer).await;
    assert_eq!(node_stats(&handoff, NODE).state, NodeState::Waiting);
    writer.follow_pings(|_| Reply::Take);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_is_not_caught_up_while_a_hint_is_in_the_hands_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    hint(&handoff, GOOD).await;
    let store = handoff.store_below();
    let Peek::Hints(mut hints) = store
        .peek(&mut Reader::default(), NODE, EVERYTHING)
        .unwrap()
    else {
        panic!("nothing there");
    };
    // As a limit does that is about to have it leave.
    store.claim(NODE, &mut hints);
    let mut events = handoff.events();
    writer.follow_pings(|_| Reply::Retry);
    handoff.resume_all().await.unwrap();
    soon_node(&handoff, NODE, |it| it.state == NodeState::Down).await;
    writer.follow_pings(|_| Reply::Take);
    // It answers, and there is nothing to send it.
    soon_node(&handoff, NODE, |it| it.state == NodeState::Waiting).await;
    let pings = writer.pings().len();
    let looked_again = async {
        while writer.pings().len() < pings + 3 {
            assert_eq!(node_stats(&handoff, NODE).state, NodeState::Waiting);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, looked_again).await.unwrap();
    let told = told(&mut events);
    let is_caught_up = |it: &Event| matches!(it, Event::CaughtUp { .. });
    assert!(!told.iter().any(is_caught_up), "{told:?}");
    store.release(NODE, &hints);
    soon_node(&handoff, NODE, |it| it.state == NodeState::CaughtUp).await;
    drop(store);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_that_takes_some_shards_and_fails_one_is_failing_and_not_down() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    writer.follow(|write| match write.shard {
        BAD => Reply::Retry,
        _ => Reply::Take,
    });
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for shard in [BAD, GOOD, ShardId(3), BAD, GOOD] {
        hint(&handoff, shard).await;
    }
    handoff.resume_all().await.unwrap();
    let seen = soon_node(&handoff, NODE, |it| it.state == NodeState::Failing).await;
    assert_eq!(seen.pending.hints, 2);
    let mut events = handoff.events();
    // Round after round nothing but what fails is left to try.
    let seen = soon_node(&handoff, NODE, |it| it.failures > seen.failures + 10).await;
    assert_eq!(seen.state, NodeState::Failing, "{seen:?}");
    assert_eq!(seen.stalled_by, Some(BAD));
    assert_eq!(seen.caught_up_in, None);
    assert!(seen.last_error.unwrap().contains("scripted: down"));
    // Others go on beside it.
    for _ in 0..20 {
        hint(&handoff, GOOD).await;
        soon_node(&handoff, NODE, |it| it.pending.hints == 2).await;
    }
    soon_node(&handoff, NODE, |it| it.state == NodeState::Failing).await;
    let told = told(&mut events);
    let is_down = |it: &Event| matches!(it, Event::NodeDown { .. });
    assert!(!told.iter().any(is_down), "{told:?}");
    let is_failing = |it: &Event| matches!(it, Event::NodeFailing { node: NODE, .. });
    assert!(told.iter().any(is_failing), "{told:?}");

    // Now it is gone as a whole. That is said a while after its last answer.
    writer.follow(|_| Reply::Retry);
    hint(&handoff, GOOD).await;
    soon_node(&handoff, NODE, |it| it.state == NodeState::Down).await;
    // It answers pings: then it is not down, whatever else it fails.
    writer.follow_pings(|_| Reply::Take);
    soon_node(&handoff, NODE, |it| it.state == NodeState::Failing).await;
    writer.follow_pings(|_| Reply::Retry);
    soon_node(&handoff, NODE, |it| it.state == NodeState::Down).await;
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_that_takes_direct_writes_and_fails_a_shard_of_replay_is_not_down() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    writer.follow(|write| match write.shard {
        BAD => Reply::Retry,
        _ => Reply::Take,
    });
    let handoff = start(quick(dir.path()), &writer).await;
    hint(&handoff, BAD).await;
    // Nobody asked it, and it took nothing.
    soon_node(&handoff, NODE, |it| it.state == NodeState::Down).await;
    let fan_out = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let shard = Shard {
        id: GOOD,
        owners: vec![NODE],
    };
    let points = Bytes::from_static(b"points");
    fan_out
        .write(&shard, ConsistencyLevel::One, points)
        .await
        .unwrap();
    let seen = soon_node(&handoff, NODE, |it| it.state == NodeState::Failing).await;
    let seen = soon_node(&handoff, NODE, |it| it.failures > seen.failures + 10).await;
    assert_eq!(seen.state, NodeState::Failing);
    drop(fan_out);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_whose_ping_fails_is_down_and_nobody_says_when_it_will_have_caught_up() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let config = Config {
        batch_bytes: 1,
        ..quick(dir.path())
    };
    let handoff = start(config, &writer).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for _ in 0..100 {
        hint(&handoff, GOOD).await;
    }
    writer.follow(|_| Reply::Slow(Duration::from_millis(5)));
    handoff.resume_all().await.unwrap();
    let seen = soon_node(&handoff, NODE, |it| it.delivered.hints > 20).await;
    assert_eq!(seen.state, NodeState::Replaying);
    assert!(seen.caught_up_in.is_some(), "{seen:?}");
    writer.follow_pings(|_| Reply::Retry);
    writer.follow(|_| Reply::Retry);
    let seen = soon_node(&handoff, NODE, |it| it.state == NodeState::Down).await;
    assert!(
        seen.delivery_rate > 0.0 && seen.pending.hints > 0,
        "{seen:?}"
    );
    assert_eq!(seen.caught_up_in, None);
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_says_nothing_of_its_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    let mut events = handoff.events();
    // The commit with which it becomes a dead letter fails, and so does each that follows.
    let failing = handoff.clone();
    writer.follow(move |_| {
        failing.inject(CommitFault::Fail);
        Reply::Reject
    });
    hint(&handoff, GOOD).await;
    while !matches!(handoff.health(), Health::Failed(_)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let failures = node_stats(&handoff, NODE).failures;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let seen = node_stats(&handoff, NODE);
    assert!(seen.failures <= failures + 1, "{seen:?}");
    assert_ne!(seen.state, NodeState::Down, "{seen:?}");
    let told = told(&mut events);
    let is_down = |it: &Event| matches!(it, Event::NodeDown { .. });
    assert!(!told.iter().any(is_down), "{told:?}");
    // Nor does the script have a handle any more.
    writer.follow(|_| Reply::Take);
    handoff.disk_works_again();
    let reopened = async {
        while !matches!(handoff.health(), Health::Serving) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, reopened).await.unwrap();
    soon_node(&handoff, NODE, |it| it.state == NodeState::CaughtUp).await;
    handoff.shutdown().await.unwrap();
}

/// All events until the channel is closed.
async fn to_the_end(mut events: Receiver<Event>) -> Vec<Event> {
    let all = timeout(SOON, async {
        let mut all = Vec::new();
        loop {
            match events.recv().await {
                Ok(event) => all.push(event),
                Err(RecvError::Closed) => return all,
                Err(RecvError::Lagged(_)) => {}
            }
        }
    });
    all.await.expect("the events end")
}

#[tokio::test]
async fn events_end_with_a_last_one_at_shutdown_though_a_handle_lives() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    let (events, kept) = (handoff.events(), handoff.clone());
    hint(&handoff, GOOD).await;
    soon_node(&handoff, NODE, |it| it.state == NodeState::CaughtUp).await;
    let ended = tokio::spawn(to_the_end(events));
    handoff.shutdown().await.unwrap();
    let all = ended.await.unwrap();
    assert!(matches!(all.last(), Some(Event::ShutDown)), "{all:?}");
    let last = all.iter().filter(|it| matches!(it, Event::ShutDown));
    assert_eq!(last.count(), 1);
    // Whoever comes late hears that it is over.
    assert!(to_the_end(kept.events()).await.is_empty());
    kept.shutdown().await.unwrap();
    assert!(to_the_end(kept.events()).await.is_empty());
}

#[tokio::test]
async fn events_end_when_the_last_handle_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = start(quick(dir.path()), &writer).await;
    hint(&handoff, GOOD).await;
    let events = handoff.events();
    drop(handoff);
    let all = to_the_end(events).await;
    assert!(matches!(all.last(), Some(Event::ShutDown)), "{all:?}");
}

#[tokio::test]
async fn events_end_when_a_store_that_failed_is_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    let events = handoff.events();
    handoff.inject(CommitFault::Fail);
    let points = Bytes::from_static(b"points");
    assert!(handoff.write_shard(NODE, GOOD, &points).await.is_err());
    assert!(handoff.shutdown().await.is_err());
    let all = to_the_end(events).await;
    assert!(matches!(all.last(), Some(Event::ShutDown)), "{all:?}");
}
