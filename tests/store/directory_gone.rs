//! A directory that is removed, moved away or exchanged under a store that is open in it: nothing
//! is answered as durable from then on, nothing is sent or acknowledged, and whatever stands at the
//! old path is left alone.
//!
//! Method: the files of an open store are removed or renamed, as an operator or a clean-up script
//! does it.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::common::{copy::copy_of, *};
use bytes::Bytes;
use hinted_handoff::{
    Config, DirectoryGone, EnqueueError, FailedOutcome, HandoffError, Health, HintedHandoff,
    NodeId, ShardId,
    internals::{CommitFault, Leave, Store},
    salvage,
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

const NODE: u64 = 2;
const OTHER: u64 = 9;

/// Waits until the store says that its directory is gone.
fn noticed(store: &Store) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        if matches!(store.health(), Health::DirectoryGone(_)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// How a directory goes away: given the directory, and a place beside it.
type Goes = (&'static str, fn(&Path, &Path));

const WAYS: [Goes; 8] = [
    ("removed", |dir, _| fs::remove_dir_all(dir).unwrap()),
    ("renamed", |dir, beside| fs::rename(dir, beside).unwrap()),
    ("its parent renamed", |dir, beside| {
        fs::rename(dir.parent().unwrap(), beside).unwrap()
    }),
    ("exchanged", |dir, beside| {
        fs::rename(dir, beside).unwrap();
        open(dir).close().unwrap();
    }),
    ("LOCK removed", |dir, _| {
        fs::remove_file(dir.join("LOCK")).unwrap()
    }),
    ("generation removed", |dir, _| {
        fs::remove_dir_all(generation(dir)).unwrap()
    }),
    ("generation renamed", |dir, beside| {
        fs::rename(generation(dir), beside).unwrap()
    }),
    ("log removed", |dir, _| {
        fs::remove_file(generation(dir).join("db")).unwrap()
    }),
];

#[test]
fn no_write_into_a_directory_that_is_gone_is_answered_as_durable() {
    for (way, goes) in WAYS {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("parent/store");
        let store = open(&dir);
        append(&store, NODE, "before");
        let head = hints(&store, NODE);
        goes(&dir, &root.path().join("beside"));
        let answered = (0..1000).filter(|number| {
            let written = try_append(&store, NODE, vec![hint(1, format!("{number}"))]);
            written[0].is_ok()
        });
        assert_eq!(answered.count(), 0, "{way}");
        let Health::DirectoryGone(cause) = store.health() else {
            panic!("{way}: {:?}", store.health());
        };
        let text = cause.source.to_string();
        assert!(
            text.contains("put it back") && text.contains("open it again"),
            "{text}"
        );
        // Nor is anything acknowledged, so nothing is sent either.
        let acked = store.ack(NodeId(NODE), head[0].mark, Leave::Delivered);
        assert!(
            matches!(acked, Err(HandoffError::Storage(_))),
            "{way}: {acked:?}"
        );
        assert!(told(|done| store.sync(done)).is_err(), "{way}");
        assert!(store.close().is_err(), "{way}");
    }
}

#[test]
fn what_was_answered_before_is_where_the_directory_was_moved_to() {
    let root = tempfile::tempdir().unwrap();
    let (dir, moved) = (root.path().join("store"), root.path().join("moved"));
    let store = open(&dir);
    append(&store, NODE, "before");
    fs::rename(&dir, &moved).unwrap();
    assert!(try_append(&store, NODE, vec![hint(1, "after")])[0].is_err());
    assert!(store.close().is_err());
    let store = open(&moved);
    assert_eq!(payloads(&store, NODE)[0], "before");
    assert_eq!(store.stats().damage, []);
}

#[test]
fn a_directory_that_is_gone_is_noticed_without_a_write() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let store = open(&dir);
    fs::remove_dir_all(&dir).unwrap();
    assert!(noticed(&store), "{:?}", store.health());
    assert!(!dir.exists(), "nothing is made there again");
}

#[test]
fn a_second_store_at_the_same_path_loses_nothing_when_the_first_one_shuts_down() {
    for first_writes in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let (dir, moved) = (root.path().join("store"), root.path().join("moved"));
        let first = open(&dir);
        append(&first, OTHER, "of the first");
        fs::rename(&dir, &moved).unwrap();
        let second = open(&dir);
        let expected: Vec<String> = (0..10).map(|number| format!("hint {number}")).collect();
        for payload in &expected {
            append(&second, NODE, payload.clone());
        }
        if first_writes {
            assert!(try_append(&first, OTHER, vec![hint(1, "late")])[0].is_err());
        }
        let before = copy_of(&dir);
        assert!(first.close().is_err());
        assert_eq!(names_in(&dir), names_in(before.path()));
        // The second one dies.
        let killed = copy_of(&dir);
        let store = open(killed.path());
        assert_eq!(payloads(&store, NODE), expected);
        assert_eq!(store.stats().damage, []);
        assert_eq!(payloads(&second, NODE), expected);
        second.close().unwrap();
        assert_eq!(payloads(&open(&dir), NODE), expected);
        assert_eq!(payloads(&open(&moved), OTHER)[0], "of the first");
    }
}

/// Of all files below, but for the lock, which a copy lacks.
fn names_in(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = path.strip_prefix(dir).unwrap();
            names.push(name.to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            }
        }
    }
    names.retain(|name| name != "LOCK");
    names.sort();
    names
}

/// It stands where one store wrote it for another, as it did when summaries named no store.
#[test]
fn a_summary_of_another_store_is_not_believed() {
    for torn in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("store"), root.path().join("other"));
        let store = open(&other);
        append(&store, OTHER, "of the other");
        store.close().unwrap();
        // Each with bytes that stand nowhere else.
        let expected: Vec<_> = (0..10).map(|number| noise(40, number)).collect();
        let store = open(&dir);
        for payload in &expected {
            append(&store, NODE, payload.clone());
        }
        store.close().unwrap();
        let clean = |dir: &Path| generation(dir).join("CLEAN");
        fs::copy(clean(&other), clean(&dir)).unwrap();
        // As a power cut may leave it, which is no damage after an unclean stop.
        if torn {
            assert!(destroy(&dir, &expected[7]) > 0);
        }
        let store = open(&dir);
        let left = if torn { 7 } else { 10 };
        assert_eq!(payloads(&store, NODE)[..left], expected[..left], "{torn}");
        assert_eq!(store.stats().moved_aside, None);
        let id = append(&store, NODE, "more");
        assert_ne!(id.queue.0, 1, "as after an unclean stop");
        store.close().unwrap();
        // It is salvaged likewise.
        fs::copy(clean(&other), clean(&dir)).unwrap();
        let into = root.path().join("salvaged");
        salvage(generation(&dir), &into).unwrap();
        let salvaged = payloads(&open(&into), NODE);
        assert_eq!(salvaged[..left], expected[..left], "{torn}");
    }
}

/// It would be opened at the same path, where another stands by now.
#[test]
fn a_store_that_fails_when_its_directory_is_gone_opens_no_other() {
    let root = tempfile::tempdir().unwrap();
    let (dir, moved) = (root.path().join("store"), root.path().join("moved"));
    let first = open(&dir);
    append(&first, OTHER, "of the first");
    first.inject(CommitFault::Fail);
    assert!(try_append(&first, OTHER, vec![hint(1, "unknown")])[0].is_err());
    fs::rename(&dir, &moved).unwrap();
    let second = open(&dir);
    append(&second, NODE, "of the second");
    let before = names_in(&dir);
    first.inject(CommitFault::None);
    assert!(noticed(&first), "{:?}", first.health());
    assert!(first.close().is_err());
    assert_eq!(names_in(&dir), before);
    assert_eq!(payloads(&second, NODE), ["of the second"]);
    second.close().unwrap();
    assert_eq!(payloads(&open(&moved), OTHER)[0], "of the first");
}

#[test]
fn an_fsync_that_fails_in_a_directory_that_was_moved_is_told_there_and_nowhere_else() {
    let root = tempfile::tempdir().unwrap();
    let (dir, moved) = (root.path().join("store"), root.path().join("moved"));
    let first = open(&dir);
    append(&first, OTHER, "first");
    fs::rename(&dir, &moved).unwrap();
    let second = open(&dir);
    append(&second, NODE, "second");
    first.inject(CommitFault::FailFsync);
    assert!(try_append(&first, OTHER, vec![hint(1, "late")])[0].is_err());
    let marked = |dir: &Path| generation(dir).join("hh-UNSYNCED").exists();
    assert!(marked(&moved) && !marked(&dir));
    second.close().unwrap();
}

#[test]
fn a_compaction_under_way_changes_nothing_at_the_path_of_a_directory_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let (dir, moved) = (root.path().join("store"), root.path().join("moved"));
    for number in 0..6 {
        let first = open(&dir);
        append(&first, OTHER, "of the first");
        first.compact_eagerly(true);
        std::thread::sleep(Duration::from_millis(number * 11));
        fs::rename(&dir, &moved).unwrap();
        let second = open(&dir);
        append(&second, NODE, "of the second");
        let before = names_in(&dir);
        assert!(try_append(&first, OTHER, vec![hint(1, "late")])[0].is_err());
        assert!(first.close().is_err());
        assert_eq!(names_in(&dir), before);
        second.close().unwrap();
        assert_eq!(payloads(&open(&dir), NODE), ["of the second"]);
        assert_eq!(payloads(&open(&moved), OTHER)[0], "of the first");
        fs::remove_dir_all(&dir).unwrap();
        fs::remove_dir_all(&moved).unwrap();
    }
}

#[tokio::test]
async fn nothing_is_sent_from_a_directory_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let is_up = Arc::new(AtomicBool::new(false));
    let reply = |is_up: &AtomicBool| match is_up.load(Relaxed) {
        true => Reply::Take,
        false => Reply::Retry,
    };
    let (sends, pings) = (Arc::clone(&is_up), Arc::clone(&is_up));
    let writer = ScriptedWriter::new(move |_| reply(&sends)).with_pings(move |_| reply(&pings));
    let writer = Arc::new(writer);
    let config = Config {
        retry_interval: Duration::from_millis(20),
        ..config(&dir)
    };
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    let write = |text: &'static str| {
        let (handoff, points) = (handoff.clone(), Bytes::from_static(text.as_bytes()));
        async move { handoff.write_shard(NodeId(NODE), ShardId(1), &points).await }
    };
    write("before").await.unwrap();
    fs::rename(&dir, root.path().join("moved")).unwrap();
    let refused = write("after").await.unwrap_err();
    assert_eq!(refused.outcome(), FailedOutcome::Unknown);
    let EnqueueError::StoreFailed(cause) = write("later").await.unwrap_err() else {
        panic!("it is refused");
    };
    assert!(cause.source.is::<DirectoryGone>());
    is_up.store(true, Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(writer.taken(), [""; 0]);
    assert!(matches!(handoff.health(), Health::DirectoryGone(_)));
    let stopped = handoff.shutdown().await;
    assert!(
        matches!(stopped, Err(HandoffError::Storage(_))),
        "{stopped:?}"
    );
}
