//! A node that leaves the cluster in peace: removed once nothing is pending.

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use hinted_handoff::{HandoffError, NodeId, NodeState, Pause};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use super::host::{Host, STOPS, Stop, a_while, texts};
use crate::common::{self, within};

const NODE: NodeId = NodeId(2);
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_node_is_removed_once_all_is_delivered() {
    let host = Host::new(ScriptedWriter::down()).await;
    for text in ["a", "b"] {
        host.write(NODE, 1, text).await;
    }
    let handoff = host.handoff.clone();
    let removal = tokio::spawn(async move { handoff.drain_and_remove(NODE, LONG).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!removal.is_finished());
    host.writer.follow_pings(|_| Reply::Take);
    host.writer.follow(|_| Reply::Take);
    within(removal).await.unwrap().unwrap();
    assert_eq!(texts(&host.sent(NODE)), ["a", "b"]);
    assert!(host.stats(NODE).is_none());
    let again = host.handoff.drain_and_remove(NODE, LONG).await;
    assert!(matches!(
        again,
        Err(HandoffError::UnknownNode { node: NODE, .. })
    ));
    // Another of this name begins anew.
    host.write(NODE, 1, "c").await;
    host.taken(3).await;
}

#[tokio::test]
async fn a_removal_that_waits_hears_that_its_node_went_by_another_name() {
    let host = Host::new(ScriptedWriter::down()).await;
    host.write(NODE, 1, "moves").await;
    let handoff = host.handoff.clone();
    let removal = tokio::spawn(async move { handoff.drain_and_remove(NODE, LONG * 10).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    host.handoff.rename_node(NODE, NodeId(3)).await.unwrap();
    let unknown = within(removal).await.unwrap();
    assert!(matches!(
        unknown,
        Err(HandoffError::UnknownNode { node: NODE, .. })
    ));
    assert_eq!(host.pending(NodeId(3)), 1);
}

#[tokio::test]
async fn a_node_that_is_not_drained_in_time_stays_and_is_replayed() {
    let host = Host::new(ScriptedWriter::down()).await;
    host.write(NODE, 1, "four").await;
    let short = Duration::from_millis(50);
    for timeout in [Duration::ZERO, short] {
        let left = host.handoff.drain_and_remove(NODE, timeout).await;
        let Err(HandoffError::NotDrained {
            node: NODE,
            pending,
            ..
        }) = left
        else {
            panic!("{left:?}");
        };
        assert_eq!((pending.hints, pending.bytes), (1, 4));
    }
    host.handoff.pause(NODE, Pause::Lasting).await.unwrap();
    let held = host.handoff.drain_and_remove(NODE, short).await;
    assert!(matches!(held, Err(HandoffError::NotDrained { .. })));
    assert_eq!(host.state(NODE), NodeState::Paused);
    host.writer.follow_pings(|_| Reply::Take);
    host.writer.follow(|_| Reply::Take);
    host.handoff.resume(NODE).await.unwrap();
    host.until("delivery", |it| it.pending(NODE) == 0).await;
    let unknown = host.handoff.drain_and_remove(NodeId(7), LONG).await;
    assert!(matches!(unknown, Err(HandoffError::UnknownNode { .. })));
    host.handoff.shutdown().await.unwrap();
    let late = host.handoff.drain_and_remove(NODE, LONG).await;
    assert!(matches!(late, Err(HandoffError::ShutDown)));
}

/// It is decided in order with the hints: one that was handed in before counts, though nobody has
/// seen it yet.
#[test]
fn a_hint_that_slips_in_keeps_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    let first = common::append(&store, NODE.0, "delivered");
    let last = common::hints(&store, NODE.0).pop().unwrap().mark;
    store
        .ack(NODE, last, hinted_handoff::internals::Leave::Delivered)
        .unwrap();
    assert!(!store.has_pending(NODE));
    store.append(NODE, common::hint(1, "slips in"), Box::new(|_| {}));
    let (tell, told) = mpsc::channel();
    store.remove_drained(NODE, move |result| tell.send(result).unwrap());
    let removed = told.recv_timeout(LONG).unwrap();
    assert!(matches!(removed, Err(HandoffError::NotDrained { pending, .. }) if pending.hints == 1));
    assert_eq!(common::payloads(&store, NODE.0), ["slips in"]);
    // Nothing changed: the queue goes on.
    let next = common::append(&store, NODE.0, "behind");
    assert_eq!(next.queue, first.queue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_while_a_node_is_drained_and_removed_under_writes() {
    let host = Host::new(ScriptedWriter::taking()).await;
    host.write(NODE, 1, "first").await;
    let handoff = host.handoff.clone();
    let removals = tokio::spawn(async move {
        let mut removed = 0;
        for _ in 0..20 {
            match handoff.drain_and_remove(NODE, Duration::from_secs(1)).await {
                Ok(()) => removed += 1,
                Err(HandoffError::UnknownNode { .. } | HandoffError::NotDrained { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        removed
    });
    let mut written = BTreeSet::from(["first".to_owned()]);
    let mut ids = BTreeSet::new();
    while !removals.is_finished() {
        let text = written.len().to_string();
        let id = host.write(NODE, 1, &text).await;
        assert!(ids.insert((id.queue, id.sequence)), "{id} was used twice");
        written.insert(text);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(within(removals).await.unwrap() > 0);
    host.taken(written.len()).await;
    let taken: Vec<_> = host.writer.taken();
    assert_eq!(taken.len(), written.len(), "something came twice");
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_removal_goes_on_over_any_restart_until_all_is_delivered() {
    for stop in STOPS {
        let host = Host::new(ScriptedWriter::down()).await;
        host.write(NODE, 1, "a").await;
        let left = host.handoff.drain_and_remove(NODE, Duration::ZERO).await;
        assert!(matches!(left, Err(HandoffError::NotDrained { .. })));
        let host = host.restart(stop, ScriptedWriter::down()).await;
        host.write(NODE, 1, "b").await;
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.until("removal", |it| it.stats(NODE).is_none()).await;
        assert_eq!(texts(&host.sent(NODE)), ["a", "b"]);
        // Another of this name begins anew.
        host.write(NODE, 1, "c").await;
        host.taken(3).await;
        a_while().await;
        assert!(host.stats(NODE).is_some());
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_removal_goes_on_though_nobody_waits_for_it_any_more() {
    let host = Host::new(ScriptedWriter::down()).await;
    host.write(NODE, 1, "a").await;
    let removal = host.handoff.drain_and_remove(NODE, LONG);
    let gave_up = tokio::time::timeout(Duration::from_millis(100), removal).await;
    assert!(gave_up.is_err());
    assert!(host.stats(NODE).unwrap().leaving);
    host.writer.follow_pings(|_| Reply::Take);
    host.writer.follow(|_| Reply::Take);
    host.until("removal", |it| it.stats(NODE).is_none()).await;
    assert_eq!(texts(&host.sent(NODE)), ["a"]);
    // One that has nothing pending is removed at once, and nobody need wait for it.
    host.write(NODE, 1, "b").await;
    host.until("delivery", |it| it.pending(NODE) == 0).await;
    a_while().await;
    assert!(!host.stats(NODE).unwrap().leaving);
    host.handoff
        .drain_and_remove(NODE, Duration::ZERO)
        .await
        .unwrap();
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_removal_that_is_called_off_tells_who_waits_and_is_forgotten_over_any_restart() {
    for stop in STOPS {
        let host = Host::new(ScriptedWriter::down()).await;
        let unknown = host.handoff.cancel_removal(NODE).await;
        assert!(matches!(
            unknown,
            Err(HandoffError::UnknownNode { node: NODE, .. })
        ));
        host.write(NODE, 1, "a").await;
        host.handoff.cancel_removal(NODE).await.unwrap();
        let waits = |handoff: &hinted_handoff::HintedHandoff<_>| {
            let handoff = handoff.clone();
            tokio::spawn(async move { handoff.drain_and_remove(NODE, LONG * 10).await })
        };
        let (one, other) = (waits(&host.handoff), waits(&host.handoff));
        host.until("it leaves", |it| it.stats(NODE).unwrap().leaving)
            .await;
        a_while().await;
        host.handoff.cancel_removal(NODE).await.unwrap();
        for waiting in [one, other] {
            let told = within(waiting).await.unwrap();
            assert!(
                matches!(told, Err(HandoffError::RemovalCancelled { node: NODE, .. })),
                "{told:?}"
            );
        }
        assert!(!host.stats(NODE).unwrap().leaving);
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.until("delivery", |it| it.pending(NODE) == 0).await;
        a_while().await;
        assert!(
            !host.stats(NODE).unwrap().leaving,
            "it was removed, or is to be"
        );
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_leaves_takes_that_along_to_a_new_name_and_to_none_that_is_known() {
    let new = NodeId(3);
    for merged in [false, true] {
        let host = Host::new(ScriptedWriter::down()).await;
        host.write(NODE, 1, "a").await;
        if merged {
            host.write(new, 1, "b").await;
        }
        let left = host.handoff.drain_and_remove(NODE, Duration::ZERO).await;
        assert!(matches!(left, Err(HandoffError::NotDrained { .. })));
        host.handoff.rename_node(NODE, new).await.unwrap();
        assert_eq!(host.stats(new).unwrap().leaving, !merged);
        let host = host.restart(Stop::Clean, ScriptedWriter::taking()).await;
        let is_there = move |host: &Host| host.stats(new).is_some_and(|it| it.pending.hints == 0);
        match merged {
            true => host.until("delivery", is_there).await,
            false => host.until("removal", |it| it.stats(new).is_none()).await,
        }
        a_while().await;
        assert_eq!(host.stats(new).is_some(), merged);
        assert!(host.stats(NODE).is_none());
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_paused_node_leaves_once_it_is_resumed() {
    let host = Host::new(ScriptedWriter::taking()).await;
    host.handoff.pause_all(Pause::Lasting).await.unwrap();
    host.write(NODE, 1, "a").await;
    let left = host.handoff.drain_and_remove(NODE, Duration::ZERO).await;
    assert!(matches!(left, Err(HandoffError::NotDrained { .. })));
    let host = host.restart(Stop::Unclean, ScriptedWriter::taking()).await;
    a_while().await;
    let stats = host.stats(NODE).unwrap();
    assert_eq!((stats.state, stats.leaving), (NodeState::Paused, true));
    host.handoff.resume_all().await.unwrap();
    host.until("removal", |it| it.stats(NODE).is_none()).await;
    assert_eq!(texts(&host.sent(NODE)), ["a"]);
}
