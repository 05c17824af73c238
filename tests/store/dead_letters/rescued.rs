//! Dead letters and the loss journal after a removal or a dead-lettering that was cut short, a
//! rebuild and a salvage.

use std::{fs, path::Path};

use hinted_handoff::{
    LossReason, NodeId,
    internals::{Place, Store},
    salvage,
};

use super::damaged::{
    NODE, RECORD, deliver_all, filled, flip, id, key, keys, pending, stop_uncleanly,
};
use crate::common::{
    letters::{cause, letters_read, lose_at, make_dead_letter_at, redrive_as_it_is},
    *,
};

/// Not a test of its own: the process that dies.
#[test]
fn child() {
    let Ok(dir) = std::env::var("HH_DIES_IN") else {
        return;
    };
    let store = open(Path::new(&dir));
    match std::env::var("HH_FAILPOINT").unwrap().starts_with("drop") {
        true => drop(told(|done| store.remove_node(NodeId(NODE), done))),
        false => {
            make_dead_letter_at(&store, NODE, 1, "rejected");
            // The dead-lettering was in the first group, or behind one that only trims.
            append(&store, 9, "for another");
        }
    }
}

fn dies(dir: &Path, failpoint: &str) {
    let status = child_for("dead_letters::rescued::child")
        .env("HH_DIES_IN", dir)
        .env("HH_FAILPOINT", failpoint)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert!(!status.unwrap().success(), "{failpoint}");
}

#[test]
fn a_removal_that_is_cut_short_takes_dead_letters_with_it_and_the_node_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    dies(dir.path(), "drop: tombstone durable/abort/1");
    for _ in 0..3 {
        let store = open(dir.path());
        assert_eq!(store.stats().damage, []);
        assert!(store.nodes().iter().all(|(node, _)| node.0 != NODE));
        // Five that waited or were dead letters, one before.
        assert_eq!(store.losses(0).unwrap().total().hints, 6);
        for _ in 0..3 {
            append(&store, 9, "gives the commit thread something to trim with");
        }
        store.close().unwrap();
    }
    assert_eq!(keys(dir.path()), [0; 4]);
}

#[test]
fn dead_lettering_is_whole_or_not_at_all() {
    let mut seen = [0; 2];
    for failpoint in [
        "letter: block written/abort/1",
        "transaction: applied/abort/1",
        "commit: before fsync/abort/2",
        "commit: published/abort/2",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        append(&store, NODE, marked(1));
        stop_uncleanly(&store, dir.path());
        dies(dir.path(), failpoint);
        let store = open(dir.path());
        let (letters, pending) = (letters_read(&store, NODE).len(), pending(&store).len());
        assert_eq!(letters + pending, 1, "{failpoint}");
        seen[letters] += 1;
        deliver_all(&store);
        store.close().unwrap();
        let counts = keys(dir.path());
        assert_eq!(counts, [0, 0, letters, letters], "{failpoint}");
        assert_eq!(open(dir.path()).stats().damage, []);
    }
    // Cut short before it was durable, and behind that.
    assert!(seen[0] >= 2 && seen[1] >= 1, "{seen:?}");
}

/// The header of the log's segment: sled takes it for empty.
fn destroy_log(dir: &Path) {
    let log = generation_in_use(dir).join("db");
    let mut bytes = fs::read(&log).unwrap();
    bytes[2] ^= 1;
    fs::write(log, bytes).unwrap();
}

/// With dead letters, one of which the disk damages, and a node that had some and was removed.
fn filled_and_damaged(dir: &Path) {
    filled(dir);
    let store = open(dir);
    append(&store, 3, "for one that is removed");
    append(&store, 3, "and still waits");
    make_dead_letter_at(&store, 3, 1, "rejected");
    told(|done| store.remove_node(NodeId(3), done)).unwrap();
    store.close().unwrap();
    assert!(destroy(dir, &marked(5)) > 0);
    destroy_log(dir);
}

fn check_kept(store: &Store) {
    assert_eq!(pending(store), [1, 2, 7]);
    let listed = store.letters(NodeId(NODE), None, 9).unwrap();
    let sequences: Vec<_> = listed.iter().map(|(place, _)| place.sequence.0).collect();
    assert_eq!(sequences, [3, 5]);
    assert_eq!(listed[0].1.cause, cause("rejected"));
    let (_, _, hint) = store.letter(NodeId(NODE), id(store, 3)).unwrap().unwrap();
    assert_eq!(hint.payload, marked(3));
    assert!(store.letter(NodeId(NODE), id(store, 5)).is_err());
    let losses = store.losses(0).unwrap();
    let reasons: Vec<_> = losses
        .entries
        .iter()
        .map(|(index, it)| (*index, it.reason, it.amount.hints))
        .collect();
    let expected = [
        (0, LossReason::Expired, 1),
        (1, LossReason::Discarded, 1),
        (2, LossReason::Discarded, 1),
    ];
    assert_eq!(reasons, expected);
    assert!(store.letters(NodeId(3), None, 9).is_err(), "it was removed");
    assert!(store.nodes().iter().all(|(node, _)| node.0 != 3));
}

#[test]
fn a_rebuild_keeps_dead_letters_and_the_loss_journal() {
    let dir = tempfile::tempdir().unwrap();
    filled_and_damaged(dir.path());
    let store = open(dir.path());
    assert!(store.stats().moved_aside.is_some());
    check_kept(&store);
    // The journal goes on behind what it had.
    lose_at(&store, NODE, 2, LossReason::Quota);
    assert_eq!(store.losses(0).unwrap().entries[3].0, 3);
    let place = store.letters(NodeId(NODE), None, 1).unwrap()[0].0;
    redrive_as_it_is(&store, NODE, place);
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().damage, []);
    assert_eq!(pending(&store), [1, 7, 8]);
}

#[test]
fn salvage_keeps_dead_letters_and_the_loss_journal() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        filled_and_damaged(dir.path());
        let from = generation(dir.path());
        if !clean {
            fs::remove_file(from.join("CLEAN")).unwrap();
        }
        let into = dir.path().join("salvaged");
        salvage(&from, &into).unwrap();
        check_kept(&open(&into));
    }
}

fn dead_lettered(dir: &Path, sequences: &[u64]) -> Vec<Place> {
    let store = open(dir);
    for number in 1..=6 {
        append(&store, NODE, marked(number));
    }
    let places = sequences.iter();
    let places = places.map(|it| make_dead_letter_at(&store, NODE, *it, "rejected"));
    let places = places.collect();
    store.close().unwrap();
    places
}

fn discard(store: &Store, place: Place) {
    told(|done| store.discard(NodeId(NODE), vec![place], done)).unwrap();
}

fn kept_by_a_rebuild(dir: &Path) -> Vec<u64> {
    destroy_log(dir);
    let store = open(dir);
    assert!(store.stats().moved_aside.is_some());
    letters_read(&store, NODE)
        .iter()
        .map(|(at, _)| *at)
        .collect()
}

/// What went is known by numbers, so none of them is given out again.
#[test]
fn a_rebuild_keeps_dead_letters_that_came_after_others_went() {
    let dir = tempfile::tempdir().unwrap();
    let places = dead_lettered(dir.path(), &[2, 3]);
    let store = open(dir.path());
    discard(&store, places[1]);
    store.close().unwrap();
    // In a life that knows of it from the disk alone.
    let store = open(dir.path());
    make_dead_letter_at(&store, NODE, 4, "rejected");
    store.close().unwrap();
    assert_eq!(kept_by_a_rebuild(dir.path()), [2, 4]);
}

#[test]
fn a_rebuild_keeps_a_dead_letter_whose_record_was_damaged_before() {
    let dir = tempfile::tempdir().unwrap();
    let places = dead_lettered(dir.path(), &[2, 3, 5]);
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        for sequence in [2, 5] {
            flip(&hints, &key(RECORD, sequence));
        }
    });
    let store = open(dir.path());
    assert_eq!(store.stats().damage.len(), 2);
    // They had numbers of their own, and got others.
    discard(&store, places[1]);
    discard(&store, places[2]);
    store.close().unwrap();
    assert_eq!(kept_by_a_rebuild(dir.path()), [2]);
}
