//! Transactions that lose again and again.
//!
//! Goal: whoever keeps losing runs alone in the end, while all others wait, and then it can only
//! lose to writes that went past the handoff, which it is told of. Method: closures that have their
//! own rows changed while they run, by other transactions or directly.

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Config, HintedHandoff, NodeId, Sequence, ShardId, ShardWrite, ShardWriter, TransactionError,
    WriteError, database_config, open_database, sled::Tree,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Runs beside others, as `transaction` says.
const BESIDE_OTHERS: u32 = 8;
/// Runs in all.
const RUNS_MAX: u32 = 16;
/// Long enough for a transaction that need not wait.
const A_WHILE: Duration = Duration::from_millis(100);

struct Nobody;

impl ShardWriter<Bytes> for Nobody {
    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        Err(WriteError::retry("nobody is there"))
    }
}

struct Host {
    handoff: HintedHandoff<Bytes>,
    tree: Tree,
    _runtime: Runtime,
    _dir: TempDir,
}

fn host() -> Host {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
    let config = Config {
        min_free_disk: 0,
        ..Config::new(dir.path().join("db"))
    };
    let db = open_database(&database_config(&config.dir)).unwrap();
    let tree = db.open_tree("counters").unwrap();
    let on = runtime.handle().clone();
    let handoff = HintedHandoff::open_in_blocking(&db, config, Nobody, on).unwrap();
    Host {
        handoff,
        tree,
        _runtime: runtime,
        _dir: dir,
    }
}

impl Host {
    /// Adds one to the counter; returns what it was.
    fn increase(&self) -> u64 {
        let committed = self.handoff.transaction_blocking(&[&self.tree], |rows, _| {
            let count = decode(rows[0].get("count")?);
            rows[0].insert("count", &(count + 1).to_be_bytes())?;
            Ok(count)
        });
        committed.unwrap().value
    }
}

fn decode(value: Option<hinted_handoff::sled::IVec>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()))
}

#[test]
fn rows_that_are_changed_directly_each_time_are_told_and_nothing_is_left_behind() {
    let host = host();
    let mut runs = 0_u64;
    let contended = host
        .handoff
        .transaction_blocking(&[&host.tree], |rows, hints| {
            rows[0].get("count")?;
            rows[0].insert("mine", "written")?;
            hints.enqueue(NodeId(1), ShardId(1), &Bytes::from("points"))?;
            runs += 1;
            host.tree.insert("count", &runs.to_be_bytes())?;
            Ok(())
        });
    let is_it = matches!(
        contended,
        Err(TransactionError::Contended {
            attempts: RUNS_MAX,
            ..
        })
    );
    assert!(is_it, "{contended:?}");
    assert_eq!(runs, u64::from(RUNS_MAX));
    assert_eq!(host.tree.get("mine").unwrap(), None);

    let enqueue = |hints: &mut hinted_handoff::Hints<'_, Bytes>| {
        hints.enqueue(NodeId(1), ShardId(1), &Bytes::from("points"))
    };
    let next = host
        .handoff
        .transaction_blocking(&[&host.tree], |_, hints| Ok(enqueue(hints)?));
    assert_eq!(next.unwrap().hints[0].sequence, Sequence(1));
}

#[test]
fn direct_changes_that_end_in_time_let_it_come_into_effect() {
    let host = host();
    let mut runs = 0;
    let committed = host.handoff.transaction_blocking(&[&host.tree], |rows, _| {
        runs += 1;
        let seen = decode(rows[0].get("count")?);
        if runs < RUNS_MAX {
            host.tree.insert("count", &u64::from(runs).to_be_bytes())?;
        }
        Ok(seen)
    });
    assert_eq!(committed.unwrap().value, u64::from(RUNS_MAX - 1));
    assert_eq!(runs, RUNS_MAX);
    assert_eq!(host.increase(), u64::from(RUNS_MAX - 1), "others go on");
}

#[test]
fn who_keeps_losing_runs_alone_while_all_others_wait() {
    let host = host();
    let (runs, waited) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        let mut behind = None;
        let committed = host.handoff.transaction_blocking(&[&host.tree], |rows, _| {
            let count = decode(rows[0].get("count")?);
            if runs.fetch_add(1, SeqCst) < BESIDE_OTHERS {
                scope.spawn(|| host.increase()).join().unwrap();
            } else {
                let waiting = scope.spawn(|| {
                    let before = host.increase();
                    waited.store(1, SeqCst);
                    before
                });
                thread::sleep(A_WHILE);
                assert_eq!(waited.load(SeqCst), 0, "another ran beside it");
                behind = Some(waiting);
            }
            rows[0].insert("count", &(count + 100).to_be_bytes())?;
            Ok(count)
        });
        assert_eq!(committed.unwrap().value, u64::from(BESIDE_OTHERS));
        let before = behind.unwrap().join().unwrap();
        assert_eq!(
            before,
            u64::from(BESIDE_OTHERS) + 100,
            "it came before its turn"
        );
    });
    assert_eq!(runs.into_inner(), BESIDE_OTHERS + 1);
    assert_eq!(host.increase(), u64::from(BESIDE_OTHERS) + 101);
}

#[test]
fn counters_that_many_increase_at_once_miss_none() {
    const THREADS: u64 = 8;
    const TIMES: u64 = 25;
    let host = host();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..TIMES).for_each(|_| assert!(host.increase() < THREADS * TIMES)));
        }
    });
    assert_eq!(host.increase(), THREADS * TIMES);
}
