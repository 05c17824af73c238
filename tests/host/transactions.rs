//! Rows and hints as one: all of a transaction or nothing, as if each had run alone.

mod refusals;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::{
    copy::copy_files,
    hosting::{DOWN, Host, MANUAL, SHARD, config, number, open_db, races, text},
};
use bytes::Bytes;
use hinted_handoff::{
    Abort, Config, Durability, EnqueueError, FailedOutcome, Health, HintedHandoff, NodeId,
    RowBatch, TransactionError, TreeProblem, internals::CommitFault,
};
use hinted_handoff_testkit::ScriptedWriter;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("only {0} left")]
struct Poor(u64);

/// Long enough for all that is not held up.
const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn row_and_hints_are_there_as_one_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    let committed = host
        .handoff
        .transaction(&[&host.rows], |rows, hints| {
            rows[0].insert("ada", "countess")?;
            hints.enqueue(MANUAL, SHARD, &"first".into())?;
            hints.enqueue(DOWN, SHARD, &"other".into())?;
            hints.enqueue(MANUAL, SHARD, &"second".into())?;
            Ok("the host's value")
        })
        .await
        .unwrap();
    assert_eq!(committed.value, "the host's value");
    let sequences: Vec<u64> = committed.hints.iter().map(|id| id.sequence.0).collect();
    assert_eq!(
        sequences,
        [1, 1, 2],
        "in the order in which they were enqueued"
    );
    assert_eq!(committed.hints[0].queue, committed.hints[2].queue);
    assert_ne!(committed.hints[0].queue, committed.hints[1].queue);
    copy_files(&path, &killed);
    let killed = Host::open(&killed).await;
    for host in [host, killed] {
        assert_eq!(host.row("ada").as_deref(), Some("countess"));
        assert_eq!(host.waiting().await, ["first", "second"]);
        assert_eq!(host.pending(DOWN), 1);
        host.close().await;
    }
}

#[tokio::test]
async fn an_abort_or_a_panic_leaves_nothing_and_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    assert_eq!(host.hint(MANUAL, "before").await.sequence.0, 1);
    // What it read has the commit thread look at it; what it wrote is not to be seen there.
    let aborted = host.handoff.transaction(&[&host.rows], |rows, hints| {
        assert_eq!(rows[0].get("ada")?, None);
        rows[0].insert("ada", "gone")?;
        hints.enqueue(MANUAL, SHARD, &"gone".into())?;
        Err::<(), _>(Poor(3).into())
    });
    let Err(TransactionError::Aborted(cause)) = aborted.await else {
        panic!("it was aborted");
    };
    assert_eq!(cause.downcast_ref(), Some(&Poor(3)));
    let panicked = host.handoff.transaction(&[&host.rows], |rows, hints| {
        assert_eq!(rows[0].get("ada")?, None);
        rows[0].insert("ada", "gone")?;
        hints.enqueue(MANUAL, SHARD, &"gone".into())?;
        if rows.len() == 1 {
            panic!("the host's own");
        }
        Ok(())
    });
    match panicked.await {
        Err(TransactionError::Panicked(text)) => assert_eq!(text, "the host's own"),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.row("ada"), None);
    assert_eq!(host.hint(MANUAL, "after").await.sequence.0, 2);
    assert_eq!(host.waiting().await, ["before", "after"]);
    host.close().await;
}

#[tokio::test]
async fn a_transaction_sees_what_it_has_written_itself() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let other = host.db.open_tree("other").unwrap();
    let mut batch = RowBatch::new();
    batch.insert(&host.rows, "old", "1").unwrap();
    batch.insert(&host.rows, "older", "2").unwrap();
    host.handoff.apply(batch).await.unwrap();
    let seen = host.handoff.transaction(&[&host.rows, &other], |rows, _| {
        rows[0].insert("old", "3")?;
        rows[0].remove("older")?;
        rows[1].insert("old", "4")?;
        rows[1].insert("new", "5")?;
        rows[1].remove("new")?;
        let mut seen = Vec::new();
        for (tree, key) in [(0, "old"), (0, "older"), (1, "old"), (1, "new")] {
            seen.push(rows[tree].get(key)?);
        }
        Ok(seen)
    });
    let seen = seen.await.unwrap().value;
    assert_eq!(seen, [Some("3".into()), None, Some("4".into()), None]);
    assert_eq!(host.row("old").as_deref(), Some("3"));
    assert_eq!(host.row("older"), None);
    assert_eq!(other.get("old").unwrap().unwrap(), "4");
    assert_eq!(other.len(), 1);
    host.close().await;
}

/// A race of threads that block, beside the runtime.
async fn raced(race: fn(&Host) -> Result<(), String>) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    tokio::task::block_in_place(|| race(&host)).unwrap();
    host.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost() {
    raced(races::lost_update).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_decide_by_what_the_other_changes() {
    raced(races::write_skew).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_of_one_moment_also_if_nothing_is_written() {
    raced(races::reads_of_two_moments).await;
}

/// The second sees what the first of its group has written, although that is not in the database
/// yet.
#[tokio::test]
async fn transactions_of_one_group_come_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    host.count("warm").await;
    // While the commit thread is held up, the others gather.
    host.handoff.inject(CommitFault::Hang);
    let held = {
        let (handoff, rows) = (host.handoff.clone(), host.rows.clone());
        let mut batch = RowBatch::new();
        batch.insert(&rows, "held", "up").unwrap();
        tokio::spawn(async move { handoff.apply(batch).await })
    };
    while host.row("held").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = host.handoff.stats().store.groups;
    let runs = AtomicU32::new(0);
    let one = || {
        host.handoff.transaction(&[&host.rows], |rows, hints| {
            runs.fetch_add(1, Relaxed);
            let count = number(rows[0].get("hot")?);
            rows[0].insert("hot", &(count + 1).to_be_bytes())?;
            hints.enqueue(MANUAL, SHARD, &text(count))?;
            Ok(count)
        })
    };
    let release = async {
        while runs.load(Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        host.handoff.inject(CommitFault::None);
    };
    let (first, second, third, ()) = tokio::join!(one(), one(), one(), release);
    held.await.unwrap().unwrap();
    let counts = [first, second, third].map(|it| it.unwrap().value);
    assert_eq!(BTreeSet::from(counts), BTreeSet::from([0, 1, 2]));
    assert_eq!(number(host.rows.get("hot").unwrap()), 3);
    assert_eq!(runs.load(Relaxed), 6, "three at first, then two, then one");
    let store = host.handoff.stats().store;
    assert_eq!((store.transactions, store.conflicts), (1 + 1 + 3, 3));
    let groups = host.handoff.stats().store.groups - before;
    assert!(groups <= 4, "{groups} groups");
    let mut waiting = host.waiting().await;
    waiting.remove(0);
    assert_eq!(
        waiting,
        ["0", "1", "2"],
        "hints in the order of what they tell of"
    );
    host.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_come_through_however_many_want_the_same_row() {
    let dir = tempfile::tempdir().unwrap();
    let host = Arc::new(Host::open(&dir.path().join("db")).await);
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let host = Arc::clone(&host);
            tokio::spawn(async move {
                for _ in 0..10 {
                    host.count("hot").await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(host.rows.get("hot").unwrap()), 320);
    let expected: Vec<String> = (0..320).map(|number| number.to_string()).collect();
    assert_eq!(host.waiting().await, expected);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn rows_that_somebody_changes_directly_each_time_are_told_as_contended() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut runs = 0_u32;
    let contended = host.handoff.transaction(&[&host.rows], |rows, hints| {
        rows[0].get("fought over")?;
        runs += 1;
        host.rows.insert("fought over", &runs.to_be_bytes())?;
        hints.enqueue(MANUAL, SHARD, &"never".into())?;
        Ok(())
    });
    match contended.await {
        Err(TransactionError::Contended { attempts, .. }) => assert_eq!(attempts, 16),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.pending(MANUAL), 0);
    host.close().await;
}

#[tokio::test]
async fn the_answer_comes_when_it_is_durable_or_when_it_is_seen() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            durability,
            ..config(&dir.path().join("db"))
        };
        let host = Host::open_as(config).await;
        host.handoff.inject(CommitFault::Hang);
        let mut writing = Box::pin(host.handoff.transaction(&[&host.rows], |rows, hints| {
            rows[0].insert("ada", "countess")?;
            hints.enqueue(MANUAL, SHARD, &"hint".into())?;
            Ok(())
        }));
        match durability {
            // However long that takes on a busy machine; the commit hangs all the while.
            Durability::Buffered => drop(writing.as_mut().await.unwrap()),
            _ => {
                let seen = async {
                    while host.row("ada").is_none() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    answer = &mut writing => panic!("it is not durable: {answer:?}"),
                    () = seen => {}
                }
            }
        }
        assert_eq!(host.row("ada").as_deref(), Some("countess"));
        assert_eq!(
            host.pending(MANUAL),
            0,
            "hints are seen when they are durable"
        );
        host.handoff.inject(CommitFault::None);
        if durability == Durability::Sync {
            writing.as_mut().await.unwrap();
        }
        drop(writing);
        host.handoff.sync().await.unwrap();
        assert_eq!(host.pending(MANUAL), 1);
        host.close().await;
    }
}

#[tokio::test]
async fn a_caller_who_gives_up_withdraws_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    host.handoff.inject(CommitFault::Hang);
    let writing = host.handoff.transaction(&[&host.rows], |rows, hints| {
        rows[0].insert("ada", "countess")?;
        hints.enqueue(MANUAL, SHARD, &"hint".into())?;
        Ok(())
    });
    assert!(tokio::time::timeout(SOON, writing).await.is_err());
    host.handoff.inject(CommitFault::None);
    host.handoff.sync().await.unwrap();
    assert_eq!(host.row("ada").as_deref(), Some("countess"));
    assert_eq!(host.waiting().await, ["hint"]);
    host.close().await;
}

#[tokio::test]
async fn a_commit_that_fails_leaves_the_outcome_unknown_and_the_host_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    assert_eq!(host.count("counted").await, 0);
    // While the commit thread is held up, two gather to a group: one that adds a row, and one that
    // only looks.
    host.handoff.inject(CommitFault::Hang);
    let held = {
        let (handoff, mut batch) = (host.handoff.clone(), RowBatch::new());
        batch.insert(&host.rows, "held", "up").unwrap();
        tokio::spawn(async move { handoff.apply(batch).await })
    };
    while host.row("held").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let add = || {
        host.handoff.transaction(&[&host.rows], |rows, _| {
            Ok(rows[0].insert("ada", "countess")?)
        })
    };
    let looks = AtomicU32::new(0);
    let look = host.handoff.transaction(&[&host.rows], |rows, _| {
        looks.fetch_add(1, Relaxed);
        Ok(rows[0].get("eve")?)
    });
    let release = async {
        while looks.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        host.handoff.inject(CommitFault::Fail);
    };
    let (failed, looked, ()) = tokio::join!(add(), look, release);
    held.await.unwrap().unwrap();
    let failed = failed.unwrap_err();
    assert_eq!(failed.outcome(), FailedOutcome::Unknown, "{failed}");
    let looked = looked.unwrap_err();
    assert_eq!(looked.outcome(), FailedOutcome::Refused, "{looked}");
    let refused = add().await.unwrap_err();
    assert_eq!(refused.outcome(), FailedOutcome::Refused, "{refused}");
    assert!(matches!(host.handoff.health(), Health::ReopenRequired(_)));
    host.handoff.inject(CommitFault::None);
    tokio::time::sleep(SOON).await;
    let still = add().await.unwrap_err();
    assert!(
        matches!(
            still,
            TransactionError::Enqueue(EnqueueError::StoreFailed(_))
        ),
        "{still}"
    );
    assert!(host.handoff.shutdown().await.is_err(), "not a clean one");
    drop(host);
    let host = Host::open(&path).await;
    assert_eq!(host.count("counted").await, 1);
    assert_eq!(host.handoff.stats().store.damage, []);
    host.close().await;
}

/// Transactions, plain writes and a store that is closed and opened give one numbering.
#[tokio::test]
async fn sequences_have_no_gaps_whoever_gives_them_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut expected = 0;
    for _ in 0..3 {
        let host = Host::open(&path).await;
        for _ in 0..5 {
            expected += 1;
            assert_eq!(host.hint(NodeId(9), "plain").await.sequence.0, expected);
            let two = host.handoff.transaction(&[&host.rows], |rows, hints| {
                rows[0].insert("last", &expected.to_be_bytes())?;
                hints.enqueue(NodeId(9), SHARD, &"one".into())?;
                hints.enqueue(NodeId(9), SHARD, &"two".into())?;
                Ok(())
            });
            let ids = two.await.unwrap().hints;
            let given: Vec<u64> = ids.iter().map(|id| id.sequence.0).collect();
            assert_eq!(given, [expected + 1, expected + 2]);
            expected += 2;
            let aborted = host.handoff.transaction(&[&host.rows], |rows, hints| {
                rows[0].get("last")?;
                hints.enqueue(NodeId(9), SHARD, &"never".into())?;
                Err::<(), _>(Abort::new("changed its mind"))
            });
            assert!(aborted.await.is_err());
        }
        host.close().await;
    }
}
