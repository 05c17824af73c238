//! A store that was filled and drained gives its disk space back while it goes on: nothing is lost,
//! nothing comes twice, and nobody but the disk can tell.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::common::{
    copy::copy_files,
    letters::{claim, letters_read, lose_at, make_dead_letter_at, redrive_as_it_is},
    *,
};
use bytes::Bytes;
use hinted_handoff::{
    Config, Health, HintedHandoff, LossReason, NodeId, OpenError, Pause, ShardId,
    internals::{CommitFault, Leave, Status, Store},
};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

const MIB: u64 = 1 << 20;
/// What may be left on the disk after an outage, however large it was.
const LEFT_BYTES_MAX: u64 = 64 * MIB;

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Which number a payload has, in which shard.
fn numbered(shard: u64, number: u64, noise: &[u8]) -> Bytes {
    [&shard.to_be_bytes(), &number.to_be_bytes(), noise]
        .concat()
        .into()
}

/// The numbers that came, by shard, in the order in which they came.
fn came(writer: &ScriptedWriter) -> BTreeMap<u64, Vec<u64>> {
    let mut came: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for points in writer.taken() {
        let number = |at: usize| u64::from_be_bytes(points[at..at + 8].try_into().unwrap());
        came.entry(number(0)).or_default().push(number(8));
    }
    came
}

/// Writes a shard's hints one after the other until it is told to stop; returns how many.
async fn trickle(handoff: HintedHandoff<Bytes>, shard: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut written = 0;
    while !stop.load(Relaxed) {
        let points = numbered(shard, written, &noise(1_000, written));
        let node = NodeId(1 + shard % 2);
        handoff
            .write_shard(node, ShardId(shard), &points)
            .await
            .unwrap();
        written += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_outage_gives_its_space_back_while_writes_and_replay_go_on() {
    const SHARDS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_interval: Duration::from_millis(5),
        retry_max_interval: Duration::from_millis(20),
        ..config(dir.path())
    };
    let writer = Arc::new(ScriptedWriter::down());
    let open = || HintedHandoff::open(config.clone(), Arc::clone(&writer));
    let handoff = open().await.unwrap();
    // The outage: more than may be left, which does not compress.
    let filled = Arc::new(AtomicU64::new(0));
    let filling = (0..SHARDS).map(|shard| {
        let (handoff, filled) = (handoff.clone(), Arc::clone(&filled));
        tokio::spawn(async move {
            let noise = noise(50_000, shard);
            for number in 0..600 {
                let points = numbered(shard, number, &noise);
                filled.fetch_add(points.len() as u64, Relaxed);
                let node = NodeId(1 + shard % 2);
                handoff
                    .write_shard(node, ShardId(shard), &points)
                    .await
                    .unwrap();
            }
        })
    });
    for shard in filling.collect::<Vec<_>>() {
        shard.await.unwrap();
    }
    let outage = bytes_on_disk(dir.path());
    assert!(outage > 2 * LEFT_BYTES_MAX - 16 * MIB, "{outage} bytes");
    assert_eq!(handoff.stats().store.compactions, 0);
    // It ends, and the host goes on writing.
    writer.follow(|_| Reply::Take);
    writer.follow_pings(|_| Reply::Take);
    let stop = Arc::new(AtomicBool::new(false));
    let trickling: Vec<_> = (SHARDS..SHARDS + 3)
        .map(|shard| tokio::spawn(trickle(handoff.clone(), shard, Arc::clone(&stop))))
        .collect();
    soon("the space is given back", || {
        bytes_on_disk(dir.path()) <= LEFT_BYTES_MAX
    })
    .await;
    let store = handoff.stats().store;
    assert!(store.log_bytes <= LEFT_BYTES_MAX && store.reopened == 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Relaxed);
    let mut expected: BTreeMap<_, Vec<_>> =
        (0..SHARDS).map(|it| (it, (0..600).collect())).collect();
    for (shard, written) in (SHARDS..).zip(trickling) {
        expected.insert(shard, (0..written.await.unwrap()).collect());
    }
    let pending = || handoff.stats().store.pending.hints;
    soon("all is delivered", || pending() == 0).await;
    assert_eq!(came(&writer), expected, "each once, in order");
    assert_eq!(handoff.stats().store.compactions, 1);
    assert!(matches!(handoff.health(), Health::Serving));
    handoff.shutdown().await.unwrap();
    assert_eq!(names(dir.path()), ["CURRENT", "LOCK", "gen-000002"]);

    let handoff = open().await.unwrap();
    let stats = handoff.stats();
    assert_eq!(
        (stats.store.damage.len(), stats.store.pending.hints),
        (0, 0)
    );
    assert_eq!(stats.store.moved_aside, None);
    handoff.shutdown().await.unwrap();
}

/// Everything that a store shows, but for what counts since open.
fn shown(store: &Store) -> String {
    let nodes = store.nodes().into_iter().map(|(node, queues)| {
        let hints: Vec<_> = hints(store, node.0)
            .into_iter()
            .map(|it| (it.mark, it.hint))
            .collect();
        let letters = letters_read(store, node.0);
        format!(
            "{node:?} {:?} {hints:?} {letters:?} {:?}",
            queues.queues,
            store.status(node)
        )
    });
    let nodes: Vec<_> = nodes.collect();
    let losses = store.losses(0).unwrap();
    let holds: Vec<_> = (1..=4).map(|node| store.hold(NodeId(node))).collect();
    format!("{nodes:#?} {losses:#?} {holds:?}")
}

#[test]
fn whatever_is_in_a_store_is_the_same_after_it_was_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..40 {
        append(&store, 1 + number % 3, noise(900 * number as usize, number));
    }
    // One of several chunks, one that left before others, a dead letter, one that was sent on, a
    // loss, a pause, a new name, a status.
    append(&store, 1, noise(3 << 20, 7));
    let left = claim(&store, 1, 3);
    store.deliver(NodeId(1), &[left]).unwrap();
    make_dead_letter_at(&store, 2, 2, "never");
    let again = make_dead_letter_at(&store, 2, 4, "not yet");
    redrive_as_it_is(&store, 2, again);
    lose_at(&store, 3, 1, LossReason::Obsolete);
    told(|done| store.pause(NodeId(3), Some(Pause::Lasting), done)).unwrap();
    told(|done| store.rename_node(NodeId(3), NodeId(4), done)).unwrap();
    store.set_status(
        NodeId(1),
        Status {
            attempts: 7,
            ..Status::default()
        },
    );
    sync(&store);
    let before = shown(&store);
    for _ in 0..3 {
        compacts_once_more(&store);
    }
    assert_eq!(shown(&store), before);
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(shown(&store), before);
    assert!(store.stats().damage.is_empty());
}

fn compacts_once_more(store: &Store) {
    let before = store.stats().compactions;
    store.compact_eagerly(true);
    let started = Instant::now();
    while store.stats().compactions == before {
        assert!(started.elapsed() < PATIENCE, "it is not compacted");
        std::thread::sleep(Duration::from_millis(5));
    }
    store.compact_eagerly(false);
}

#[test]
fn a_copy_that_fails_is_given_up_and_the_store_goes_on_with_what_it_has() {
    for fault in [CommitFault::Fail, CommitFault::Panic] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        append(&store, 1, "kept");
        // Nobody else commits meanwhile.
        store.inject(fault);
        store.compact_eagerly(true);
        std::thread::sleep(Duration::from_millis(100));
        assert!(matches!(store.health(), Health::Serving), "{fault:?}");
        assert_eq!(store.stats().compactions, 0);
        store.inject(CommitFault::None);
        compacts_once_more(&store);
        append(&store, 1, "works");
        store.close().unwrap();
        let names = names(dir.path());
        assert_eq!(names.len(), 3, "nothing is left behind: {names:?}");
        assert_eq!(payloads(&open(dir.path()), 1), ["kept", "works"]);
    }
}

/// Not a test by itself: the process that a failpoint is set for. It fails if the store does more
/// than give the copy up.
#[test]
fn child() {
    let Ok(dir) = std::env::var("HH_COMPACTS_IN") else {
        return;
    };
    let store = open(Path::new(&dir));
    append(&store, 1, "kept");
    match std::env::var("HH_FAILPOINT").unwrap().contains("stall") {
        true => opened_again_beside_a_stalled_compaction(&store, Path::new(&dir)),
        false => {
            compacts_once_more(&store);
            assert_eq!(store.stats().reopened, 0, "it failed");
        }
    }
    assert_eq!(payloads(&store, 1), ["kept"]);
    store.close().unwrap();
}

/// The compaction has been announced, and nothing more.
fn opened_again_beside_a_stalled_compaction(store: &Store, dir: &Path) {
    let is_announced = || dir.join("COMPACTION").exists();
    store.compact_eagerly(true);
    until("announced", is_announced);
    store.compact_eagerly(false);
    store.inject(CommitFault::Fail);
    let refused = try_append(store, 2, vec![hint(1, "unknown")]).remove(0);
    assert!(refused.is_err());
    store.inject(CommitFault::None);
    until("given up", || store.stats().reopened > 0 || !is_announced());
    assert!(!is_announced(), "opened again while it is compacted");
    until("reopened", || matches!(store.health(), Health::Serving));
}

/// What a child said on its way to a good end.
fn child_with(failpoint: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = child_for("space::child")
        .env("HH_COMPACTS_IN", dir.path())
        .env("HH_FAILPOINT", failpoint)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{failpoint}: {said}");
    assert!(said.contains("@failpoint"), "{failpoint}: never reached");
    said
}

#[test]
fn wherever_a_copy_fails_it_alone_is_given_up() {
    for point in ["announced", "begun", "copied", "caught up"] {
        for action in ["error", "panic"] {
            child_with(&format!("compact: {point}/{action}/1"));
        }
    }
}

#[test]
fn a_store_that_fails_is_not_opened_again_beside_a_compaction_that_goes_on() {
    child_with("compact: announced/stall/1");
}

#[test]
fn a_store_that_fails_while_it_is_compacted_reopens_itself_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.compact_eagerly(true);
    let mut answered = Vec::new();
    // The waits before it is opened again grow.
    for round in 0..5 {
        append(&store, 1, format!("{round} before"));
        answered.push(format!("{round} before"));
        store.inject(CommitFault::Fail);
        let unknown = format!("{round} unknown");
        let result = try_append(&store, 1, vec![hint(1, unknown)]).remove(0);
        assert!(result.is_err());
        store.inject(CommitFault::None);
        let started = Instant::now();
        while !matches!(store.health(), Health::Serving) {
            assert!(started.elapsed() < PATIENCE, "{:?}", store.health());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    compacts_once_more(&store);
    let mut found: Vec<Bytes> = Vec::new();
    // One queue after the other: each failure began a new one.
    while let Some(last) = hints(&store, 1).last().cloned() {
        found.extend(payloads(&store, 1));
        store.ack(NodeId(1), last.mark, Leave::Delivered).unwrap();
    }
    found.retain(|text| !text.ends_with(b"unknown"));
    assert_eq!(found, answered);
    assert!(store.stats().reopened > 0 && store.stats().damage.is_empty());
    store.close().unwrap();
}

#[test]
fn a_copy_that_hangs_is_in_nobodys_way_but_keeps_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        commit_timeout: Duration::from_secs(1),
        ..config(dir.path())
    };
    let try_open = || Store::open(&config, Box::new(|_| {}));
    let store = try_open().unwrap();
    append(&store, 1, "kept");
    store.inject(CommitFault::Hang);
    store.compact_eagerly(true);
    // Long enough for the watchdog to see it.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(payloads(&store, 1), ["kept"]);
    assert!(matches!(store.health(), Health::Serving));
    store.close().unwrap();
    let held = try_open().err().unwrap();
    assert!(matches!(held, OpenError::Locked { .. }), "{held:?}");
    store.inject(CommitFault::None);
    let started = Instant::now();
    let store = loop {
        match try_open() {
            Ok(store) => break store,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error:?}"),
        }
    };
    assert_eq!(payloads(&store, 1), ["kept"]);
    store.close().unwrap();
    assert_eq!(names(dir.path()).len(), 3);
}

/// sled dropped a block that is in its log still; replay will find it there, so that log must stay.
#[test]
fn a_store_that_misses_hints_is_not_compacted_before_they_were_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for text in ["first", "missing", "last"] {
        append(&store, 1, text);
    }
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = chunk_keys(&hints, 1).remove(1);
        hints.remove(key).unwrap();
    });
    let store = open(dir.path());
    store.compact_eagerly(true);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(store.stats().compactions, 0);
    let first = hints(&store, 1).remove(0);
    store.ack(NodeId(1), first.mark, Leave::Delivered).unwrap();
    scrub(&store, 1);
    assert_eq!(payloads(&store, 1), ["missing", "last"]);
    compacts_once_more(&store);
    assert_eq!(payloads(&store, 1), ["missing", "last"]);
}

#[test]
fn what_a_compaction_left_is_removed_by_the_next_open_and_nothing_else_is() {
    let copied = |left: &str, current: &str, compaction: &str| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        append(&store, 1, "kept");
        store.close().unwrap();
        let left = dir.path().join(left);
        fs::create_dir(&left).unwrap();
        copy_files(&generation(dir.path()), &left);
        fs::write(dir.path().join("CURRENT"), format!("{current}\n")).unwrap();
        fs::write(dir.path().join("COMPACTION"), compaction).unwrap();
        let store = open(dir.path());
        assert_eq!(payloads(&store, 1), ["kept"]);
        store.close().unwrap();
        let names = names(dir.path());
        names
            .into_iter()
            .filter(|it| !["CURRENT", "LOCK"].contains(&it.as_str()))
            .collect::<Vec<_>>()
    };
    let marker = "gen-000001 gen-000002\n";
    assert_eq!(copied("gen-000002", "gen-000001", marker), ["gen-000001"]);
    assert_eq!(copied("gen-000002", "gen-000002", marker), ["gen-000002"]);
    let marker = "gen-999999 gen-1000000\n";
    assert_eq!(copied("gen-1000000", "gen-000001", marker), ["gen-000001"]);
    // What it does not name is no compaction's: it is moved aside, as after any other change.
    for marker in ["", "gen-000001", "gen-000001 ../hints", "gen-000001 notes"] {
        let left = copied("gen-000002", "gen-000001", marker);
        assert_eq!(left.len(), 2, "{marker}: {left:?}");
        assert!(
            left[0].starts_with("aside-") && left[1] == "gen-000001",
            "{left:?}"
        );
    }
}
