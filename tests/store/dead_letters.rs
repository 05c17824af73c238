//! Dead letters: kept until somebody sends them on or discards them, and each hint in exactly one
//! place whatever happens.
//!
//! Method: hints are dead-lettered at the store below, and looked at, sent on and discarded as a
//! host does. Unclean stops are copies of the files of a store that is open. The last test kills a
//! child at every step on the way.

mod crash;
mod damaged;
mod host;
mod many;
mod rescued;

use std::{path::Path, time::Duration};

use crate::common::{copy::copy_of, letters::*, *};
use hinted_handoff::{Amount, Config, LossReason, NodeId, Sequence, internals::Store};

const NODE: NodeId = NodeId(7);

/// Dead-letters all that waits.
fn make_all_dead_letters(store: &Store) {
    for hint in hints(store, NODE.0) {
        make_dead_letter(store, NODE.0, &hint).unwrap();
    }
}

/// The keys of all that is kept of hints.
fn keys(dir: &Path) -> Vec<Vec<u8>> {
    behind_its_back(dir, |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        hints
            .iter()
            .keys()
            .map(|key| key.unwrap().to_vec())
            .collect()
    })
}

/// Those of dead letters, and of their blocks.
fn letter_keys(dir: &Path) -> usize {
    let keys = keys(dir);
    keys.iter().filter(|key| key[16] >= 2).count()
}

#[test]
fn the_oldest_make_room_for_new_ones_and_the_journal_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_dead_letters: 3,
        ..config(dir.path())
    };
    let reopened = || Store::open(&config, Box::new(|_| {})).unwrap();
    let store = reopened();
    for number in 0..10 {
        append(&store, 7, format!("letter {number}"));
    }
    // One by one, and then several in the same group, of which none may be discarded twice.
    let all = hints(&store, 7);
    for hint in &all[..4] {
        make_dead_letter(&store, 7, hint).unwrap();
    }
    let told: Vec<_> = all[4..]
        .iter()
        .map(|hint| {
            let (tell, told) = std::sync::mpsc::channel();
            let hint = claimed(&store, 7, hint);
            store.make_dead_letter(NODE, hint, cause("rejected"), move |done| {
                tell.send(done).unwrap()
            });
            told
        })
        .collect();
    told.into_iter()
        .for_each(|told| told.recv().unwrap().unwrap());
    let seen = |store: &Store| -> Vec<u64> {
        letters(store, 7)
            .iter()
            .map(|(place, _)| place.sequence.0)
            .collect()
    };
    assert_eq!(seen(&store), [8, 9, 10]);
    let check = |store: &Store| {
        let losses = store.losses(0).unwrap();
        assert_eq!(
            losses.total(),
            Amount {
                hints: 7,
                bytes: 56
            }
        );
        assert_eq!(
            losses.by_reason.keys().collect::<Vec<_>>(),
            [&LossReason::DeadLetterQuota]
        );
        assert_eq!(
            store.nodes()[0].1.letters(),
            Amount {
                hints: 3,
                bytes: 24
            }
        );
    };
    check(&store);
    let copy = copy_of(dir.path());
    store.close().unwrap();
    let store = reopened();
    assert_eq!(seen(&store), [8, 9, 10]);
    check(&store);
    store.close().unwrap();
    assert_eq!(letter_keys(dir.path()), 6);

    let store = open(copy.path());
    assert_eq!(seen(&store), [8, 9, 10]);
    check(&store);
    store.close().unwrap();

    // In bytes: the newest is kept, however large.
    let config = Config {
        max_dead_letter_bytes: 20,
        ..config.clone()
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    append(&store, 7, "letter 12, longer");
    append(&store, 7, "letter 13, which is far too long");
    let all = hints(&store, 7);
    make_dead_letter(&store, 7, &all[0]).unwrap();
    assert_eq!(seen(&store), [11]);
    make_dead_letter(&store, 7, &all[1]).unwrap();
    assert_eq!(seen(&store), [12]);
    println!("dead_letters: 11 evicted, none twice");
}

/// Queues change hands with a rename; which of them was begun first does not.
#[test]
fn of_several_queues_the_one_that_was_begun_first_makes_room_first_whoever_has_it_by_now() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_dead_letters: 4,
        ..config(dir.path())
    };
    let mut store = Store::open(&config, Box::new(|_| {})).unwrap();
    for (node, text) in [(8, "a"), (8, "b"), (7, "c"), (7, "d")] {
        append(&store, node, text);
    }
    // The other way round: it is not about when they were dead-lettered.
    for node in [7, 8] {
        for hint in hints(&store, node) {
            make_dead_letter(&store, node, &hint).unwrap();
        }
    }
    told(|done| store.rename_node(NodeId(8), NODE, done)).unwrap();
    for text in ["e", "f", "g"] {
        append(&store, 7, text);
    }
    let seen = |store: &Store| -> Vec<(u64, u64)> {
        let letters = letters(store, 7).into_iter();
        let places = letters.map(|(place, _)| place.named());
        places.map(|(queue, at)| (queue.0, at.0)).collect()
    };
    assert_eq!(seen(&store), [(1, 1), (1, 2), (2, 1), (2, 2)]);
    for left in [
        [(1, 2), (2, 1), (2, 2), (3, 1)],
        [(2, 1), (2, 2), (3, 1), (3, 2)],
        [(2, 2), (3, 1), (3, 2), (3, 3)],
    ] {
        make_dead_letter(&store, 7, &hints(&store, 7)[0]).unwrap();
        assert_eq!(seen(&store), left);
        store.close().unwrap();
        store = Store::open(&config, Box::new(|_| {})).unwrap();
        assert_eq!(seen(&store), left);
    }
    let losses = store.losses(0).unwrap().entries.into_iter();
    let lost = losses.map(|(_, it)| {
        let place = it.place.unwrap();
        let (first, last) = (place.first.0, place.last.0);
        (it.node, place.queue.0, first, last, it.reason)
    });
    let quota = LossReason::DeadLetterQuota;
    let expected = [(NODE, 1, 1, 1), (NODE, 1, 2, 2), (NODE, 2, 1, 1)];
    let expected = expected.map(|(node, queue, first, last)| (node, queue, first, last, quota));
    assert_eq!(lost.collect::<Vec<_>>(), expected);
}

#[test]
fn large_ones_are_kept_over_restarts_and_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [2 << 20, 16 << 20, 900_000];
    let payloads_written: Vec<_> = (0..3).map(|at| noise(sizes[at], at as u64)).collect();
    let store = open(dir.path());
    for payload in &payloads_written {
        append(&store, 7, payload.clone());
    }
    make_all_dead_letters(&store);
    let copy = copy_of(dir.path());
    store.close().unwrap();
    for dir in [dir.path(), copy.path()] {
        let store = open(dir);
        let places: Vec<_> = letters(&store, 7)
            .into_iter()
            .map(|(place, _)| place)
            .collect();
        assert_eq!(places.len(), 3);
        for place in &places {
            redrive(&store, 7, *place).unwrap().unwrap();
        }
        assert_eq!(payloads(&store, 7), payloads_written);
        store.close().unwrap();
        let store = open(dir);
        assert_eq!(payloads(&store, 7), payloads_written);
        assert_eq!(letters(&store, 7), []);
        for hint in hints(&store, 7) {
            deliver(&store, 7, &hint);
        }
        sync(&store);
        settled(&store);
        store.close().unwrap();
        assert_eq!(letter_keys(dir), 0);
        // The last block of a queue stays, with the padding keys behind it.
        assert!(
            keys(dir).len() <= (900_000 / 16_384) + 3 + 9,
            "{}",
            keys(dir).len()
        );
    }
    println!("dead_letters: payloads of 2 MiB, 16 MiB and 900 KB came back, twice");
}

/// Gives trimming its time: it goes on group by group.
fn settled(store: &Store) {
    for _ in 0..40 {
        sync(store);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn space_is_given_back_when_they_are_discarded_or_sent_on_or_their_node_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..30 {
        append(&store, 7, noise(40_000, number));
    }
    make_all_dead_letters(&store);
    store.close().unwrap();
    let full = letter_keys(dir.path());
    assert_eq!(full, 30 * (3 + 1), "three chunks and a record each");

    let store = open(dir.path());
    let places: Vec<_> = letters(&store, 7)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    assert_eq!(discard(&store, 7, places[..10].to_vec()).hints, 10);
    for place in &places[10..20] {
        redrive(&store, 7, *place).unwrap().unwrap();
    }
    settled(&store);
    store.close().unwrap();
    assert_eq!(
        letter_keys(dir.path()),
        10 * 4 + 10,
        "ten letters, and ten that are pointed to"
    );

    // A removal is not yet trimmed when the process dies: the rest goes later, and nothing comes
    // back.
    let store = open(dir.path());
    assert_eq!(remove_node(&store, 7).hints, 10);
    let copy = copy_of(dir.path());
    settled(&store);
    let losses = store.losses(0).unwrap();
    assert_eq!(losses.total().hints, 30);
    store.close().unwrap();
    for dir in [dir.path(), copy.path()] {
        let store = open(dir);
        settled(&store);
        assert!(
            store.nodes().is_empty() && store.stats().damage.is_empty(),
            "{:?}",
            store.stats().damage
        );
        store.close().unwrap();
        let store = open(dir);
        assert!(
            store.nodes().is_empty() && store.stats().damage.is_empty(),
            "{:?}",
            store.stats().damage
        );
        store.close().unwrap();
        assert_eq!(keys(dir), Vec::<Vec<u8>>::new());
    }
    println!("dead_letters: {full} keys, none left");
}

#[test]
fn letters_of_a_retired_queue_stay_and_its_last_trace_goes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 7, "one");
    append(&store, 7, "two");
    let copy = copy_of(dir.path());
    store.close().unwrap();
    // The queue is closed there, and retires once it is drained.
    let store = open(copy.path());
    make_all_dead_letters(&store);
    settled(&store);
    assert!(store.nodes()[0].1.queues.is_empty());
    let places: Vec<_> = letters(&store, 7)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 2);
    let now = redrive(&store, 7, places[0]).unwrap().unwrap();
    assert_ne!(now.queue, places[0].queue.queue);
    store.close().unwrap();

    let store = open(copy.path());
    assert_eq!(store.stats().damage, []);
    assert_eq!(letters(&store, 7).len(), 1);
    discard(&store, 7, vec![places[1]]);
    let hint = hints(&store, 7).pop().unwrap();
    assert_eq!(hint.hint.origin, Some((places[0].queue.queue, Sequence(1))));
    deliver(&store, 7, &hint);
    settled(&store);
    store.close().unwrap();
    let queues: std::collections::BTreeSet<_> = keys(copy.path())
        .iter()
        .map(|key| key[8..16].to_vec())
        .collect();
    assert_eq!(queues.len(), 1, "only the queue in use");
    for _ in 0..2 {
        let store = open(copy.path());
        assert_eq!(store.stats().damage, []);
        assert_eq!(store.nodes()[0].1.pending(), Amount::default());
        store.close().unwrap();
    }
}

#[test]
fn an_error_of_any_length_is_cut_to_what_a_record_may_hold() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 7, "one");
    let hint = claimed(&store, 7, &hints(&store, 7)[0]);
    let long = "ä".repeat(1 << 20);
    told(|done| store.make_dead_letter(NODE, hint, cause(&long), done)).unwrap();
    let (_, dead) = letters(&store, 7).remove(0);
    assert_eq!(dead.cause.error, "ä".repeat(2048));
}

/// Not a test by itself: see [`crash`].
#[test]
fn child() {
    crash::child();
}

#[test]
fn a_crash_at_any_step_leaves_each_hint_in_exactly_one_place() {
    crash::at_every_step();
}
