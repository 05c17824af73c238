//! Hints that are taken by hand: in order, each once, together with what the host makes of them.

mod dead_lettering;
mod held;

use std::time::Duration;

use crate::common::{
    self,
    copy::copy_files,
    hosting,
    hosting::{DOWN, Handoff, Host, MANUAL, SHARD, config, points},
};
use bytes::Bytes;
use hinted_handoff::{
    Consumer, EncodeError, HandoffError, HintedHandoff, NodeId, NodeState, Payload, PayloadError,
    ShardId, TransactionError, internals::CommitFault,
};
use hinted_handoff_testkit::ScriptedWriter;

async fn queue(host: &Host, hints: &[&'static str]) -> Consumer<Bytes> {
    for hint in hints {
        host.hint(MANUAL, hint).await;
    }
    host.handoff.consumer(MANUAL).unwrap()
}

#[tokio::test]
async fn hints_stay_until_they_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &["a", "b", "c", "d"]).await;
    let first = consumer.peek(3).await.unwrap();
    assert_eq!(points(&first), ["a", "b", "c"]);
    assert_eq!(first[2].id.sequence.0, 3);
    assert_eq!(first[0].shard, SHARD);
    assert!(first[0].enqueued.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!(
        points(&consumer.peek(1).await.unwrap()),
        ["a"],
        "it is there still"
    );
    consumer.ack(&first[..2]).await.unwrap();
    assert_eq!(points(&consumer.peek(9).await.unwrap()), ["c", "d"]);
    assert_eq!(consumer.peek(0).await.unwrap().len(), 0);
    assert_eq!(host.pending(MANUAL), 2);
    drop(consumer);
    host.close().await;
}

/// Nothing is read back then, so it does not matter what the engine has.
#[tokio::test]
async fn what_was_just_written_comes_from_memory_if_somebody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &[]).await;
    assert_eq!(consumer.peek(1).await.unwrap().len(), 0);
    host.hint(MANUAL, "a").await;
    let stored = host.db.open_tree("hh/hints").unwrap();
    let block = stored.iter().keys().map(Result::unwrap);
    let block: Vec<_> = block.filter(|key| key.len() == 27).collect();
    assert_eq!(block.len(), 1);
    stored.remove(&block[0]).unwrap();
    let hints = consumer.peek(1).await.unwrap();
    assert_eq!(points(&hints), ["a"]);
    assert!(
        !stored.contains_key(&block[0]).unwrap(),
        "it was read, missed and stored again"
    );
    consumer.ack(&hints).await.unwrap();
    drop(consumer);
    host.close().await;
}

#[tokio::test]
async fn what_is_acknowledged_with_rows_is_gone_with_them_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    let mut consumer = queue(&host, &["a", "b", "c"]).await;
    let hints = consumer.peek(2).await.unwrap();
    let consume = async |give_up: bool| {
        let consumed = host.handoff.transaction(&[&host.rows], |rows, all| {
            for hint in &hints {
                assert_eq!(rows[0].get(&hint.points)?, None);
                rows[0].insert(&hint.points, "consumed")?;
            }
            all.ack(&hints)?;
            all.enqueue(DOWN, SHARD, &"passed on".into())?;
            match give_up {
                true => Err(hinted_handoff::Abort::new("not now")),
                false => Ok(()),
            }
        });
        consumed.await.map(drop)
    };
    assert!(consume(true).await.is_err());
    assert_eq!(
        (host.row("a"), host.pending(MANUAL), host.pending(DOWN)),
        (None, 3, 0)
    );
    consume(false).await.unwrap();
    drop(consumer);
    copy_files(&path, &killed);
    let killed = Host::open(&killed).await;
    for host in [host, killed] {
        assert_eq!(host.row("a").as_deref(), Some("consumed"));
        assert_eq!(host.waiting().await, ["c"]);
        assert_eq!(host.pending(DOWN), 1);
        host.close().await;
    }
}

/// But for the last one, which says how far the queue got.
#[tokio::test]
async fn what_is_consumed_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &["a", "b", "c", "d"]).await;
    let stored = host.db.open_tree("hh/hints").unwrap();
    let chunks = || {
        stored
            .iter()
            .keys()
            .filter(|key| key.as_ref().unwrap().len() == 27)
    };
    assert_eq!(chunks().count(), 4);
    let hints = consumer.peek(4).await.unwrap();
    consumer.ack(&hints).await.unwrap();
    for _ in 0..200 {
        host.handoff.sync().await.unwrap();
        if chunks().count() == 1 {
            break;
        }
    }
    assert_eq!(chunks().count(), 1);
    drop(consumer);
    host.close().await;
}

#[tokio::test]
async fn nothing_is_consumed_twice_and_nothing_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &["a", "b", "c", "d"]).await;
    let hints = consumer.peek(4).await.unwrap();
    let not_next = |acked: Result<(), TransactionError>| match acked {
        Err(TransactionError::NotNext { hint, .. }) => hint.sequence.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        not_next(consumer.ack(&hints[1..2]).await),
        2,
        "the first was not acknowledged"
    );
    assert_eq!(
        not_next(consumer.ack(&[hints[0].clone(), hints[2].clone()]).await),
        3,
        "a gap"
    );
    consumer.ack(&hints[..2]).await.unwrap();
    assert_eq!(
        not_next(consumer.ack(&hints[..2]).await),
        1,
        "a second time"
    );
    // Two transactions at once: one of them is told.
    let twice = || {
        host.handoff.transaction(&[&host.rows], |rows, all| {
            rows[0].insert("c", "consumed")?;
            Ok(all.ack(&hints[2..3])?)
        })
    };
    let (one, other) = tokio::join!(twice(), twice());
    assert_eq!(
        [one.is_ok(), other.is_ok()]
            .iter()
            .filter(|ok| **ok)
            .count(),
        1
    );
    assert_eq!(points(&consumer.peek(4).await.unwrap()), ["d"]);
    drop(consumer);
    host.close().await;
}

#[tokio::test]
async fn a_hint_of_another_store_cannot_be_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let other = Host::open(&dir.path().join("other")).await;
    let mut consumer = queue(&host, &["a"]).await;
    let hints = queue(&other, &["a"]).await.peek(1).await.unwrap();
    let acked = consumer.ack(&hints).await;
    assert!(matches!(acked, Err(TransactionError::NotNext { hint, .. }) if hint == hints[0].id));
    assert_eq!((host.pending(MANUAL), other.pending(MANUAL)), (1, 1));
    drop(consumer);
    host.close().await;
    other.close().await;
}

#[tokio::test]
async fn there_is_one_consumer_and_none_for_a_node_that_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let replayed = host.handoff.consumer(DOWN).err();
    assert!(
        matches!(replayed, Some(HandoffError::Replayed { node: DOWN, .. })),
        "{replayed:?}"
    );
    let consumer = host.handoff.consumer(MANUAL).unwrap();
    let second = host.handoff.clone().consumer(MANUAL).err();
    assert!(
        matches!(second, Some(HandoffError::Consumed { node: MANUAL, .. })),
        "{second:?}"
    );
    drop(consumer);
    drop(host.handoff.consumer(MANUAL).unwrap());
    host.close().await;
}

#[tokio::test]
async fn a_manual_node_is_never_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    for _ in 0..2 {
        let db = hosting::open_db(&path);
        let writer = std::sync::Arc::new(ScriptedWriter::taking());
        let handoff = Handoff::open_in(&db, config(&path), writer.clone())
            .await
            .unwrap();
        handoff
            .write_shard(MANUAL, SHARD, &"by hand".into())
            .await
            .unwrap();
        handoff
            .write_shard(NodeId(3), SHARD, &"replayed".into())
            .await
            .unwrap();
        while writer.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let stats = handoff.stats().nodes;
        assert_eq!((stats[0].node, stats[0].state), (MANUAL, NodeState::Manual));
        assert!(writer.seen().iter().all(|seen| seen.node == NodeId(3)));
        handoff.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_consumer_that_waits_is_woken_by_the_next_hint_and_by_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &[]).await;
    let handoff = host.handoff.clone();
    let waiting = tokio::spawn(async move {
        consumer.ready().await.unwrap();
        let hints = consumer.peek(5).await.unwrap();
        consumer.ack(&hints).await.unwrap();
        (points(&hints), consumer.ready().await)
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!waiting.is_finished());
    host.hint(MANUAL, "wakes").await;
    while host.pending(MANUAL) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handoff.shutdown().await.unwrap();
    let (seen, end) = waiting.await.unwrap();
    assert_eq!(seen, ["wakes"]);
    assert!(matches!(end, Err(HandoffError::ShutDown)), "{end:?}");
}

#[tokio::test]
async fn a_removed_node_leaves_its_consumer_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(&dir.path().join("db")).await;
    let mut consumer = queue(&host, &["a", "b"]).await;
    let hints = consumer.peek(1).await.unwrap();
    assert_eq!(host.handoff.remove_node(MANUAL).await.unwrap().hints, 2);
    assert!(matches!(
        consumer.ack(&hints).await,
        Err(TransactionError::NotNext { .. })
    ));
    assert!(consumer.peek(1).await.unwrap().is_empty());
    host.hint(MANUAL, "anew").await;
    consumer.ready().await.unwrap();
    assert_eq!(points(&consumer.peek(1).await.unwrap()), ["anew"]);
    drop(consumer);
    host.close().await;
}

/// After a kill there are two queues; the older one is consumed first, and then it is gone.
#[tokio::test]
async fn queues_from_before_a_kill_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    drop(queue(&host, &["a", "b"]).await);
    copy_files(&path, &killed);
    host.close().await;
    let host = Host::open(&killed).await;
    let mut consumer = queue(&host, &["c"]).await;
    let mut seen = Vec::new();
    loop {
        let hints = consumer.peek(10).await.unwrap();
        if hints.is_empty() {
            break;
        }
        seen.extend(points(&hints));
        consumer.ack(&hints).await.unwrap();
    }
    assert_eq!(seen, ["a", "b", "c"]);
    drop(consumer);
    host.close().await;
    let host = Host::open(&killed).await;
    assert_eq!(host.pending(MANUAL), 0);
    host.close().await;
}

#[tokio::test]
async fn a_damaged_hint_is_skipped_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let open = || HintedHandoff::<Bytes>::open(config(&path), ScriptedWriter::down());
    let handoff = open().await.unwrap();
    for hint in ["hint-1", "hint-2", "hint-3"] {
        handoff
            .write_shard(MANUAL, SHARD, &hint.into())
            .await
            .unwrap();
    }
    handoff.shutdown().await.unwrap();
    common::changed_for_good(&path, |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = common::chunk_keys(&hints, MANUAL.0).remove(1);
        let value = hints.get(&key).unwrap().unwrap();
        hints.insert(key, &value[..value.len() - 1]).unwrap();
    });
    let handoff = open().await.unwrap();
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    let mut seen = Vec::new();
    loop {
        let hints = consumer.peek(10).await.unwrap();
        if hints.is_empty() {
            break;
        }
        seen.extend(points(&hints));
        consumer.ack(&hints).await.unwrap();
    }
    assert_eq!(seen, ["hint-1", "hint-3"]);
    assert_eq!(handoff.stats().nodes[0].lost.hints, 1);
    drop(consumer);
    handoff.shutdown().await.unwrap();
}

/// Reads only what is a number.
#[derive(Debug, Clone)]
struct Number(u64);

impl Payload for Number {
    const FORMAT: u16 = 0;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(self.0.to_string().into_bytes());
        Ok(())
    }

    fn decode(format: u16, bytes: Bytes) -> Result<Self, PayloadError> {
        let text = String::from_utf8_lossy(&bytes);
        let number = text.parse().map_err(|error| PayloadError::Malformed {
            format,
            source: Box::new(error),
        })?;
        Ok(Number(number))
    }
}

impl hinted_handoff::ShardWriter<Number> for Number {
    async fn write_shard(
        &self,
        _: hinted_handoff::ShardWrite<Number>,
    ) -> Result<(), hinted_handoff::WriteError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_hint_that_does_not_decode_is_an_error_once_it_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    drop(queue(&host, &["1", "2", "three"]).await);
    host.close().await;
    let db = hosting::open_db(&path);
    let handoff = HintedHandoff::open_in(&db, config(&path), Number(0))
        .await
        .unwrap();
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    let hints = consumer.peek(10).await.unwrap();
    assert_eq!(
        hints.iter().map(|hint| hint.points.0).collect::<Vec<_>>(),
        [1, 2]
    );
    consumer.ack(&hints).await.unwrap();
    match consumer.peek(10).await {
        Err(HandoffError::Undecodable { hint, .. }) => assert_eq!(hint.sequence.0, 3),
        other => panic!("{other:?}"),
    }
    drop(consumer);
    handoff.shutdown().await.unwrap();
}

/// Written by the next version of the host: this one reads nothing of the version before.
#[derive(Debug)]
struct Later;

impl Payload for Later {
    const FORMAT: u16 = 1;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(0);
        Ok(())
    }

    fn decode(format: u16, _: Bytes) -> Result<Self, PayloadError> {
        Err(PayloadError::UnknownFormat {
            found: format,
            written: Self::FORMAT,
        })
    }
}

impl hinted_handoff::ShardWriter<Later> for Later {
    async fn write_shard(
        &self,
        _: hinted_handoff::ShardWrite<Later>,
    ) -> Result<(), hinted_handoff::WriteError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_hint_of_an_unknown_format_is_an_error_that_says_so_and_stays_for_a_host_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    drop(queue(&host, &["1"]).await);
    host.close().await;
    let db = hosting::open_db(&path);
    let handoff = HintedHandoff::open_in(&db, config(&path), Later).await;
    let handoff = handoff.unwrap();
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    for _ in 0..2 {
        let Err(HandoffError::Undecodable { hint, source, .. }) = consumer.peek(10).await else {
            panic!("it was read");
        };
        assert_eq!(hint.sequence.0, 1);
        let is_unknown = matches!(
            *source,
            PayloadError::UnknownFormat {
                found: 0,
                written: 1,
            }
        );
        assert!(is_unknown, "{source:?}");
    }
    assert_eq!(handoff.stats().nodes[0].pending.hints, 1);
    drop(consumer);
    handoff.shutdown().await.unwrap();
    drop((handoff, db));

    let host = Host::open(&path).await;
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    assert_eq!(points(&consumer.peek(10).await.unwrap()), ["1"]);
    drop(consumer);
    host.close().await;
}

#[test]
fn all_of_it_works_from_a_thread_without_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let db = hosting::open_db(&path);
    let rows = db.open_tree("rows").unwrap();
    let opened = Handoff::open_in_blocking(
        &db,
        config(&path),
        ScriptedWriter::down(),
        runtime.handle().clone(),
    );
    let handoff = opened.unwrap();
    let committed = handoff.transaction_blocking(&[&rows], |_, hints| {
        Ok(hints.enqueue(MANUAL, ShardId(1), &"one".into())?)
    });
    assert_eq!(committed.unwrap().hints.len(), 1);
    let mut consumer = handoff.consumer(MANUAL).unwrap();
    let hints = consumer.peek_blocking(10).unwrap();
    consumer.ack_blocking(&hints).unwrap();
    assert!(consumer.peek_blocking(10).unwrap().is_empty());
    let committed = handoff.transaction_blocking(&[&rows], |_, hints| {
        Ok(hints.enqueue(MANUAL, ShardId(1), &"two".into())?)
    });
    let [id] = committed.unwrap().hints[..] else {
        panic!("it is one");
    };
    let rejected = hinted_handoff::DeadReason::Rejected;
    consumer
        .make_dead_letter_blocking(id, rejected, "by hand")
        .unwrap();
    assert!(consumer.peek_blocking(10).unwrap().is_empty());
    let mut batch = hinted_handoff::RowBatch::new();
    batch
        .insert(&rows, "a", "b")
        .unwrap()
        .remove(&rows, "c")
        .unwrap();
    handoff.apply_blocking(batch).unwrap();
    assert_eq!(rows.len(), 1);
    drop(consumer);
    handoff.shutdown_blocking().unwrap();
}
