//! Saying who is in the cluster: parked, named again, purged.

use std::time::Duration;

use hinted_handoff::{HandoffError, NodeId, NodeState, Pause, Retained, internals::Members};
use hinted_handoff_testkit::ScriptedWriter;

use super::host::{Host, STOPS, Stop, a_while, texts};
use crate::common;

const STAYS: NodeId = NodeId(2);
const LEFT: NodeId = NodeId(3);
const MANUAL: NodeId = NodeId(4);
/// After so long it is purged here. A week in steps of a minute takes a minute of real time.
const PURGE_AFTER: Duration = Duration::from_secs(43_200);

/// Hints for two nodes and one whose hints are taken by hand.
async fn three() -> Host {
    let host = Host::with(ScriptedWriter::down(), |config| {
        config.manual_nodes = [MANUAL].into();
        config.purge_after = PURGE_AFTER;
        // Where time passes fast, a node that is down is not to be tried a million times.
        config.retry_interval = Duration::from_secs(60);
        config.retry_max_interval = Duration::from_secs(86_400);
    })
    .await;
    for node in [STAYS, LEFT, MANUAL] {
        host.write(node, 1, "waits").await;
    }
    host
}

#[tokio::test]
async fn a_node_that_is_not_named_waits_until_it_is_named_again_over_any_restart() {
    for stop in STOPS {
        let host = three().await;
        let unknown = NodeId(77);
        let retained = host.handoff.retain_nodes(&[STAYS, unknown]).await.unwrap();
        assert_eq!(retained.parked, [LEFT]);
        assert!(retained.unparked.is_empty());
        assert!(host.stats(unknown).is_none());
        let since = host.stats(LEFT).unwrap().parked_since_unix_ms.unwrap();
        assert!(since > 1_700_000_000_000);
        host.write(LEFT, 1, "accepted").await;

        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(1).await;
        a_while().await;
        let stats = host.stats(LEFT).unwrap();
        assert_eq!((stats.state, stats.pending.hints), (NodeState::Parked, 2));
        assert_eq!(stats.parked_since_unix_ms, Some(since), "{stop:?}");
        assert_eq!(host.pings(LEFT), 0);
        assert_eq!(host.state(MANUAL), NodeState::Manual);
        // Saying it again changes nothing.
        let again = host.handoff.retain_nodes(&[STAYS]).await.unwrap();
        assert_eq!(again, Retained::default());
        let stats = host.stats(LEFT).unwrap();
        assert_eq!(stats.parked_since_unix_ms, Some(since));

        let retained = host.handoff.retain_nodes(&[STAYS, LEFT]).await.unwrap();
        assert_eq!(retained.unparked, [LEFT]);
        host.taken(3).await;
        assert_eq!(texts(&host.sent(LEFT)), ["waits", "accepted"]);
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        assert_eq!(host.state(LEFT), NodeState::CaughtUp, "{stop:?}");
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_paused_node_is_parked_and_paused_and_both_must_end() {
    let host = three().await;
    host.handoff.pause(LEFT, Pause::Lasting).await.unwrap();
    host.handoff.retain_nodes(&[STAYS]).await.unwrap();
    let stats = host.stats(LEFT).unwrap();
    assert_eq!(stats.state, NodeState::Parked);
    assert_eq!(stats.paused, Some(Pause::Lasting));
    host.handoff.resume(LEFT).await.unwrap();
    a_while().await;
    assert_eq!(host.state(LEFT), NodeState::Parked);
    host.handoff.retain_nodes(&[STAYS, LEFT]).await.unwrap();
    host.until("replay", |it| it.state(LEFT) == NodeState::Down)
        .await;
}

/// Time passes as fast as it can.
#[tokio::test(start_paused = true)]
async fn a_node_that_stays_away_is_purged_and_nobody_else_is() {
    let host = three().await;
    let began = tokio::time::Instant::now();
    host.handoff.retain_nodes(&[STAYS]).await.unwrap();
    // Not so long from now on: while the store parked it the clock went by.
    tokio::time::sleep_until(began + PURGE_AFTER - Duration::from_secs(600)).await;
    assert!(host.stats(LEFT).is_some(), "{:?}", host.handoff.stats());
    while host.stats(LEFT).is_some() {
        tokio::time::sleep(Duration::from_secs(60)).await;
        // The store purges in real time, during which this clock goes by; while a blocking task
        // runs it stands still.
        let moment = || std::thread::sleep(Duration::from_millis(2));
        tokio::task::spawn_blocking(moment).await.unwrap();
        assert!(
            began.elapsed() < 2 * PURGE_AFTER,
            "{:?}",
            host.handoff.stats()
        );
    }
    assert!(began.elapsed() >= PURGE_AFTER - Duration::from_secs(1));
    assert_eq!(host.pending(STAYS), 1);
    assert_eq!(host.pending(MANUAL), 1);
    // Another of this name begins anew.
    host.write(LEFT, 1, "anew").await;
    assert_eq!(host.stats(LEFT).unwrap().parked_since_unix_ms, None);
    host.handoff.shutdown().await.unwrap();
}

/// Parks a node as a host did long ago.
fn park_long_ago(host: &Host) {
    let store = common::open(host.dir.path());
    let (tell, told) = std::sync::mpsc::channel();
    let members = Members {
        nodes: [STAYS].into(),
        are_all: false,
    };
    store.retain_nodes(members, 1_000_000_000_000, move |result| {
        tell.send(result).unwrap();
    });
    let retained = told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    // A store that knows nothing of nodes that are taken by hand.
    assert_eq!(retained.parked, [LEFT, MANUAL]);
    store.close().unwrap();
}

#[tokio::test]
async fn a_host_that_comes_back_late_has_time_to_say_who_is_there() {
    let host = three().await;
    host.handoff.shutdown().await.unwrap();
    park_long_ago(&host);
    let host = host.restart(Stop::Clean, ScriptedWriter::taking()).await;
    a_while().await;
    assert_eq!(host.state(LEFT), NodeState::Parked);
    let since = host.stats(LEFT).unwrap().parked_since_unix_ms;
    assert_eq!(since, Some(1_000_000_000_000));
    host.handoff.retain_nodes(&[STAYS, LEFT]).await.unwrap();
    host.taken(2).await;
    assert_eq!(texts(&host.sent(LEFT)), ["waits"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_time_was_over_before_the_open_is_purged_a_minute_after_it() {
    let host = three().await;
    host.handoff.shutdown().await.unwrap();
    park_long_ago(&host);
    let host = host.restart(Stop::Clean, ScriptedWriter::down()).await;
    let opened = tokio::time::Instant::now();
    while host.stats(LEFT).is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(opened.elapsed() < PURGE_AFTER);
    }
    assert!(opened.elapsed() >= Duration::from_secs(59));
    // Its hints are taken by hand now, whatever was said of it before.
    assert_eq!((host.pending(STAYS), host.pending(MANUAL)), (1, 1));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_purged_where_that_is_off() {
    let host = Host::with(ScriptedWriter::down(), |config| {
        config.purge_after = Duration::ZERO;
    })
    .await;
    host.write(LEFT, 1, "waits").await;
    host.handoff.retain_nodes(&[]).await.unwrap();
    tokio::time::sleep(4 * PURGE_AFTER).await;
    assert_eq!(host.state(LEFT), NodeState::Parked);
    assert_eq!(host.pending(LEFT), 1);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn where_the_list_is_complete_a_node_that_comes_later_is_parked_over_any_restart() {
    const LATER: NodeId = NodeId(5);
    for stop in STOPS {
        let host = three().await;
        let retained = host.handoff.retain_only_nodes(&[STAYS]).await.unwrap();
        assert_eq!(retained.parked, [LEFT]);
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.taken(1).await;
        host.write(LATER, 1, "waits").await;
        assert_eq!(host.state(LATER), NodeState::Parked, "{stop:?}");
        a_while().await;
        assert_eq!((host.pending(LATER), host.pings(LATER)), (1, 0));
        // Hinted before its parking was recorded, and opened again.
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        let is_parked = |it: &Host| it.stats(LATER).unwrap().parked_since_unix_ms.is_some();
        host.until("it is recorded", is_parked).await;
        assert_eq!((host.pending(LATER), host.pings(LATER)), (1, 0));
        assert_eq!(host.state(MANUAL), NodeState::Manual);
        assert!(host.stats(MANUAL).unwrap().parked_since_unix_ms.is_none());
        // The list still holds after it was named.
        let retained = host
            .handoff
            .retain_only_nodes(&[STAYS, LATER])
            .await
            .unwrap();
        assert_eq!(retained.unparked, [LATER]);
        host.until("delivery", |it| it.pending(LATER) == 0).await;
        host.write(NodeId(6), 1, "waits").await;
        assert_eq!(host.state(NodeId(6)), NodeState::Parked);
        // Said in the other way it does not: who comes later is sent to.
        let all = [STAYS, LATER, NodeId(6)];
        host.handoff.retain_nodes(&all).await.unwrap();
        host.until("delivery", |it| it.pending(NodeId(6)) == 0)
            .await;
        let host = host.restart(stop, ScriptedWriter::taking()).await;
        host.write(NodeId(7), 1, "goes").await;
        host.until("delivery", |it| it.pending(NodeId(7)) == 0)
            .await;
        assert_eq!(host.state(LEFT), NodeState::Parked);
        host.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_came_later_is_purged_when_its_own_time_is_over() {
    let host = three().await;
    host.handoff
        .retain_only_nodes(&[STAYS, LEFT])
        .await
        .unwrap();
    tokio::time::sleep(2 * PURGE_AFTER).await;
    let began = tokio::time::Instant::now();
    host.write(NodeId(5), 1, "waits").await;
    host.until("it is recorded", |it| {
        it.stats(NodeId(5)).unwrap().parked_since_unix_ms.is_some()
    })
    .await;
    while host.stats(NodeId(5)).is_some() {
        tokio::time::sleep(Duration::from_secs(60)).await;
        // As above.
        let moment = || std::thread::sleep(Duration::from_millis(2));
        tokio::task::spawn_blocking(moment).await.unwrap();
        assert!(
            began.elapsed() < 2 * PURGE_AFTER,
            "{:?}",
            host.handoff.stats()
        );
    }
    assert!(began.elapsed() >= PURGE_AFTER - Duration::from_secs(60));
    assert_eq!((host.pending(STAYS), host.pending(LEFT)), (1, 1));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn as_many_members_as_can_be_kept_are_kept_and_more_are_refused() {
    let host = three().await;
    let many: Vec<_> = (0..8001).map(NodeId).collect();
    let refused = host.handoff.retain_only_nodes(&many).await;
    let Err(HandoffError::TooManyMembers { members, max, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((members, max), (8001, 8000));
    host.handoff.retain_only_nodes(&many[..8000]).await.unwrap();
    let host = host.restart(Stop::Unclean, ScriptedWriter::taking()).await;
    host.write(NodeId(7999), 1, "goes").await;
    host.write(NodeId(8000), 1, "waits").await;
    host.until("delivery", |it| it.pending(NodeId(7999)) == 0)
        .await;
    assert_eq!(host.state(NodeId(8000)), NodeState::Parked);
    host.handoff.shutdown().await.unwrap();
}
