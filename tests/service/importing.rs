//! Hints of a coordinator that is given up, put into one that runs.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use hinted_handoff::{
    Batch, ConsistencyLevel, EnqueueError, HandoffError, NodeId, Pause, PointsWriter, ShardId,
    WriteId,
    offline::{ClosedHint, ClosedStore, Import, ImportTally, Importer, Selection},
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use crate::common::service::{node_stats, quick, shard, soon_node, start};

const DOWN: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);

fn numbered(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

/// 300 hints of writes for one node, of which those of shard 2 are dead letters, and 10 for
/// another.
async fn given_up(dir: &Path) {
    let writer = Arc::new(ScriptedWriter::new(|write| match write.node.0 {
        1 => Reply::Take,
        _ => Reply::Retry,
    }));
    let handoff = start(quick(dir), &writer).await;
    let points = PointsWriter::new(handoff.clone(), Arc::clone(&writer));
    for number in 0..300 {
        let (shard, level) = (shard(number % 3, &[1, 2]), ConsistencyLevel::One);
        points.write(&shard, level, numbered(number)).await.unwrap();
    }
    soon_node(&handoff, DOWN, |it| it.pending.hints == 300).await;
    for number in 0..10 {
        let points = numbered(number);
        let written = handoff.write_shard(OTHER, ShardId(7), &points).await;
        written.unwrap();
    }
    writer.follow(|write| match (write.node, write.shard) {
        (DOWN, ShardId(2)) => Reply::Reject,
        _ => Reply::Retry,
    });
    soon_node(&handoff, DOWN, |it| it.dead_letters.hints == 100).await;
    handoff.shutdown().await.unwrap();
}

fn read(dir: &Path) -> Vec<ClosedHint> {
    let store = ClosedStore::open(dir).unwrap();
    let hints = store.hints(&Selection::default());
    hints.map(Result::unwrap).collect()
}

type Came = (NodeId, ShardId, Bytes, u64, Option<WriteId>);

#[tokio::test(flavor = "multi_thread")]
async fn they_keep_order_age_and_write_and_dead_letters_their_cause() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    given_up(&old).await;
    let hints = read(&old);
    assert_eq!(hints.len(), 210);
    let closed = ClosedStore::open(&old).unwrap();
    let letters: Vec<_> = closed.letters(&Selection::default()).unwrap().collect();
    let letters = letters.into_iter().map(|letter| {
        let letter = letter.unwrap();
        let cause = letter.cause.clone().unwrap();
        let hint = Import::from(letter.hint);
        Import {
            dead: Some(cause),
            ..hint
        }
    });
    let letters: Vec<Import> = letters.collect();
    assert_eq!(letters.len(), 100);

    let came = Arc::new(Mutex::new(Vec::<Came>::new()));
    let noted = Arc::clone(&came);
    let writer = Arc::new(ScriptedWriter::new(move |write| {
        let of_batch = |batch: &Batch<Bytes>| {
            let since = batch.enqueued.duration_since(UNIX_EPOCH).unwrap();
            let unix_ms = since.as_millis() as u64;
            (
                write.node,
                write.shard,
                batch.points.clone(),
                unix_ms,
                batch.write,
            )
        };
        noted
            .lock()
            .unwrap()
            .extend(write.batches.iter().map(of_batch));
        Reply::Take
    }));
    let handoff = start(quick(&new), &writer).await;
    // So that it is seen whose age it is.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let imports = hints.iter().cloned().map(Import::from).collect();
    let ids = handoff.import(imports).await.unwrap();
    assert_eq!(ids.len(), 210);
    let ids = handoff.import(letters.clone()).await.unwrap();
    assert_eq!(ids.len(), 100);
    soon_node(&handoff, OTHER, |it| it.delivered.hints == 10).await;
    let known = soon_node(&handoff, DOWN, |it| it.delivered.hints == 200).await;
    assert_eq!((known.pending.hints, known.dead_letters.hints), (0, 100));

    let came = std::mem::take(&mut *came.lock().unwrap());
    for shard in [0, 1, 7].map(ShardId) {
        let expected = hints.iter().filter(|it| it.shard == shard);
        let expected: Vec<Came> = expected
            .map(|it| {
                (
                    it.node,
                    it.shard,
                    it.payload.clone(),
                    it.enqueued_unix_ms,
                    it.write,
                )
            })
            .collect();
        let found = came.iter().filter(|it| it.1 == shard).cloned();
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
    assert!(came.iter().any(|it| it.4.is_some()), "no id of a write");
    let first = handoff.dead_letter(DOWN, ids[0]).await.unwrap();
    let cause = letters[0].dead.as_ref().unwrap();
    assert_eq!(first.raw, letters[0].payload);
    assert_eq!(
        (&first.letter.error, first.letter.attempts),
        (&cause.error, cause.attempts)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_ends_it_and_is_told_with_those_that_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.max_hints_per_node = Some(3);
    config.max_entry_bytes = 100;
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let import = |payload: &'static [u8]| Import {
        node: DOWN,
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: 1_700_000_000_000,
        lifetime_ms: None,
        write: None,
        payload: Bytes::from_static(payload),
        dead: None,
    };
    let pending = || node_stats(&handoff, DOWN).pending.hints;
    let ended = handoff.import(vec![import(b"a"), import(b""), import(b"b")]);
    let ended = ended.await.unwrap_err();
    assert_eq!((ended.stored.len(), pending()), (1, 1));
    assert!(
        matches!(ended.source, EnqueueError::EmptyPoints),
        "{ended:?}"
    );
    let ended = handoff.import(vec![import(&[7; 101])]).await.unwrap_err();
    let is_large = matches!(ended.source, EnqueueError::EntryTooLarge { bytes: 101, .. });
    assert!(is_large && ended.stored.is_empty(), "{ended:?}");
    let ended = handoff.import(vec![import(b"c"); 5]).await.unwrap_err();
    let is_full = matches!(ended.source, EnqueueError::QueueFull { .. });
    assert!(is_full, "{ended:?}");
    assert_eq!((ended.stored.len(), pending()), (2, 3));
    handoff.stop_hinting(DOWN);
    let ended = handoff.import(vec![import(b"d")]).await.unwrap_err();
    let is_stopped = matches!(ended.source, EnqueueError::HintingStopped { .. });
    assert!(is_stopped, "{ended:?}");
    handoff.shutdown().await.unwrap();
    // Of a node whose hints are neither stopped nor too many.
    let late = Import {
        node: OTHER,
        ..import(b"e")
    };
    let ended = handoff.import(vec![late]).await.unwrap_err();
    assert!(matches!(ended.source, EnqueueError::ShutDown), "{ended:?}");
    let gone = handoff.dead_letters(DOWN, None, 1).await;
    assert!(matches!(gone, Err(HandoffError::ShutDown)), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_in_behind_one_that_is_known_not_to_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick(dir.path());
    config.min_free_disk = u64::MAX / 2;
    config.max_entry_bytes = 64 << 20;
    let handoff = start(&config, &Arc::new(ScriptedWriter::down())).await;
    // It is all the room that there is, so each waits until the one before it is answered.
    let large = Import {
        node: DOWN,
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: 1_700_000_000_000,
        lifetime_ms: None,
        write: None,
        payload: vec![7; 32 << 20].into(),
        dead: None,
    };
    let ended = handoff.import(vec![large; 20]).await.unwrap_err();
    let is_space = matches!(ended.source, EnqueueError::DiskReserve { .. });
    assert!(is_space && ended.stored.is_empty(), "{ended:?}");
    // The answer of the first is there once the third has room.
    let refused = handoff.stats().store.refused_for_space;
    assert!((1..=3).contains(&refused), "{refused} were handed in");
}

#[test]
fn a_store_that_nobody_has_open_takes_no_hint_without_a_payload_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut importer = Importer::open(dir.path().join("hints")).unwrap();
    let refused = importer.push(Import {
        node: DOWN,
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: 1_700_000_000_000,
        lifetime_ms: None,
        write: None,
        payload: Bytes::new(),
        dead: None,
    });
    assert!(
        matches!(refused, Err(EnqueueError::EmptyPoints)),
        "{refused:?}"
    );
    assert_eq!(importer.finish().unwrap(), ImportTally::default());
}
