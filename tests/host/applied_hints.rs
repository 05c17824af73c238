//! The receiving side: a hint that comes several times is applied once, and what need not be known
//! any more is forgotten.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    copy::copy_files,
    hosting,
    hosting::{Host, number},
};
use bytes::Bytes;
use hinted_handoff::{
    Abort, AppliedHints, Batch, HintId, HintedHandoff, NodeId, QueueId, Sequence, ShardId,
    ShardWrite, ShardWriter, StoreId, TransactionError, WriteError,
    sled::{
        self, Transactional,
        transaction::{ConflictableTransactionError, TransactionError as SledError},
    },
};

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

    async fn forget(&self, retired_below: QueueId) {
        let forgotten = self
            .host
            .handoff
            .transaction(&[self.applied.tree()], |rows, _| {
                Ok(self
                    .applied
                    .forget_retired(&mut rows[0], STORE, retired_below)?)
            });
        forgotten.await.unwrap();
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
    copy_files(&path, &killed);
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
    receiver.forget(QueueId(3)).await;
    assert_eq!(marks.len(), 4 + 1, "those of queue 3, and the floor");
    receiver.forget(QueueId(2)).await;
    assert_eq!(marks.len(), 4 + 1, "what is said late takes nothing back");
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
    let forget = |below| applied.forget_retired_in_sled(STORE, QueueId(below));
    assert_eq!((forget(2), forget(2)), (Ok(1000), Ok(500)), "bounded");
    assert_eq!(forget(1), Ok(0), "what is said late takes nothing back");
    assert!(!apply(hint(1, 9999), 1).unwrap());
    assert!(apply(hint(2, 1), 1).unwrap());
}

#[tokio::test]
async fn many_marks_are_forgotten_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::open(&dir.path().join("db")).await;
    for shard in 1..=150 {
        assert!(receiver.apply(hint(1, shard), shard).await.unwrap());
    }
    let marks = receiver.applied.tree().clone();
    for left in [50, 0, 0] {
        receiver.forget(QueueId(2)).await;
        assert_eq!(marks.len(), left + 1, "and the floor");
    }
    drop(marks);
    receiver.close().await;
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

/// A delivery of hints 1 to `through` of a queue.
fn delivery(queue: u64, through: u64, retired_below: u64) -> ShardWrite<Bytes> {
    let batches = (1..=through).map(|sequence| {
        let mut batch = Batch::new(Bytes::from(sequence.to_string()));
        batch.hint = Some(hint(queue, sequence));
        batch
    });
    let mut write = ShardWrite::new(NodeId(5), ShardId(1), batches.collect());
    write.retired_below = Some(QueueId(retired_below));
    write
}

fn texts(batches: &[&Batch<Bytes>]) -> Vec<String> {
    let texts = batches
        .iter()
        .map(|it| String::from_utf8(it.points.to_vec()));
    texts.map(Result::unwrap).collect()
}

#[tokio::test]
async fn one_call_tells_what_of_a_delivery_is_new_and_forgets_what_is_retired() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::open(&dir.path().join("db")).await;
    let take = async |write: &ShardWrite<Bytes>, fails: bool| {
        let trees = [receiver.applied.tree()];
        let taken = receiver.host.handoff.transaction(&trees, |rows, _| {
            let new = texts(&receiver.applied.take_new(&mut rows[0], write)?);
            match fails {
                true => Err(Abort::new("the host gives up")),
                false => Ok(new),
            }
        });
        taken.await.map(|committed| committed.value)
    };
    let nothing = Vec::<String>::new();
    take(&delivery(1, 2, 1), true).await.unwrap_err();
    assert_eq!(take(&delivery(1, 2, 1), false).await.unwrap(), ["1", "2"]);
    assert_eq!(take(&delivery(1, 2, 1), false).await.unwrap(), nothing);
    assert_eq!(take(&delivery(1, 3, 1), false).await.unwrap(), ["3"]);
    let marks = receiver.applied.tree().clone();
    assert_eq!(marks.len(), 2, "a mark and the floor");
    assert_eq!(take(&delivery(2, 1, 2), false).await.unwrap(), ["1"]);
    assert_eq!(marks.len(), 2, "that of queue 1 is forgotten");
    // It comes late, from before the first queue was retired.
    assert_eq!(take(&delivery(1, 9, 1), false).await.unwrap(), nothing);
    let direct = ShardWrite::new(NodeId(5), ShardId(1), vec![Batch::new("direct".into())]);
    for _ in 0..2 {
        assert_eq!(take(&direct, false).await.unwrap(), ["direct"]);
    }
    drop(marks);
    receiver.close().await;
}

#[test]
fn one_call_takes_a_delivery_into_a_database_that_no_store_shares() {
    let dir = tempfile::tempdir().unwrap();
    let db = hosting::open_db(&dir.path().join("db"));
    let (rows, applied) = (
        db.open_tree("rows").unwrap(),
        AppliedHints::open(&db).unwrap(),
    );
    let take = |write: &ShardWrite<Bytes>, fails: bool| {
        applied.apply_in_sled(&db, &[&rows], write, |trees, new| {
            for batch in new {
                trees[0].insert(&batch.points[..], "applied")?;
            }
            match fails {
                true => Err(ConflictableTransactionError::Abort("the host gives up")),
                false => Ok(texts(new)),
            }
        })
    };
    let aborted = take(&delivery(1, 2, 1), true).unwrap_err();
    assert_eq!(aborted, SledError::Abort("the host gives up"));
    assert_eq!((rows.len(), applied.tree().len()), (0, 0));
    assert_eq!(take(&delivery(1, 2, 1), false).unwrap(), ["1", "2"]);
    assert_eq!(take(&delivery(1, 3, 1), false).unwrap(), ["3"]);
    assert_eq!(rows.len(), 3);
    assert_eq!(applied.tree().len(), 2, "a mark and the floor");
    assert_eq!(take(&delivery(2, 1, 2), false).unwrap(), ["1"]);
    assert_eq!(applied.tree().len(), 2, "that of queue 1 is forgotten");
    assert!(take(&delivery(1, 9, 1), false).unwrap().is_empty());
}

/// A hint that came, and the queue below which all may be forgotten.
type Got = (HintId, Option<QueueId>);

/// Takes what it is sent, but for what is sent to node 6.
#[derive(Clone, Default)]
struct Node(Arc<Mutex<Vec<Got>>>);

impl ShardWriter<Bytes> for Node {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        if write.node == NodeId(6) {
            return Err(WriteError::retry("it is down"));
        }
        let mut seen = self.0.lock().unwrap();
        let hints = write.batches.iter().filter_map(|batch| batch.hint);
        seen.extend(hints.map(|hint| (hint, write.retired_below)));
        Ok(())
    }
}

/// After a kill a node's old queue is drained and retired. Only when that is durable, and no lower
/// one of any node is left, may receivers forget it.
#[tokio::test]
async fn a_sender_says_which_queues_are_retired_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    let lowest = host.hint(NodeId(6), "for another node").await.queue;
    let old = host.hint(NodeId(5), "old").await.queue;
    copy_files(&path, &killed);
    host.close().await;
    let db = hosting::open_db(&killed);
    let node = Node::default();
    let handoff = HintedHandoff::open_in(&db, hosting::config(&killed), node.clone()).await;
    let handoff = handoff.unwrap();
    let delivered = async || {
        let waits = || {
            let nodes = handoff.stats().nodes;
            nodes
                .iter()
                .any(|it| it.node == NodeId(5) && it.pending.hints > 0)
        };
        while waits() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Its acknowledgement is durable, and so is the retiring of a queue that it was the last
        // of.
        handoff.sync().await.unwrap();
        node.0.lock().unwrap().pop().unwrap()
    };
    let (first, retired_below) = delivered().await;
    assert_eq!((first.queue, retired_below), (old, Some(lowest)));
    handoff.remove_node(NodeId(6)).await.unwrap();
    let points = Bytes::from_static(b"new");
    handoff
        .write_shard(NodeId(5), ShardId(1), &points)
        .await
        .unwrap();
    let (second, retired_below) = delivered().await;
    assert!(second.queue > old);
    assert_eq!(retired_below, Some(second.queue));
    handoff.shutdown().await.unwrap();
}
