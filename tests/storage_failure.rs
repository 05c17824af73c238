//! When the storage fails, everybody who waits is told that the outcome is unknown, and nothing
//! more is accepted, sent or acknowledged until the store has reopened itself; what was answered is
//! there afterwards.

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Config, EnqueueError, FailedOutcome, HandoffError, Health, HintedHandoff, NodeId, ShardId,
    internals::{CommitFault, Store},
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

const SHARD: ShardId = ShardId(1);
const NODE: NodeId = NodeId(2);

async fn write(handoff: &HintedHandoff<Bytes>, text: &'static str) -> Result<(), EnqueueError> {
    let points = Bytes::from_static(text.as_bytes());
    let writing = handoff.write_shard(NODE, SHARD, &points);
    let answered = tokio::time::timeout(Duration::from_secs(30), writing).await;
    answered.expect("a write hangs").map(|_| ())
}

/// A service with one durable hint and a fault injected behind it.
async fn failing(
    dir: &tempfile::TempDir,
    fault: CommitFault,
) -> (HintedHandoff<Bytes>, EnqueueError) {
    let mut config = common::config(dir.path());
    // Else a slow machine takes a slow close for a hang, and the lock stays.
    if matches!(fault, CommitFault::Hang) {
        config.commit_timeout = Duration::from_secs(1);
    }
    let handoff = HintedHandoff::open(config, ScriptedWriter::down())
        .await
        .unwrap();
    write(&handoff, "answered").await.unwrap();
    handoff.inject(fault);
    let error = write(&handoff, "unknown").await.unwrap_err();
    (handoff, error)
}

/// "answered" must come, "unknown" may, nothing else does.
async fn reopened(dir: &tempfile::TempDir) {
    let taking = Arc::new(ScriptedWriter::taking());
    let handoff = HintedHandoff::open(common::config(dir.path()), Arc::clone(&taking))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(30), taking.until_taken(1))
        .await
        .unwrap();
    write(&handoff, "works again").await.unwrap();
    let count = match handoff.stats().store.damage.len() {
        0 => taking.taken().len().max(2),
        damage => panic!("{damage} damaged"),
    };
    tokio::time::timeout(Duration::from_secs(30), taking.until_taken(count))
        .await
        .unwrap();
    assert_eq!(taking.taken()[0], "answered");
    handoff.shutdown().await.unwrap();
}

/// A store that takes a commit of a second for one that hangs.
fn impatient(dir: &tempfile::TempDir) -> Config {
    Config {
        commit_timeout: Duration::from_secs(1),
        ..common::config(dir.path())
    }
}

async fn until(handoff: &HintedHandoff<Bytes>, wished: impl Fn(&Health) -> bool) {
    common::soon("its health", || wished(&handoff.health())).await;
}

#[tokio::test]
async fn an_io_error_is_an_unknown_outcome_and_refuses_writes_until_the_store_reopens_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, error) = failing(&dir, CommitFault::Fail).await;
    assert!(matches!(error, EnqueueError::Unknown(_)));
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    // As long as the disk is broken so is the store, however often it is opened again.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(handoff.health(), Health::Failed(_)));
    let later = write(&handoff, "later").await.unwrap_err();
    assert!(matches!(later, EnqueueError::StoreFailed(_)));
    assert_eq!(later.outcome(), FailedOutcome::Refused);
    assert!(matches!(
        handoff.sync().await,
        Err(HandoffError::Storage(_))
    ));
    let node = handoff.stats().nodes.remove(0);
    assert_eq!(node.pending.hints, 1, "what is durable can still be seen");

    handoff.disk_works_again();
    until(&handoff, |health| matches!(health, Health::Serving)).await;
    write(&handoff, "works again").await.unwrap();
    handoff.shutdown().await.unwrap();
    reopened(&dir).await;
}

fn log_of(dir: &tempfile::TempDir) -> u64 {
    let log = dir.path().join("gen-000001/db");
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(log).unwrap())
}

fn is_marked(dir: &tempfile::TempDir) -> bool {
    dir.path().join("gen-000001/hh-UNSYNCED").exists()
}

/// What a disk does with a log that is not another file: `failed_fsync`.
#[tokio::test]
async fn after_a_failed_fsync_the_log_is_another_file_before_anything_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, error) = failing(&dir, CommitFault::FailFsync).await;
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    assert!(is_marked(&dir));
    // An attempt copies it, and fails at its first commit, however often it is made.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(handoff.health(), Health::Failed(_)));
    until(&handoff, |_| is_marked(&dir)).await;
    let before = log_of(&dir);
    handoff.disk_works_again();
    until(&handoff, |health| matches!(health, Health::Serving)).await;
    assert_ne!(log_of(&dir), before);
    assert!(!is_marked(&dir));
    write(&handoff, "works again").await.unwrap();
    handoff.shutdown().await.unwrap();
    reopened(&dir).await;
}

#[tokio::test]
async fn a_process_that_ends_after_a_failed_fsync_leaves_that_for_the_next_one_to_repair() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = failing(&dir, CommitFault::FailFsync).await;
    handoff.shutdown().await.unwrap_err();
    drop(handoff);
    let before = log_of(&dir);
    assert!(is_marked(&dir));
    reopened(&dir).await;
    assert_ne!(log_of(&dir), before);
    assert!(!is_marked(&dir));
}

/// A disk without room for a write must not need room for a copy of the log.
#[tokio::test]
async fn after_a_failure_without_a_failed_fsync_the_log_stays_the_file_that_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = failing(&dir, CommitFault::Fail).await;
    let before = log_of(&dir);
    handoff.disk_works_again();
    until(&handoff, |health| matches!(health, Health::Serving)).await;
    assert_eq!(log_of(&dir), before);
    handoff.shutdown().await.unwrap();
    reopened(&dir).await;
}

/// A buffered hint was lost with the failure, so the next sync must not say that all is durable:
/// not to any handle.
#[tokio::test]
async fn a_sync_after_the_store_reopened_itself_says_once_to_each_handle_that_it_had_failed() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        durability: hinted_handoff::Durability::Buffered,
        ..common::config(dir.path())
    };
    let handoff = HintedHandoff::open(config, ScriptedWriter::down())
        .await
        .unwrap();
    let other = handoff.clone();
    handoff.sync().await.unwrap();
    handoff.inject(CommitFault::Fail);
    write(&handoff, "lost").await.unwrap();
    until(&handoff, |health| matches!(health, Health::Failed(_))).await;
    handoff.disk_works_again();
    until(&handoff, |health| matches!(health, Health::Serving)).await;
    for handle in [&handoff, &other] {
        write(handle, "written after it").await.unwrap();
        let told = handle.sync().await;
        assert!(
            matches!(told, Err(HandoffError::FailedMeanwhile)),
            "{told:?}"
        );
        handle.sync().await.unwrap();
        handle.clone().sync().await.unwrap();
    }
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reopened_store_delivers_what_was_answered_before_and_after_and_gives_no_id_twice() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
    let config = Config {
        retry_interval: Duration::from_millis(5),
        retry_max_interval: Duration::from_millis(10),
        ..common::config(dir.path())
    };
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    for round in 0..5 {
        write(&handoff, ["a0", "a1", "a2", "a3", "a4"][round])
            .await
            .unwrap();
        handoff.inject(CommitFault::Fail);
        write(&handoff, "unknown").await.unwrap_err();
        handoff.disk_works_again();
        until(&handoff, |health| matches!(health, Health::Serving)).await;
        write(&handoff, ["b0", "b1", "b2", "b3", "b4"][round])
            .await
            .unwrap();
    }
    writer.follow(|_| Reply::Take);
    let idle = async {
        while handoff.stats().nodes[0].pending.hints > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), idle)
        .await
        .unwrap();
    let mut answered = writer.taken();
    answered.retain(|text| text != "unknown");
    let expected: Vec<_> = (0..5)
        .flat_map(|round| [format!("a{round}"), format!("b{round}")])
        .collect();
    assert_eq!(answered, expected, "in order, each once");
    let seen = writer
        .seen()
        .into_iter()
        .filter(|seen| seen.reply == Reply::Take);
    let ids: Vec<_> = seen.flat_map(|seen| seen.hints).collect();
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_engine_needs_a_restart_and_tells_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, error) = failing(&dir, CommitFault::Panic).await;
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    assert!(matches!(handoff.health(), Health::RestartRequired(_)));
    assert!(handoff.shutdown().await.is_err());
    reopened(&dir).await;
}

#[tokio::test]
async fn a_commit_that_hangs_is_given_up_by_the_watchdog() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, error) = failing(&dir, CommitFault::Hang).await;
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    assert!(error.to_string().contains("outcome unknown"), "{error}");
    assert!(matches!(handoff.health(), Health::RestartRequired(_)));
    assert!(matches!(
        write(&handoff, "later").await,
        Err(EnqueueError::StoreFailed(_))
    ));
    let shut = tokio::time::timeout(Duration::from_secs(30), handoff.shutdown()).await;
    assert!(shut.expect("shutdown hangs").is_err());
    // The hung thread keeps the lock, as it should, until it comes back.
    handoff.disk_works_again();
    drop(handoff);
}

/// Nobody knows beforehand whether it comes back.
#[tokio::test]
async fn a_commit_that_comes_back_after_its_timeout_has_failed_and_the_store_opens_itself_again() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, error) = failing(&dir, CommitFault::Hang).await;
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    assert!(matches!(handoff.health(), Health::RestartRequired(_)));
    for time in 1..=2 {
        handoff.disk_works_again();
        until(&handoff, |health| matches!(health, Health::Serving)).await;
        assert!(handoff.stats().store.reopened >= time);
        write(&handoff, "works again").await.unwrap();
        assert!(matches!(
            handoff.sync().await,
            Err(HandoffError::FailedMeanwhile)
        ));
        if time == 1 {
            handoff.inject(CommitFault::Hang);
            write(&handoff, "unknown too").await.unwrap_err();
            assert!(matches!(handoff.health(), Health::RestartRequired(_)));
        }
    }
    handoff.shutdown().await.unwrap();
    reopened(&dir).await;
}

/// It was told so, and is out of the way once the commit comes back: nobody would work with it.
#[tokio::test]
async fn a_store_that_was_shut_down_while_a_commit_hung_lets_go_of_its_lock_when_that_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, _) = failing(&dir, CommitFault::Hang).await;
    let shut = tokio::time::timeout(Duration::from_secs(30), handoff.shutdown()).await;
    assert!(shut.expect("shutdown hangs").is_err());
    let config = common::config(dir.path());
    let open = || HintedHandoff::<Bytes>::open(config.clone(), ScriptedWriter::down());
    assert!(open().await.is_err());
    handoff.disk_works_again();
    let opening = async {
        while open().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let opened = tokio::time::timeout(Duration::from_secs(30), opening).await;
    opened.expect("it keeps the lock");
    reopened(&dir).await;
}

/// Whoever hears that a restart is required may close the store just when the commit is back, and
/// the watchdog has not seen that yet.
#[test]
fn a_store_that_is_closed_right_after_a_hang_has_ended_lets_go_of_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        // So far apart are the watchdog's looks, four times.
        commit_timeout: Duration::from_secs(4),
        ..common::config(dir.path())
    };
    let open = || Store::open(&config, Box::new(|_| {}));
    let store = open().unwrap();
    store.inject(CommitFault::Hang);
    assert!(common::try_append(&store, 1, vec![common::hint(1, "unknown")])[0].is_err());
    store.inject(CommitFault::None);
    std::thread::sleep(Duration::from_millis(100));
    assert!(store.close().is_err());
    let started = Instant::now();
    while open().is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "it keeps the lock"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A long log on a slow disk: the watchdog gives up each attempt before it comes to its end.
#[test]
fn a_store_that_takes_longer_to_open_again_than_a_commit_may_serves_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&impatient(&dir), Box::new(|_| {})).unwrap();
    store.inject(CommitFault::Fail);
    assert!(common::try_append(&store, 1, vec![common::hint(1, "unknown")])[0].is_err());
    let started = Instant::now();
    while !matches!(store.health(), Health::Serving) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{:?}",
            store.health()
        );
        store.inject(CommitFault::Hang);
        std::thread::sleep(Duration::from_millis(1600));
        store.inject(CommitFault::None);
        std::thread::sleep(Duration::from_millis(30));
    }
    common::append(&store, 1, "answered");
    store.close().unwrap();
}

/// A request that the commit thread works on is neither in the inbox nor in a group.
#[tokio::test]
async fn nobody_waits_for_ever_for_a_request_that_hangs_itself() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = HintedHandoff::open(impatient(&dir), ScriptedWriter::down())
        .await
        .unwrap();
    write(&handoff, "answered").await.unwrap();
    handoff.inject(CommitFault::Hang);
    let pausing = handoff.pause(NODE, hinted_handoff::Pause::Lasting);
    let paused = tokio::time::timeout(Duration::from_secs(30), pausing).await;
    assert!(matches!(
        paused.expect("it hangs"),
        Err(HandoffError::Storage(_))
    ));
    handoff.disk_works_again();
    until(&handoff, |health| matches!(health, Health::Serving)).await;
    handoff.resume(NODE).await.unwrap();
    handoff.shutdown().await.unwrap();
    reopened(&dir).await;
}

#[tokio::test]
async fn nobody_waits_for_ever_behind_a_commit_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let handoff = HintedHandoff::open(impatient(&dir), ScriptedWriter::down())
        .await
        .unwrap();
    handoff.inject(CommitFault::Hang);
    let writer = || {
        let handoff = handoff.clone();
        tokio::spawn(async move { write(&handoff, "waits").await.unwrap_err().outcome() })
    };
    // One hangs in its group, the others gather behind it.
    let mut writers = vec![writer()];
    tokio::time::sleep(Duration::from_millis(200)).await;
    writers.extend((1..100).map(|_| writer()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let syncing = handoff.sync();
    let removing = handoff.remove_node(NODE);
    let both = tokio::time::timeout(Duration::from_secs(30), async {
        tokio::join!(syncing, removing)
    });
    let (synced, removed) = both.await.expect("a request hangs");
    assert!(
        matches!(synced, Err(HandoffError::Storage(_))),
        "{synced:?}"
    );
    assert!(removed.is_err());
    let mut outcomes = Vec::new();
    for writer in writers {
        outcomes.push(writer.await.unwrap());
    }
    // The one in the group may yet land; those behind it never went in.
    assert_eq!(outcomes[0], FailedOutcome::Unknown);
    assert!(
        outcomes[1..]
            .iter()
            .all(|outcome| *outcome == FailedOutcome::Refused)
    );
    handoff.disk_works_again();
}

#[tokio::test]
async fn a_failed_store_sends_and_acknowledges_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
    let config = Config {
        retry_interval: Duration::from_millis(5),
        retry_max_interval: Duration::from_millis(10),
        ..common::config(dir.path())
    };
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    write(&handoff, "answered").await.unwrap();
    handoff.inject(CommitFault::Fail);
    write(&handoff, "unknown").await.unwrap_err();
    // The store has failed: whatever the node would take from now on, nothing is sent.
    writer.follow(|_| Reply::Take);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(writer.taken().is_empty());
    assert_eq!(handoff.stats().nodes[0].pending.hints, 1);
    let _ = handoff.shutdown().await;
    reopened(&dir).await;
}

/// Such a send claims what it is about to send only after its wait: then the store is another, and
/// no round may be left that gives the claim back.
#[tokio::test]
async fn a_send_that_waits_for_its_rate_while_the_store_is_reopened_keeps_no_hint_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    // The first hint is the burst, every other waits for a second; the window is full, so nothing
    // rings that wait.
    let config = Config {
        retry_interval: Duration::from_millis(10),
        retry_rate_limit: 10,
        batch_bytes: 10,
        window_hints: 2,
        ..common::config(dir.path())
    };
    let writer = Arc::new(ScriptedWriter::down());
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    for shard in 1..=4 {
        let points = Bytes::from(format!("ten bytes{shard}"));
        let written = handoff.write_shard(NODE, ShardId(shard), &points).await;
        written.unwrap();
    }
    writer.follow_pings(|_| Reply::Take);
    writer.follow(|_| Reply::Take);
    tokio::time::timeout(Duration::from_secs(30), writer.until_taken(1))
        .await
        .unwrap();
    handoff.inject(CommitFault::Fail);
    let other = Bytes::from_static(b"fails");
    let failed = handoff.write_shard(NodeId(9), SHARD, &other).await;
    failed.unwrap_err();
    handoff.disk_works_again();
    until(&handoff, |health| matches!(health, Health::Serving)).await;
    let delivered = async {
        let pending = || {
            let nodes = handoff.stats().nodes;
            nodes
                .iter()
                .any(|it| it.node == NODE && it.pending.hints > 0)
        };
        while pending() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let delivered = tokio::time::timeout(Duration::from_secs(60), delivered).await;
    delivered.unwrap_or_else(|_| panic!("{:?}", handoff.stats()));
    handoff.shutdown().await.unwrap();
}
