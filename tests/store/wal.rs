//! Hints for many nodes at once are one block at first, are read from memory, and are flushed into
//! blocks of their queues later: none is lost on the way, none comes twice, and what left meanwhile
//! never comes back.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use crate::common::{copy::copy_of, *};
use bytes::Bytes;
use hinted_handoff::{
    Health, NodeId, database_config,
    internals::{CommitFault, PeekedHint, Store},
    open_database, salvage, sled,
};

const NODES: u64 = 40;

/// What a hint says of itself; so many bytes that do not compress.
fn payload(node: u64, number: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(node * 1_000_000 + number);
    let mut payload = vec![0; bytes];
    random.fill(&mut payload);
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

/// A hint to each node, all at once; again and again.
fn append_rounds(store: &Store, rounds: std::ops::Range<u64>, bytes: usize) {
    append_to(store, NODES, rounds, bytes);
}

fn append_to(store: &Store, nodes: u64, rounds: std::ops::Range<u64>, bytes: usize) {
    for number in rounds {
        let (tell, told) = mpsc::channel();
        for node in 1..=nodes {
            let tell = tell.clone();
            let done = move |stored: Result<_, _>| tell.send(stored.map(drop)).unwrap();
            let hint = hint(1, payload(node, number, bytes));
            store.append(NodeId(node), hint, Box::new(done));
        }
        (1..=nodes).for_each(|_| told.recv().unwrap().unwrap());
    }
}

/// Each node has just these at the head, in order.
fn assert_pending(store: &Store, rounds: std::ops::Range<u64>, bytes: usize) {
    for node in 1..=NODES {
        let number = |found: Bytes| {
            let number = u64::from_be_bytes(found[..8].try_into().unwrap());
            (payload(node, number, bytes) == found).then_some(number)
        };
        let found: Vec<_> = payloads(store, node).into_iter().map(number).collect();
        let wanted: Vec<_> = rounds.clone().map(Some).collect();
        assert_eq!(found, wanted, "node {node}");
    }
    let damage = store.stats().damage;
    assert!(damage.is_empty(), "{damage:?}");
}

fn deliver_all(store: &Store) {
    for node in 1..=NODES {
        let taken = hints(store, node);
        store.deliver(NodeId(node), &taken).unwrap();
    }
}

/// Keys of first chunks in a closed store: those of WAL records, and those of blocks of queues.
fn blocks(dir: &Path) -> (usize, usize) {
    behind_its_back(dir, |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let keys = hints.iter().keys().map(Result::unwrap);
        let first_chunks =
            keys.filter(|key| key.len() == 27 && key[16] == 1 && key[25..] == [0, 0]);
        let (wal, of_queues): (Vec<sled::IVec>, Vec<_>) =
            first_chunks.partition(|key| key.starts_with(&u64::MAX.to_be_bytes()));
        (wal.len(), of_queues.len())
    })
}

/// A round may be two groups: its first hint may go alone.
fn assert_few(blocks: usize, rounds: usize) {
    assert!((1..=2 * rounds).contains(&blocks), "{blocks} for {rounds}");
}

#[test]
fn hints_of_many_nodes_are_one_block_and_each_node_reads_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_rounds(&store, 0..5, 300);
    assert_pending(&store, 0..5, 300);
    let killed = copy_of(dir.path());
    let (wal, of_queues) = blocks(killed.path());
    assert_few(wal, 5);
    assert!(of_queues <= 5, "{of_queues}");

    // A crash leaves them to the next open.
    let found = open(killed.path());
    assert_pending(&found, 0..5, 300);
    // New ones go to new queues, which are read when the old ones are empty.
    append_rounds(&found, 5..7, 300);
    let twice = copy_of(killed.path());
    drop(found);
    let found = open(twice.path());
    assert_pending(&found, 0..5, 300);
    deliver_all(&found);
    assert_pending(&found, 5..7, 300);

    // A clean stop leaves none: each node has one block of them, and what went alone.
    store.close().unwrap();
    let (_, of_queues) = blocks(dir.path());
    assert!(
        (NODES as usize..=NODES as usize + 10).contains(&of_queues),
        "{of_queues}"
    );
    let store = open(dir.path());
    assert_pending(&store, 0..5, 300);
    // The next groups trim them.
    append(&store, 1, "x");
    append(&store, 1, "x");
    store.close().unwrap();
    let (wal, _) = blocks(dir.path());
    assert!(wal <= 1, "all but the last are gone, {wal} are there");
}

#[test]
fn when_many_have_gathered_they_are_flushed_while_others_come() {
    const BYTES: usize = 8_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // 31 MiB, of which 16 begin a pass.
    append_rounds(&store, 0..100, BYTES);
    assert_pending(&store, 0..100, BYTES);
    sync(&store);
    let killed = copy_of(dir.path());
    assert_pending(&open(killed.path()), 0..100, BYTES);
    store.close().unwrap();
    let (_, of_queues) = blocks(dir.path());
    // Not one for each of the hints, nor was any flushed twice.
    assert!(of_queues < 100 * NODES as usize / 4, "{of_queues}");
    assert_pending(&open(dir.path()), 0..100, BYTES);
}

#[test]
fn what_was_delivered_meanwhile_is_never_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_rounds(&store, 0..5, 300);
    deliver_all(&store);
    sync(&store);
    let killed = copy_of(dir.path());
    store.close().unwrap();
    let (_, of_queues) = blocks(dir.path());
    assert!(of_queues <= 5, "those that went alone: {of_queues}");
    assert_pending(&open(dir.path()), 0..0, 300);
    assert_pending(&open(killed.path()), 0..0, 300);
}

#[test]
fn a_node_that_is_removed_stays_so_though_a_wal_record_has_hints_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_rounds(&store, 0..5, 300);
    let removed = told(|done| store.remove_node(NodeId(3), done)).unwrap();
    assert_eq!(removed.hints, 5);
    // Until its queue was trimmed, with some groups for that to ride with.
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        append(&store, 1, "x");
    }
    sync(&store);
    let killed = copy_of(dir.path());
    store.close().unwrap();
    for dir in [killed.path(), dir.path()] {
        let store = open(dir);
        assert_eq!(payloads(&store, 3).len(), 0);
        assert_eq!(hints(&store, 4).len(), 5);
        let damage = store.stats().damage;
        assert!(damage.is_empty(), "{damage:?}");
    }
}

/// Where the log is not searched, what does not read is lost, and where that ends is told by the
/// next block that does: nothing of what stands in WAL records must be lost with it.
#[test]
fn what_is_not_flushed_yet_is_not_taken_for_missing() {
    let dir = tempfile::tempdir().unwrap();
    let child = child_for("wal::child")
        .env("HH_WAL_IN", dir.path())
        .env("HH_SWITCHED_OFF", "LogScan")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}");
}

/// Not a test by itself: the process in which the log is not searched.
#[test]
fn child() {
    let Ok(dir) = std::env::var("HH_WAL_IN") else {
        return;
    };
    let path = Path::new(&dir).join("db");
    let db = open_database(&database_config(&path)).unwrap();
    let store = Store::open_in(&db, &config(&path), Box::new(|_| {})).unwrap();
    append(&store, 2, "first");
    append_rounds(&store, 0..3, 300);
    // The disk damages the block that went alone, and all that did.
    let hints = db.open_tree("hh/hints").unwrap();
    let own = hints.scan_prefix(2_u64.to_be_bytes()).keys();
    for key in own.map(Result::unwrap).filter(|key| key.len() == 27) {
        hints.insert(key, vec![7; 60]).unwrap();
    }
    scrub(&store, 2);
    let found = payloads(&store, 2);
    let wanted = (0..3).map(|it| payload(2, it, 300));
    let kept = wanted.filter(|wanted| found.iter().any(|it| it == wanted));
    assert!(kept.count() >= 2, "{} are left", found.len());
}

#[test]
fn a_salvage_has_what_stands_in_wal_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_rounds(&store, 0..3, 300);
    let killed = copy_of(dir.path());
    let into = killed.path().join("salvaged");
    salvage(generation(killed.path()), &into).unwrap();
    assert_pending(&open(&into), 0..3, 300);
}

#[test]
fn a_store_is_compacted_with_what_stands_in_wal_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_rounds(&store, 0..3, 300);
    store.compact_eagerly(true);
    until("compacted", || store.stats().compactions >= 2);
    store.compact_eagerly(false);
    assert_pending(&store, 0..3, 300);
    // Not copied: the old generation is being removed.
    store.close().unwrap();
    assert_pending(&open(dir.path()), 0..3, 300);
}

#[test]
fn a_store_that_failed_and_was_opened_again_has_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_rounds(&store, 0..3, 300);
    store.inject(CommitFault::Fail);
    let (tell, told) = mpsc::channel();
    let done = move |stored: Result<_, _>| tell.send(stored.is_ok()).unwrap();
    store.append(NodeId(1), hint(1, "unknown"), Box::new(done));
    assert!(!told.recv().unwrap());
    store.inject(CommitFault::None);
    until("reopened", || matches!(store.health(), Health::Serving));
    for node in 2..=NODES {
        let mut pending = hints(&store, node);
        assert_eq!(pending.len(), 3);
        // What is left would be another block than the open made of all three.
        pending.truncate(1);
        store.deliver(NodeId(node), &pending).unwrap();
    }
    store.close().unwrap();
    let (_, of_queues) = blocks(dir.path());
    assert!(
        of_queues <= NODES as usize + 7,
        "some were flushed twice: {of_queues}"
    );
}

/// A group writes 500 cursors, so with many more that moved a pass ends before those of all queues
/// are written that it passed over.
#[test]
fn where_a_pass_ends_the_cursor_of_every_queue_is_behind_what_it_passed_over() {
    const MANY: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    append_to(&store, MANY, 0..2, 16);
    let first = |node| hints(&store, node).into_iter().take(1).collect();
    let taken: Vec<(u64, Vec<PeekedHint>)> = (1..=MANY).map(|node| (node, first(node))).collect();
    let queue = taken[0].1[0].mark.queue;
    for (node, hints) in &taken {
        store.deliver(NodeId(*node), hints).unwrap();
    }
    // All is flushed before damage is scrubbed, and there is none. From then on no group gets
    // through.
    let (tell, told) = mpsc::channel();
    let failing = Arc::clone(&store);
    store.scrub(NodeId(1), queue, move |scrubbed| {
        failing.inject(CommitFault::Fail);
        tell.send(scrubbed.is_ok()).unwrap();
    });
    assert!(told.recv().unwrap());
    until("failed", || !matches!(store.health(), Health::Serving));
    store.inject(CommitFault::None);
    until("reopened", || matches!(store.health(), Health::Serving));
    let damage = store.stats().damage;
    assert!(
        damage.is_empty(),
        "{} of them: {:?}",
        damage.len(),
        damage[0]
    );
    for node in 1..=MANY {
        let found = payloads(&store, node);
        assert_eq!(found.last(), Some(&payload(node, 1, 16).into()));
        assert!(found.len() <= 2, "node {node}");
    }
}
