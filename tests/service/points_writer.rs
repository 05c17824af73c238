//! Fan-out: every level against every mix of owners, with what became of the ones that missed the
//! write.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common;
use bytes::Bytes;
use hinted_handoff::{
    Config,
    ConsistencyLevel::{self, All, Any, One, Quorum},
    EnqueueError, HintedHandoff, NodeId, OwnerError, PointsWriteError, PointsWriter, Pong, Shard,
    ShardId, ShardWrite, ShardWriter, WriteError, WriteOrdering, WriteOutcome,
    internals::CommitFault,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tokio::sync::mpsc;

struct Cluster {
    handoff: HintedHandoff<Bytes>,
    points_writer: PointsWriter<Bytes, Arc<ScriptedWriter>>,
    writer: Arc<ScriptedWriter>,
    replies: Arc<Mutex<HashMap<u64, Reply>>>,
    shard: Shard,
    _dir: tempfile::TempDir,
}

/// Owners 1, 2, ... which answer direct writes as given; replay finds them all down.
async fn cluster(replies: &[Reply]) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        write_timeout: Duration::from_millis(100),
        ..common::config(dir.path())
    };
    let owners: HashMap<u64, Reply> = (1..).zip(replies.iter().copied()).collect();
    let mut nodes: Vec<_> = owners.keys().copied().map(NodeId).collect();
    nodes.sort();
    let replies = Arc::new(Mutex::new(owners));
    let answers = Arc::clone(&replies);
    let writer = ScriptedWriter::new(move |write| answers.lock().unwrap()[&write.node.0]);
    let writer = Arc::new(writer.with_pings(|_| Reply::Retry));
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    Cluster {
        points_writer: PointsWriter::new(handoff.clone(), Arc::clone(&writer)),
        handoff,
        writer,
        replies,
        shard: Shard {
            id: ShardId(7),
            owners: nodes,
        },
        _dir: dir,
    }
}

impl Cluster {
    async fn write(&self, level: ConsistencyLevel) -> Result<WriteOutcome, PointsWriteError> {
        let writing = self
            .points_writer
            .write(&self.shard, level, Bytes::from_static(b"cpu v=1"));
        tokio::time::timeout(Duration::from_secs(30), writing)
            .await
            .expect("a write hangs")
    }

    /// Hints a node has, once every owner's fate is known.
    async fn hinted(&self, expected: u64) {
        for _ in 0..2000 {
            let nodes = self.handoff.stats().nodes;
            if nodes.iter().map(|node| node.pending.hints).sum::<u64>() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{expected} hints wanted: {:?}", self.handoff.stats());
    }
}

const UP: Reply = Reply::Take;
const DOWN: Reply = Reply::Retry;

#[tokio::test]
async fn a_level_is_reached_by_so_many_owners_and_every_one_that_missed_it_is_hinted() {
    // Which owners are up, the level, whether it is reached, hints made. As InfluxDB's
    // TestPointsWriter_WritePoints.
    let table: [(&[Reply], ConsistencyLevel, bool, u64); 17] = [
        (&[UP], One, true, 0),
        (&[DOWN], One, false, 1),
        (&[DOWN], Any, true, 1),
        (&[UP, DOWN, DOWN], Any, true, 2),
        (&[UP, DOWN, DOWN], One, true, 2),
        (&[DOWN, DOWN, UP], One, true, 2),
        (&[UP, UP, UP], All, true, 0),
        (&[UP, UP, DOWN], All, false, 1),
        (&[UP, DOWN, DOWN], All, false, 2),
        (&[UP, UP, DOWN], Quorum, true, 1),
        (&[UP, UP, UP], Quorum, true, 0),
        (&[UP, DOWN, DOWN], Quorum, false, 2),
        (&[DOWN, DOWN, DOWN], Quorum, false, 3),
        // Of an even number a half is no majority.
        (&[UP, DOWN], Quorum, false, 1),
        (&[UP, UP, DOWN, DOWN], Quorum, false, 2),
        (&[UP, UP, UP, DOWN], Quorum, true, 1),
        (&[DOWN, DOWN, DOWN], Any, true, 3),
    ];
    for (replies, level, reached, hints) in table {
        let cluster = cluster(replies).await;
        let outcome = cluster.write(level).await;
        assert_eq!(
            outcome.is_ok(),
            reached,
            "{replies:?} at {level:?}: {outcome:?}"
        );
        cluster.hinted(hints).await;
        cluster.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn written_queued_partial_timed_out_refused_and_failed_are_told_apart_by_type() {
    let cases: [(&[Reply], ConsistencyLevel, &str); 8] = [
        (&[UP, UP, DOWN], Quorum, "written"),
        (&[DOWN, DOWN, DOWN], Any, "queued"),
        (&[UP, DOWN, Reply::Reject], Quorum, "partial"),
        (&[Reply::Hang, Reply::Hang, Reply::Hang], One, "timed out"),
        (&[Reply::Reject, DOWN, DOWN], Quorum, "refused"),
        (&[Reply::Obsolete], One, "refused"),
        (&[DOWN, Reply::Hang, DOWN], One, "failed"),
        (&[Reply::Panic, DOWN, DOWN], One, "failed"),
    ];
    for (replies, level, expected) in cases {
        let cluster = cluster(replies).await;
        let outcome = cluster.write(level).await;
        let found = match &outcome {
            Ok(WriteOutcome::Written { owners: 2 }) => "written",
            Ok(WriteOutcome::Queued { owners: 3 }) => "queued",
            Err(PointsWriteError::PartiallyWritten(tally)) => {
                assert_eq!(
                    (tally.written, tally.hinted, tally.owners, tally.required),
                    (1, 1, 3, 2)
                );
                "partial"
            }
            Err(PointsWriteError::TimedOut(tally)) => {
                assert_eq!((tally.written, tally.hinted), (0, 3));
                assert!(matches!(tally.cause, OwnerError::TimedOut(_)));
                "timed out"
            }
            Err(PointsWriteError::Refused(_)) => "refused",
            Err(PointsWriteError::Failed(tally)) => {
                assert_eq!((tally.written, tally.hinted), (0, 3));
                "failed"
            }
            other => panic!("{replies:?}: {other:?}"),
        };
        assert_eq!(found, expected, "{replies:?} at {level:?}");
        cluster.handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn the_first_cause_is_kept_down_to_what_the_host_said() {
    let cluster = cluster(&[UP, Reply::Reject, DOWN]).await;
    let error = cluster.write(All).await.unwrap_err();
    let mut texts = vec![error.to_string()];
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    let text = texts.join(": ");
    assert!(
        text.contains("1 of 3 owners have it, 3 were asked for; 1 more are hinted"),
        "{text}"
    );
    assert!(text.contains("scripted: "), "{text}");
    cluster.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_hint_that_could_not_be_stored_is_never_success() {
    let cluster = cluster(&[DOWN, DOWN, DOWN]).await;
    cluster.handoff.inject(CommitFault::Fail);
    let error = cluster.write(Any).await.unwrap_err();
    let PointsWriteError::NotStored(tally) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(
        tally.cause,
        OwnerError::NotHinted {
            hint: EnqueueError::Unknown(_) | EnqueueError::StoreFailed(_),
            ..
        }
    ));
    assert_eq!(cluster.handoff.stats().writes.unstored, 3);
    let _ = cluster.handoff.shutdown().await;
}

#[tokio::test]
async fn dropping_the_future_of_a_write_leaves_its_hints_being_made() {
    let cluster = cluster(&[Reply::Hang, Reply::Hang, Reply::Hang]).await;
    let writing = cluster.write(All);
    // The client gives up long before the owners' timeout.
    assert!(
        tokio::time::timeout(Duration::from_millis(20), writing)
            .await
            .is_err()
    );
    cluster.hinted(3).await;
    cluster.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_level_that_is_reached_does_not_wait_for_the_slow() {
    let cluster = cluster(&[UP, UP, Reply::Hang]).await;
    let before = std::time::Instant::now();
    let outcome = cluster.write(Quorum).await.unwrap();
    assert_eq!(outcome, WriteOutcome::Written { owners: 2 });
    // Not a timing: the third owner's fate is known only after its timeout, and no hint is there
    // yet.
    assert!(
        cluster.handoff.stats().writes.hinted == 0
            || before.elapsed() >= Duration::from_millis(100)
    );
    cluster.hinted(1).await;
    cluster.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn bad_owners_and_bad_points_are_refused_before_anything_is_sent() {
    let mut cluster = cluster(&[UP, UP]).await;
    for points in [Bytes::new(), Bytes::from(vec![0; (16 << 20) + 1])] {
        let error = cluster
            .points_writer
            .write(&cluster.shard, One, points)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            PointsWriteError::BadPoints(
                EnqueueError::EmptyPoints | EnqueueError::EntryTooLarge { .. }
            )
        ));
    }
    cluster.shard.owners = vec![NodeId(1), NodeId(2), NodeId(1)];
    assert!(matches!(
        cluster.write(One).await,
        Err(PointsWriteError::BadOwners {
            problem: "an owner twice",
            ..
        })
    ));
    cluster.shard.owners.clear();
    assert!(matches!(
        cluster.write(Any).await,
        Err(PointsWriteError::BadOwners {
            problem: "no owner",
            ..
        })
    ));
    assert!(cluster.writer.seen().is_empty());
    cluster.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_hinted_arrives_when_the_owner_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_interval: Duration::from_millis(5),
        retry_max_interval: Duration::from_millis(20),
        ..common::config(dir.path())
    };
    let writer = Arc::new(ScriptedWriter::new(|_| DOWN));
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    let points_writer = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    let shard = Shard {
        id: ShardId(7),
        owners: vec![NodeId(1), NodeId(2), NodeId(3)],
    };
    for text in ["a", "b", "c"] {
        points_writer
            .write(&shard, Any, Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
    }
    writer.follow(|_| UP);
    tokio::time::timeout(Duration::from_secs(30), writer.until_taken(9))
        .await
        .unwrap();
    for node in 1..=3 {
        let taken = writer
            .seen()
            .into_iter()
            .filter(|it| it.node == NodeId(node) && it.reply == UP);
        let texts: Vec<_> = taken.flat_map(|it| it.points).collect();
        assert_eq!(texts, ["a", "b", "c"], "node {node}, in order");
    }
    handoff.shutdown().await.unwrap();
}

#[test]
fn a_thread_without_a_runtime_writes_too() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let cluster = runtime.block_on(cluster(&[UP, UP, DOWN]));
    let outcome =
        cluster
            .points_writer
            .write_blocking(&cluster.shard, Quorum, Bytes::from_static(b"x"));
    assert_eq!(outcome.unwrap(), WriteOutcome::Written { owners: 2 });
    runtime.block_on(cluster.hinted(1));
    cluster.replies.lock().unwrap().insert(3, UP);
    cluster.handoff.shutdown_blocking().unwrap();
}

/// A direct write is one batch: what took none of it failed in a way that is worth a retry, what
/// took it took all of it.
#[tokio::test]
async fn a_direct_write_that_is_taken_in_part_is_taken_or_hinted() {
    let cluster = cluster(&[Reply::Partial(1), Reply::Partial(0), Reply::Partial(2)]).await;
    let error = cluster.write(All).await.unwrap_err();
    let PointsWriteError::PartiallyWritten(tally) = error else {
        panic!("{error:?}");
    };
    assert_eq!((tally.written, tally.hinted), (2, 1));
    assert_eq!(tally.node, NodeId(2));
    cluster.hinted(1).await;
}

/// Answers only when it is let, and cannot be stopped before.
struct Unstoppable {
    began: mpsc::UnboundedSender<()>,
    may_end: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl ShardWriter<Bytes> for Unstoppable {
    /// Nothing but direct writes.
    async fn ping(&self, _: NodeId) -> Result<Pong, WriteError> {
        Err(WriteError::retry("down"))
    }

    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        self.began.send(()).map_err(WriteError::retry)?;
        // It blocks its thread, as no writer should.
        let let_go = self.may_end.lock().unwrap().recv();
        let_go.map_err(WriteError::retry)?;
        Err(WriteError::partial(1, "all of it"))
    }
}

/// In strict order an answer that comes after `write_timeout` is waited for, as long again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_late_in_part_is_not_hinted_in_strict_order() {
    const LIMIT: Duration = Duration::from_millis(500);
    let mut was_late = false;
    // A machine that stands still for longer makes it too late for that.
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            write_timeout: LIMIT,
            ordering: WriteOrdering::Strict,
            ..common::config(dir.path())
        };
        let (tell, mut began) = mpsc::unbounded_channel();
        let (let_go, may_end) = std::sync::mpsc::channel();
        let writer = Arc::new(Unstoppable {
            began: tell,
            may_end: Mutex::new(may_end),
        });
        let handoff = HintedHandoff::open(config, Arc::clone(&writer))
            .await
            .unwrap();
        let points_writer = PointsWriter::new(handoff.clone(), writer);
        let shard = Shard {
            id: ShardId(7),
            owners: vec![NodeId(1)],
        };
        let writing = tokio::spawn(async move {
            let points = Bytes::from_static(b"cpu v=1");
            points_writer.write(&shard, One, points).await
        });
        began.recv().await.unwrap();
        tokio::time::sleep(LIMIT + LIMIT / 5).await;
        let_go.send(()).unwrap();
        match writing.await.unwrap() {
            Ok(WriteOutcome::Written { owners: 1 }) => was_late = true,
            Err(PointsWriteError::TimedOut(_)) => {}
            outcome => panic!("{outcome:?}"),
        }
        if was_late {
            let pending = handoff.stats().store.pending;
            assert_eq!(pending.hints, 0, "it is to be sent again");
        }
        drop(let_go);
        handoff.shutdown().await.unwrap();
        if was_late {
            return;
        }
    }
    panic!("each time it was too late");
}
