//! docs/sled.md rule 11: one lock serialises every transaction of all sled databases in the
//! process. Whoever holds it for good stops them all; then everybody who waits is told.
//!
//! In a process of its own, since all other tests would wait too.

mod common;

use std::{sync::mpsc, thread, time::Duration};

use common::hosting::{DOWN, Host, SHARD, config, open_db};
use hinted_handoff::{
    Config, EnqueueError, FailedOutcome, Health, TransactionError,
    sled::transaction::ConflictableTransactionError,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_lock_that_somebody_else_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        commit_timeout: Duration::from_secs(1),
        ..config(&dir.path().join("db"))
    };
    let host = Host::open_as(config).await;
    let elsewhere = open_db(&dir.path().join("elsewhere"));
    let (let_go, told_to) = mpsc::channel::<()>();
    let mut keeper = None;
    let mut told_to = Some(told_to);
    // It reads, and then the lock is taken; so it is the commit thread that cannot look at the row
    // again.
    let stuck = host.handoff.transaction(&[&host.rows], |rows, hints| {
        rows[0].get("row")?;
        rows[0].insert("row", "value")?;
        hints.enqueue(DOWN, SHARD, &"hint".into())?;
        if let Some(told_to) = told_to.take() {
            let (tell, kept) = mpsc::channel();
            let elsewhere = elsewhere.clone();
            keeper = Some(thread::spawn(move || {
                let kept = elsewhere.transaction(|_| {
                    tell.send(()).unwrap();
                    let _ = told_to.recv_timeout(PATIENCE);
                    Ok::<(), ConflictableTransactionError>(())
                });
                kept.unwrap();
            }));
            kept.recv().unwrap();
        }
        Ok(())
    });
    let answer = tokio::time::timeout(PATIENCE, stuck).await;
    let error = answer.expect("nobody answered").unwrap_err();
    assert_eq!(error.outcome(), FailedOutcome::Unknown, "{error}");
    assert!(matches!(host.handoff.health(), Health::RestartRequired(_)));
    let refused = host.handoff.transaction(&[&host.rows], |_, hints| {
        Ok(hints.enqueue(DOWN, SHARD, &"hint".into())?)
    });
    match refused.await {
        Err(TransactionError::Enqueue(EnqueueError::StoreFailed(_))) => {}
        other => panic!("{other:?}"),
    }
    let_go.send(()).unwrap();
    keeper.unwrap().join().unwrap();
    // It came back after all; the database is the host's to open again.
    let returns = async {
        while !matches!(host.handoff.health(), Health::ReopenRequired(_)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let returned = tokio::time::timeout(PATIENCE, returns).await;
    returned.unwrap_or_else(|_| panic!("it stays {:?}", host.handoff.health()));
}
