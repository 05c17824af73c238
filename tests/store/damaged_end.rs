//! Damage in the middle of a log that was not closed ends it for sled, as a crash does. It is told
//! from one where records of several commit groups stand behind, each of which was durable before
//! the next was written.
//!
//! Method: the files of an open store are copied, as a kill leaves them, and bytes are changed in
//! the copy.

use std::{fs, path::Path};

use crate::common::{copy::copy_of, *};
use hinted_handoff::{
    NodeId,
    internals::{Leave, Store},
    offline::{ClosedStore, Selection, Severity, Verified, verify},
    salvage,
};

const NODE: u64 = 2;

/// Hints in a group each.
fn append_each(store: &Store, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        append(store, NODE, marked(number));
    }
}

/// Damages the place where these bytes were written first.
fn damage_first(dir: &Path, bytes: &[u8]) {
    let log = generation(dir).join("db");
    let mut content = fs::read(&log).unwrap();
    let mut windows = content.windows(bytes.len());
    let at = windows.position(|it| it == bytes).unwrap();
    content[at] ^= 0x10;
    fs::write(&log, content).unwrap();
}

/// The same in the middle of all that was written.
fn damage_the_middle(dir: &Path) {
    let log = generation(dir).join("db");
    let mut content = fs::read(&log).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[used / 2] ^= 0x10;
    fs::write(&log, content).unwrap();
}

fn checked(dir: &Path) -> Verified {
    let before = fs::read(generation(dir).join("db")).unwrap();
    let verified = verify(dir, |_, _| {}).unwrap();
    assert_eq!(fs::read(generation(dir).join("db")).unwrap(), before);
    let closed = ClosedStore::open(dir).unwrap();
    let told = |it: &Severity| closed.findings().iter().any(|found| found.severity == *it);
    let is_lost = verified
        .findings
        .iter()
        .any(|it| it.severity == Severity::Lost);
    assert_eq!(told(&Severity::Lost), is_lost, "every reader is told");
    verified
}

/// What salvage finds.
fn salvaged(dir: &Path) -> u64 {
    let into = tempfile::tempdir().unwrap();
    salvage(generation(dir), into.path()).unwrap();
    let store = ClosedStore::open(into.path()).unwrap();
    let hints = store.hints(&Selection::default());
    hints.map(Result::unwrap).count() as u64
}

fn open_and_look(dir: &Path, node: u64) -> usize {
    let store = open(dir);
    let found = payloads(&store, node).len();
    store.close().unwrap();
    found
}

#[test]
fn damage_with_durable_groups_behind_it_is_told_with_how_many_hints_it_cuts_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_each(&store, 1..=200);
    let killed = copy_of(dir.path());
    assert_eq!(checked(killed.path()).findings, []);
    // A link, which nothing else has: the leaf is written as a whole with the tenth change.
    damage_first(killed.path(), &marked(44));
    let found = checked(killed.path());
    assert!(!found.is_sound());
    let lost = &found.findings[0];
    assert_eq!(lost.severity, Severity::Lost);
    assert!(lost.what.contains("hh salvage"), "{}", lost.what);
    assert_eq!(found.pending.hints, 43);
    // The damaged one may have a copy in a leaf that was written as a whole.
    let all = salvaged(killed.path());
    assert!(all >= 199, "{all}");
    assert_eq!(lost.hints, all - 43, "{}", lost.what);
    store.close().unwrap();
}

#[test]
fn the_same_of_wal_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    const NODES: u64 = 40;
    let append_to_all = |number: u64| {
        let (tell, told) = std::sync::mpsc::channel();
        for node in 1..=NODES {
            let tell = tell.clone();
            let done = move |stored: Result<_, _>| tell.send(stored.map(drop)).unwrap();
            store.append(
                NodeId(node),
                hint(1, marked(number * NODES + node)),
                Box::new(done),
            );
        }
        (1..=NODES).for_each(|_| told.recv().unwrap().unwrap());
    };
    (1..=30).for_each(append_to_all);
    let killed = copy_of(dir.path());
    assert_eq!(checked(killed.path()).findings, []);
    damage_the_middle(killed.path());
    let found = checked(killed.path());
    let lost = &found.findings[0];
    assert_eq!(lost.severity, Severity::Lost, "{found:?}");
    let all = salvaged(killed.path());
    assert_eq!(found.pending.hints + lost.hints, all, "{found:?}");
    assert!(all >= 29 * NODES, "{all}");
    store.close().unwrap();
}

#[test]
fn hints_that_left_behind_the_damage_are_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_each(&store, 1..=100);
    let last = hints(&store, NODE)[79].mark;
    store.ack(NodeId(NODE), last, Leave::Delivered).unwrap();
    sync(&store);
    append_each(&store, 101..=104);
    let killed = copy_of(dir.path());
    damage_first(killed.path(), &marked(44));
    let found = checked(killed.path());
    assert_eq!(found.findings[0].severity, Severity::Lost);
    assert_eq!(found.findings[0].hints, 24, "{found:?}");
    store.close().unwrap();
}

#[test]
fn a_hole_before_the_last_group_is_what_a_crash_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_each(&store, 1..=41);
    // One group that is encoded as two blocks, behind another one, which is not on the disk.
    append(&store, NODE, marked(42));
    let many = (0..64).map(|number| hint(1, noise(4_000, number)));
    let stored = try_append(&store, NODE, many.collect());
    assert!(stored.iter().all(Result::is_ok));
    let killed = copy_of(dir.path());
    damage_first(killed.path(), &marked(42));
    let found = checked(killed.path());
    assert!(found.is_sound(), "{found:?}");
    assert!(!found.findings.is_empty(), "something is behind");
    assert_eq!(
        open_and_look(killed.path(), NODE) as u64,
        found.pending.hints
    );
    store.close().unwrap();
}
