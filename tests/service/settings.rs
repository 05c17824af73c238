//! Settings that change while it runs, and what cannot.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    ConsistencyLevel, EnqueueError, Gate, HandoffError, HintedHandoff, NodeId, PointsWriter,
    ShardId, internals::WallClock,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use crate::common::{
    frozen::{freeze, pass, until},
    service::{node_stats, quick, shard, soon_node, start},
};

const NODE: NodeId = NodeId(2);
const SHARD: ShardId = ShardId(1);

fn payload(bytes: usize) -> Bytes {
    vec![7; bytes].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_out_of_range_or_fixed_is_refused_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::taking());
    let handoff = start(quick(dir.path()), &writer).await;
    let before = handoff.config();
    let refused = handoff.reconfigure(|config| {
        config.max_attempts = 7;
        config.max_in_flight = 0;
    });
    match refused.await {
        Err(HandoffError::Setting(error)) => assert_eq!(error.field, "max_in_flight"),
        other => panic!("{other:?}"),
    }
    let refused = handoff.reconfigure(|config| {
        config.max_attempts = 7;
        config.min_free_disk = 1 << 30;
    });
    match refused.await {
        Err(HandoffError::Setting(error)) => {
            assert_eq!(
                (error.field, error.value.as_str()),
                ("min_free_disk", "1073741824")
            );
            assert!(
                error.to_string().contains("cannot change while it runs"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(handoff.config(), before);
    handoff.shutdown().await.unwrap();
    let closed = handoff.reconfigure(|config| config.max_attempts = 7).await;
    assert!(matches!(closed, Err(HandoffError::ShutDown)), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_what_is_pending_holds_from_then_on_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = start(quick(dir.path()), &Arc::new(ScriptedWriter::down())).await;
    let write = || async { handoff.write_shard(NODE, SHARD, &payload(10)).await };
    for _ in 0..5 {
        write().await.unwrap();
    }
    handoff
        .reconfigure(|config| config.max_hints_per_node = Some(5))
        .await
        .unwrap();
    let full = write().await;
    assert!(
        matches!(full, Err(EnqueueError::QueueFull { max: 5, .. })),
        "{full:?}"
    );
    handoff
        .reconfigure(|config| config.max_hints_per_node = None)
        .await
        .unwrap();
    write().await.unwrap();
    assert_eq!(node_stats(&handoff, NODE).pending.hints, 6);
    let large = handoff
        .reconfigure(|config| config.max_entry_bytes = 5)
        .await;
    large.unwrap();
    let refused = write().await;
    assert!(
        matches!(refused, Err(EnqueueError::EntryTooLarge { max: 5, .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_may_look_at_the_settings_while_it_changes_them() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = start(quick(dir.path()), &Arc::new(ScriptedWriter::taking())).await;
    let (changing, (tell, told)) = (handoff.clone(), std::sync::mpsc::channel());
    // On a thread that may stand for ever if a lock is held.
    std::thread::spawn(move || {
        let looking = changing.clone();
        let changed = changing.reconfigure_blocking(|config| {
            config.max_attempts = looking.config().max_attempts + 7;
        });
        tell.send(changed)
    });
    let before = handoff.config().max_attempts;
    let changed = told.recv_timeout(Duration::from_secs(60));
    changed.expect("it stands").unwrap();
    assert_eq!(handoff.config().max_attempts, before + 7);
}

/// A write that may take less long than `hint_after` closes the gate when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_goes_by_the_time_of_a_write_that_was_set_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.hint_after = Duration::from_secs(20);
    config.write_timeout = Duration::from_secs(30);
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Hang));
    let handoff = start(&config, &writer).await;
    handoff
        .reconfigure(|config| config.write_timeout = Duration::from_millis(100))
        .await
        .unwrap();
    let points = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let shard = shard(7, &[2]);
    let written = points.write(&shard, ConsistencyLevel::Any, payload(10));
    written.await.unwrap();
    soon_node(&handoff, NODE, |it| it.gate != Gate::Open).await;
}

/// While what is in flight ends, so that no task keeps what was set before.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_hinted_first_during_a_change_goes_by_what_was_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.max_in_flight = 1;
    config.shutdown_grace = Duration::from_millis(300);
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Hang));
    let handoff = start(&config, &writer).await;
    handoff
        .write_shard(NODE, SHARD, &payload(10))
        .await
        .unwrap();
    soon_node(&handoff, NODE, |it| it.in_flight == 1).await;
    let other = NodeId(9);
    let write = async {
        for shard in 0..8 {
            let points = payload(10);
            let written = handoff.write_shard(other, ShardId(shard), &points);
            written.await.unwrap();
        }
    };
    let change = handoff.reconfigure(|config| config.max_in_flight = 4);
    let (changed, ()) = tokio::join!(change, write);
    changed.unwrap();
    soon_node(&handoff, other, |it| it.in_flight == 4).await;
}

/// How many sends are under way at a time follows the setting, and nothing is lost or overtaken
/// where the tasks begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn replay_goes_by_what_was_set_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.max_in_flight = 1;
    config.shutdown_grace = Duration::from_millis(300);
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Hang));
    let handoff = start(&config, &writer).await;
    for number in 0..16 {
        let points = Bytes::from(format!("{number:02}"));
        let written = handoff.write_shard(NODE, ShardId(number % 8), &points);
        written.await.unwrap();
    }
    soon_node(&handoff, NODE, |it| it.in_flight == 1).await;
    handoff
        .reconfigure(|config| config.max_in_flight = 4)
        .await
        .unwrap();
    soon_node(&handoff, NODE, |it| it.in_flight == 4).await;
    writer.follow(|_| Reply::Take);
    handoff
        .reconfigure(|config| config.max_in_flight = 8)
        .await
        .unwrap();
    soon_node(&handoff, NODE, |it| it.pending.hints == 0).await;
    assert_eq!(node_stats(&handoff, NODE).delivered.hints, 16);
    // Of each shard the first one came first.
    let taken = writer.taken().concat();
    let place = |number: u64| {
        let text = format!("{number:02}");
        taken.chunks(2).position(|it| it == text.as_bytes())
    };
    for shard in 0..8 {
        assert!(
            place(shard).unwrap() < place(shard + 8).unwrap(),
            "{taken:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_age_that_is_set_later_holds_for_what_waits_already() {
    let _frozen = freeze();
    let dir = tempfile::tempdir().unwrap();
    let (config, clock) = (quick(dir.path()), WallClock::new(1_700_000_000_000));
    let opened = HintedHandoff::open_by_clock(config, clock, ScriptedWriter::down());
    let handoff = opened.await.unwrap();
    handoff
        .write_shard(NODE, SHARD, &payload(10))
        .await
        .unwrap();
    pass(Duration::from_secs(100)).await;
    assert_eq!(node_stats(&handoff, NODE).pending.hints, 1);
    handoff
        .reconfigure(|config| config.max_age = Duration::from_secs(1))
        .await
        .unwrap();
    pass(Duration::from_secs(2)).await;
    until("it is gone", || {
        node_stats(&handoff, NODE).expired.hints == 1
    })
    .await;
    assert_eq!(node_stats(&handoff, NODE).dropped.hints, 0);
}
