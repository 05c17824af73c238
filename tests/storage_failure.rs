//! When the storage fails, everybody who waits is told that the outcome is unknown, nothing more is accepted, sent or
//! acknowledged, and what was answered is there after the next open.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    Config, EnqueueError, FailedOutcome, HandoffError, Health, HintedHandoff, NodeId, ShardId,
    testkit::{CommitFault, Reply, ScriptedWriter},
};

const SHARD: ShardId = ShardId(1);
const NODE: NodeId = NodeId(2);

async fn write(handoff: &HintedHandoff<Bytes>, text: &'static str) -> Result<(), EnqueueError> {
    let points = Bytes::from_static(text.as_bytes());
    let writing = handoff.write_shard(SHARD, NODE, &points);
    let answered = tokio::time::timeout(Duration::from_secs(30), writing).await;
    answered.expect("a write hangs").map(|_| ())
}

/// A service with one durable hint and a fault injected behind it.
async fn failing(
    dir: &tempfile::TempDir,
    fault: CommitFault,
) -> (HintedHandoff<Bytes>, EnqueueError) {
    let config = Config {
        commit_timeout: Duration::from_secs(1),
        ..common::config(dir.path())
    };
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

#[tokio::test]
async fn an_io_error_is_an_unknown_outcome_and_the_end_of_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (handoff, error) = failing(&dir, CommitFault::Fail).await;
    assert!(matches!(error, EnqueueError::Unknown(_)));
    assert_eq!(error.outcome(), FailedOutcome::Unknown);
    assert!(matches!(handoff.health(), Health::Failed(_)));
    // Once failed, failed: also when the disk is well again, since nobody knows what it kept.
    handoff.inject(CommitFault::None);
    let later = write(&handoff, "later").await.unwrap_err();
    assert!(matches!(later, EnqueueError::StoreFailed(_)));
    assert_eq!(later.outcome(), FailedOutcome::Refused);
    assert!(matches!(
        handoff.sync().await,
        Err(HandoffError::Storage(_))
    ));
    let node = handoff.stats().nodes.remove(0);
    assert_eq!(node.pending.hints, 1, "what is durable can still be seen");
    assert!(matches!(
        handoff.shutdown().await,
        Err(HandoffError::Storage(_))
    ));
    reopened(&dir).await;
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
    handoff.inject(CommitFault::None);
    drop(handoff);
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
