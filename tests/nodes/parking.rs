//! Saying who is in the cluster: parked, named again, purged.

use std::time::Duration;

use hinted_handoff::{
    NodeId, NodeState, Pause, Retained,
    testkit::{Now, ScriptedWriter},
};

use crate::{
    common,
    host::{Host, STOPS, Stop, a_while, texts},
};

const STAYS: NodeId = NodeId(2);
const LEFT: NodeId = NodeId(3);
const MANUAL: NodeId = NodeId(4);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Hints for two nodes and one whose hints are taken by hand.
async fn three() -> Host {
    let host = Host::with(ScriptedWriter::down(), |config| {
        config.manual_nodes = [MANUAL].into();
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
    tokio::time::sleep(WEEK - Duration::from_secs(600)).await;
    assert!(host.stats(LEFT).is_some(), "{:?}", host.handoff.stats());
    while host.stats(LEFT).is_some() {
        tokio::time::sleep(Duration::from_secs(60)).await;
        // The store purges in real time, during which this clock goes by; while a blocking task runs it stands still.
        let moment = || std::thread::sleep(Duration::from_millis(2));
        tokio::task::spawn_blocking(moment).await.unwrap();
        assert!(began.elapsed() < 2 * WEEK, "{:?}", host.handoff.stats());
    }
    assert!(began.elapsed() >= WEEK - Duration::from_secs(1));
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
    let long_ago = Now {
        unix_ms: 1_000_000_000_000,
        open_for: Duration::ZERO,
    };
    store.retain_nodes([STAYS].into(), long_ago, move |result| {
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
        assert!(opened.elapsed() < WEEK);
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
    tokio::time::sleep(8 * WEEK).await;
    assert_eq!(host.state(LEFT), NodeState::Parked);
    assert_eq!(host.pending(LEFT), 1);
    host.handoff.shutdown().await.unwrap();
}
