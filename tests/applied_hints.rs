//! The receiving side: a hint that comes several times is applied once, and what need not be known any more is forgotten.

mod hosting;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    AppliedHints, HintId, HintedHandoff, NodeId, QueueId, Sequence, ShardId, ShardWrite,
    ShardWriter, StoreId, TransactionError, WriteError,
    sled::{self, Transactional, transaction::ConflictableTransactionError},
};
use hosting::{Host, copy, number};

const STORE: StoreId = StoreId([7; 16]);

fn hint(queue: u64, sequence: u64) -> HintId {
    HintId {
        store: STORE,
        queue: QueueId(queue),
        sequence: Sequence(sequence),
    }
}

/// A node that counts what it applies.
struct Receiver {
    host: Host,
    applied: AppliedHints,
}

impl Receiver {
    async fn open(dir: &Path) -> Receiver {
        let host = Host::open(dir).await;
        let applied = AppliedHints::open(&host.db).unwrap();
        Receiver { host, applied }
    }

    async fn apply(&self, hint: HintId, shard: u64) -> Result<bool, TransactionError> {
        let trees = [&self.host.rows, self.applied.tree()];
        let applied = self.host.handoff.transaction(&trees, |rows, _| {
            if !self
                .applied
                .apply_once(&mut rows[1], hint, ShardId(shard))?
            {
                return Ok(false);
            }
            let count = number(rows[0].get("count")?);
            rows[0].insert("count", &(count + 1).to_be_bytes())?;
            Ok(true)
        });
        Ok(applied.await?.value)
    }

    /// The tree of marks keeps the database open too.
    async fn close(self) {
        drop(self.applied);
        self.host.close().await;
    }

    fn count(&self) -> u64 {
        number(self.host.rows.get("count").unwrap())
    }
}

#[tokio::test]
async fn a_hint_is_applied_once_however_often_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let receiver = Receiver::open(&path).await;
    for (queue, sequence, shard, is_new) in [
        (1, 1, 1, true),
        (1, 1, 1, false),
        (1, 2, 2, true),
        (1, 3, 1, true),
        (1, 2, 2, false),
        (2, 1, 1, true),
        (1, 1, 1, false),
    ] {
        let applied = receiver.apply(hint(queue, sequence), shard).await;
        assert_eq!(applied.unwrap(), is_new, "{queue} {sequence} {shard}");
    }
    let other_store = HintId {
        store: StoreId([8; 16]),
        ..hint(1, 1)
    };
    assert!(receiver.apply(other_store, 1).await.unwrap());
    assert_eq!(receiver.count(), 5);
    receiver.close().await;
    let receiver = Receiver::open(&path).await;
    assert!(
        !receiver.apply(hint(1, 3), 1).await.unwrap(),
        "known after a restart too"
    );
    receiver.close().await;
}

#[tokio::test]
async fn mark_and_rows_are_there_as_one_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let receiver = Receiver::open(&path).await;
    assert!(receiver.apply(hint(1, 1), 1).await.unwrap());
    copy(&path, &killed);
    let again = Receiver::open(&killed).await;
    assert!(!again.apply(hint(1, 1), 1).await.unwrap());
    assert_eq!(again.count(), 1);
    receiver.close().await;
    again.close().await;
}

#[tokio::test]
async fn marks_of_retired_queues_are_forgotten_and_what_comes_late_of_them_is_not_new() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::open(&dir.path().join("db")).await;
    for queue in 1..=3 {
        for shard in 1..=4 {
            assert!(receiver.apply(hint(queue, shard), shard).await.unwrap());
        }
    }
    let marks = receiver.applied.tree();
    assert_eq!(marks.len(), 12);
    let retired = receiver.applied.retired(STORE, QueueId(3)).unwrap();
    receiver.host.handoff.apply(retired).await.unwrap();
    assert_eq!(marks.len(), 4 + 1, "those of queue 3, and the floor");
    assert!(
        receiver
            .applied
            .retired(STORE, QueueId(3))
            .unwrap()
            .is_empty()
    );
    assert!(
        receiver
            .applied
            .retired(StoreId([8; 16]), QueueId(9))
            .unwrap()
            .is_empty()
    );
    assert!(
        !receiver.apply(hint(2, 9), 1).await.unwrap(),
        "it comes late"
    );
    assert!(receiver.apply(hint(3, 9), 1).await.unwrap());
    assert_eq!(receiver.count(), 13);
    receiver.close().await;
}

/// A node whose database holds nothing of ours but the marks.
#[test]
fn it_works_in_a_transaction_of_sleds() {
    let dir = tempfile::tempdir().unwrap();
    let db = sled::open(dir.path().join("db")).unwrap();
    let (rows, applied) = (
        db.open_tree("rows").unwrap(),
        AppliedHints::open(&db).unwrap(),
    );
    let apply = |hint: HintId, shard: u64| {
        (&rows, applied.tree()).transaction(|(rows, marks)| {
            if !applied.apply_once_in_sled(marks, hint, ShardId(shard))? {
                return Ok(false);
            }
            let count = number(rows.get("count")?);
            rows.insert("count", &(count + 1).to_be_bytes())?;
            Ok::<bool, ConflictableTransactionError>(true)
        })
    };
    let marks = 1500;
    for shard in 0..marks {
        assert!(apply(hint(1, shard + 1), shard).unwrap());
        assert!(!apply(hint(1, shard + 1), shard).unwrap());
    }
    assert_eq!(number(rows.get("count").unwrap()), marks);
    assert_eq!(applied.prune(STORE, QueueId(2)), Ok(1000), "bounded");
    assert_eq!(applied.prune(STORE, QueueId(2)), Ok(500));
    assert_eq!(applied.prune(STORE, QueueId(2)), Ok(0));
    assert!(!apply(hint(1, 9999), 1).unwrap());
}

#[tokio::test]
async fn a_damaged_mark_is_an_error_and_no_new_hint() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::open(&dir.path().join("db")).await;
    assert!(receiver.apply(hint(1, 1), 1).await.unwrap());
    let marks = receiver.applied.tree();
    let (key, value) = marks.first().unwrap().unwrap();
    marks.insert(&key, &value[1..]).unwrap();
    let read = receiver.apply(hint(1, 2), 1).await;
    assert!(matches!(read, Err(TransactionError::Read(_))), "{read:?}");
    assert_eq!(receiver.count(), 1);
    receiver.close().await;
}

/// A hint that came, and the queue below which all may be forgotten.
type Got = (HintId, Option<QueueId>);

#[derive(Clone, Default)]
struct Node(Arc<Mutex<Vec<Got>>>);

impl ShardWriter<Bytes> for Node {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let mut seen = self.0.lock().unwrap();
        let hints = write.batches.iter().filter_map(|batch| batch.hint);
        seen.extend(hints.map(|hint| (hint, write.retired_below)));
        Ok(())
    }
}

impl Node {
    async fn got(&self, hints: usize) -> Vec<Got> {
        while self.0.lock().unwrap().len() < hints {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.0.lock().unwrap().clone()
    }
}

/// After a kill a node's old queue is drained and retired: only when that is durable its receiver may forget it.
#[tokio::test]
async fn a_sender_says_which_queues_are_retired_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    let old = host.hint(NodeId(5), "old").await.queue;
    copy(&path, &killed);
    host.close().await;
    let db = hosting::open_db(&killed);
    let node = Node::default();
    let handoff = HintedHandoff::open_in(&db, hosting::config(&killed), node.clone()).await;
    let handoff = handoff.unwrap();
    let write = async |points: &'static str| {
        let points = Bytes::from_static(points.as_bytes());
        handoff
            .write_shard(ShardId(1), NodeId(5), &points)
            .await
            .unwrap();
    };
    let got = node.got(1).await;
    assert_eq!(got, [(hint_of(&got, old), Some(old))]);
    handoff.sync().await.unwrap();
    write("new").await;
    let got = node.got(2).await;
    let (new, retired_below) = got[1];
    assert!(new.queue > old);
    assert_eq!(
        retired_below,
        Some(new.queue),
        "the old queue's retiring is durable"
    );
    handoff.shutdown().await.unwrap();
}

fn hint_of(got: &[Got], queue: QueueId) -> HintId {
    HintId {
        queue,
        sequence: Sequence(1),
        ..got[0].0
    }
}
