//! Pause and resume: of a node, of all; for this life, and to last.

use std::time::Duration;

use bytes::Bytes;
use hinted_handoff::{
    Accepted, Durability, HandoffError, Health, NodeId, NodeState, Pause, ShardId,
    internals::CommitFault,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use super::host::{Host, STOPS, Stop, a_while, texts};
use crate::common::within;

const NODE: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);

#[tokio::test]
async fn a_paused_node_is_neither_pinged_nor_sent_to_and_its_hints_wait() {
    let host = Host::new(ScriptedWriter::taking()).await;
    host.write(NODE, 1, "before").await;
    host.taken(1).await;
    host.handoff.pause(NODE, Pause::UntilRestart).await.unwrap();
    let pings = host.pings(NODE);
    for text in ["a", "b", "c"] {
        host.write(NODE, 1, text).await;
    }
    host.write(OTHER, 1, "another's").await;
    host.taken(2).await;
    a_while().await;
    let stats = host.stats(NODE).unwrap();
    assert_eq!(stats.state, NodeState::Paused);
    assert_eq!(stats.paused, Some(Pause::UntilRestart));
    assert_eq!(stats.pending.hints, 3);
    assert_eq!(host.pings(NODE), pings);
    assert_eq!(texts(&host.sent(NODE)), ["before"]);
    assert_eq!(host.state(OTHER), NodeState::CaughtUp);

    host.handoff.resume(NODE).await.unwrap();
    host.taken(5).await;
    assert_eq!(texts(&host.sent(NODE)), ["before", "a", "b", "c"]);
    host.until("caught up", |it| it.state(NODE) == NodeState::CaughtUp)
        .await;
    // Ending what is not there is nothing.
    host.handoff.resume(NODE).await.unwrap();
    host.handoff.resume_all().await.unwrap();
}

#[tokio::test]
async fn a_send_in_flight_finishes_and_no_other_is_begun() {
    let slow = ScriptedWriter::new(|_| Reply::Slow(Duration::from_millis(60)));
    // A hint a send.
    let host = Host::with(slow, |config| config.batch_bytes = 1).await;
    host.write(NODE, 1, "in flight").await;
    host.write(NODE, 1, "behind it").await;
    host.until("a send", |it| !it.writer.seen().is_empty())
        .await;
    host.handoff.pause(NODE, Pause::UntilRestart).await.unwrap();
    host.taken(1).await;
    host.until("its acknowledgement", |it| it.pending(NODE) == 1)
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(host.writer.seen().len(), 1);
    host.handoff.resume(NODE).await.unwrap();
    host.taken(2).await;
}

#[tokio::test]
async fn a_lasting_pause_survives_every_restart_and_another_does_not() {
    for stop in STOPS {
        let host = Host::new(ScriptedWriter::down()).await;
        host.write(NODE, 1, "a").await;
        host.write(OTHER, 1, "b").await;
        host.handoff.pause(NODE, Pause::Lasting).await.unwrap();
        host.handoff
            .pause(OTHER, Pause::UntilRestart)
            .await
            .unwrap();
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(1).await;
        a_while().await;
        assert_eq!(texts(&host.sent(OTHER)), ["b"], "{stop:?}");
        let stats = host.stats(NODE).unwrap();
        assert_eq!(stats.state, NodeState::Paused, "{stop:?}");
        assert_eq!(stats.paused, Some(Pause::Lasting));
        assert_eq!(host.pings(NODE), 0);

        // The end of it survives as well, and so does a pause that was made shorter.
        host.handoff.resume(NODE).await.unwrap();
        host.taken(2).await;
        host.handoff.pause(OTHER, Pause::Lasting).await.unwrap();
        host.handoff
            .pause(OTHER, Pause::UntilRestart)
            .await
            .unwrap();
        host.write(OTHER, 1, "c").await;
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(1).await;
        assert_eq!(host.state(NODE), NodeState::CaughtUp);
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_of_all_holds_nodes_that_come_later_and_is_apart_from_that_of_one() {
    for stop in STOPS {
        let host = Host::new(ScriptedWriter::taking()).await;
        host.handoff.pause_all(Pause::Lasting).await.unwrap();
        host.write(NODE, 1, "a").await;
        host.write(OTHER, 1, "b").await;
        host.handoff.pause(OTHER, Pause::Lasting).await.unwrap();
        a_while().await;
        assert_eq!(host.handoff.stats().paused_all, Some(Pause::Lasting));
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        a_while().await;
        assert_eq!(host.handoff.stats().paused_all, Some(Pause::Lasting));
        assert_eq!(host.state(NODE), NodeState::Paused);
        assert!(host.writer.pings().is_empty(), "{stop:?}");

        // One that is resumed waits for all, and the other way round.
        host.handoff.resume(NODE).await.unwrap();
        a_while().await;
        assert!(host.writer.pings().is_empty());
        host.handoff.resume_all().await.unwrap();
        host.taken(1).await;
        a_while().await;
        assert_eq!(texts(&host.sent(NODE)), ["a"]);
        assert_eq!(host.pending(OTHER), 1);

        let host = host.restart(stop, ScriptedWriter::taking()).await;
        assert_eq!(host.handoff.stats().paused_all, None, "{stop:?}");
        host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
        assert_eq!(host.state(NODE), NodeState::Paused);
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        assert_eq!(host.handoff.stats().paused_all, None);
        assert_eq!(host.state(OTHER), NodeState::Paused);
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_until_restart_outlives_a_failure_that_the_store_reopens_from() {
    let host = Host::new(ScriptedWriter::taking()).await;
    host.write(NODE, 1, "a").await;
    host.write(OTHER, 1, "b").await;
    host.taken(2).await;
    host.handoff.pause(NODE, Pause::UntilRestart).await.unwrap();
    host.handoff.pause(OTHER, Pause::Lasting).await.unwrap();
    host.handoff.inject(CommitFault::Fail);
    let failed = host.handoff.pause(NODE, Pause::Lasting).await;
    assert!(matches!(failed, Err(HandoffError::Storage(_))));
    host.handoff.disk_works_again();
    host.until("reopening", |it| {
        matches!(it.handoff.health(), Health::Serving)
    })
    .await;
    for node in [NODE, OTHER] {
        host.write(node, 1, "after").await;
    }
    a_while().await;
    assert_eq!(host.writer.taken().len(), 2);
    for node in [NODE, OTHER] {
        assert_eq!(host.state(node), NodeState::Paused);
        host.handoff.resume(node).await.unwrap();
    }
    host.taken(4).await;
}

#[tokio::test]
async fn a_removed_node_is_not_paused_when_it_comes_again() {
    let host = Host::new(ScriptedWriter::taking()).await;
    host.write(NODE, 1, "a").await;
    host.handoff.pause(NODE, Pause::Lasting).await.unwrap();
    host.handoff.remove_node(NODE).await.unwrap();
    host.write(NODE, 1, "b").await;
    host.until("b", |it| it.pending(NODE) == 0).await;
    let host = host.restart(Stop::Unclean, ScriptedWriter::down()).await;
    assert_eq!(host.stats(NODE).unwrap().paused, None);
}

#[tokio::test]
async fn what_cannot_be_paused_is_said_by_name() {
    let manual = NodeId(9);
    let host = Host::with(ScriptedWriter::down(), |config| {
        config.manual_nodes = [manual].into();
    })
    .await;
    let unknown = host.handoff.pause(NODE, Pause::Lasting).await;
    assert!(matches!(
        unknown,
        Err(HandoffError::UnknownNode { node: NODE, .. })
    ));
    let unknown = host.handoff.resume(NODE).await;
    assert!(matches!(unknown, Err(HandoffError::UnknownNode { .. })));
    host.write(NODE, 1, "a").await;
    host.handoff.remove_node(NODE).await.unwrap();
    let removed = host.handoff.pause(NODE, Pause::Lasting).await;
    assert!(matches!(removed, Err(HandoffError::UnknownNode { .. })));

    host.write(manual, 1, "by hand").await;
    let by_hand = host.handoff.pause(manual, Pause::Lasting).await;
    assert!(matches!(by_hand, Err(HandoffError::TakenByHand { .. })));
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    assert_eq!(host.state(manual), NodeState::Manual);
    let mut consumer = host.handoff.consumer(manual).unwrap();
    assert_eq!(within(consumer.peek(9)).await.unwrap().len(), 1);
    drop(consumer);

    host.handoff.shutdown().await.unwrap();
    let late = host.handoff.pause_all(Pause::Lasting).await;
    assert!(matches!(late, Err(HandoffError::ShutDown)));
    let late = host.handoff.resume(NODE).await;
    assert!(matches!(late, Err(HandoffError::ShutDown)));
}

/// On threads, so that the node's task looks before the resume is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_first_hint_becomes_durable_while_all_is_resumed_is_replayed() {
    let buffered = |config: &mut hinted_handoff::Config| config.durability = Durability::Buffered;
    let host = Host::with(ScriptedWriter::taking(), buffered).await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    host.handoff.inject(CommitFault::Hang);
    let points = Bytes::from("first");
    let written = host.handoff.write_shard(NODE, ShardId(1), &points).await;
    assert_eq!(written.unwrap(), Accepted::Buffered);
    // The commit thread is in the hint's group by then, as a rule: else this shows nothing.
    a_while().await;
    let handoff = host.handoff.clone();
    let resuming = tokio::spawn(async move { handoff.resume_all().await });
    a_while().await;
    assert!(host.stats(NODE).is_none(), "the node is known already");
    host.handoff.disk_works_again();
    resuming.await.unwrap().unwrap();
    host.taken(1).await;
    host.handoff.shutdown().await.unwrap();
}

#[test]
fn a_thread_without_a_runtime_operates_nodes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let host = runtime.block_on(Host::new(ScriptedWriter::taking()));
    let handoff = &host.handoff;
    runtime.block_on(host.write(NODE, 1, "a"));
    handoff.pause_blocking(NODE, Pause::UntilRestart).unwrap();
    handoff.resume_blocking(NODE).unwrap();
    handoff.pause_all_blocking(Pause::UntilRestart).unwrap();
    handoff.resume_all_blocking().unwrap();
    handoff.retain_nodes_blocking(&[NODE]).unwrap();
    handoff.rename_node_blocking(NODE, OTHER).unwrap();
    handoff
        .drain_and_remove_blocking(OTHER, Duration::from_secs(30))
        .unwrap();
    assert_eq!(host.writer.taken(), ["a"]);
    handoff.shutdown_blocking().unwrap();
}
