//! What the disk gives back damaged or not at all is noticed, reported with its range, and replay
//! goes on behind it.
//!
//! Method: a store is closed, its sled database is changed behind its back as a failing disk (or
//! sled's recovery, which drops records silently) would, so that no copy of what was there is left
//! in its log (`rebuild.rs` is about those), and the store is opened again.

use crate::common::*;
use hinted_handoff::{
    Amount, NodeId, OpenError, Sequence, UnopenableReason,
    internals::{Leave, Peek, SCHEMA_VERSION},
};

const NODE: u64 = 2;

/// Five hints in blocks of their own: "hint-1" to "hint-5".
fn five_hints(dir: &std::path::Path) {
    let store = open(dir);
    for number in 1..=5 {
        append(&store, NODE, format!("hint-{number}"));
    }
    store.close().unwrap();
}

/// Damages the block of `hint-3` in some way; the store must deliver 1, 2, 4, 5 and report exactly
/// 3.
fn third_block_is_lost(change: impl FnOnce(&sled::Tree, &sled::IVec)) {
    let dir = tempfile::tempdir().unwrap();
    five_hints(dir.path());
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let key = chunk_keys(&hints, NODE).remove(2);
        change(&hints, &key);
    });
    let store = open(dir.path());
    let before = hints(&store, NODE);
    let texts: Vec<_> = before.iter().map(|it| it.hint.payload.clone()).collect();
    assert_eq!(texts, ["hint-1", "hint-2"]);
    store
        .ack(NodeId(NODE), before[1].mark, Leave::Delivered)
        .unwrap();
    scrub(&store, NODE);
    assert_eq!(lost_ranges(&store), [(3, 3)]);
    assert_eq!(payloads(&store, NODE), ["hint-4", "hint-5"]);
    let (_, queues) = store.nodes().remove(0);
    assert_eq!(queues.lost, Amount { hints: 1, bytes: 6 });
    assert_eq!(
        queues.pending(),
        Amount {
            hints: 2,
            bytes: 12
        }
    );

    // The loss is durable: it is neither reported nor met again.
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(payloads(&store, NODE), ["hint-4", "hint-5"]);
    assert_eq!(lost_ranges(&store), []);
}

#[test]
fn a_flipped_bit_costs_its_block_and_no_other() {
    third_block_is_lost(|hints, key| {
        let mut value = hints.get(key).unwrap().unwrap().to_vec();
        let last = value.len() - 1;
        value[last] ^= 0x10;
        hints.insert(key, value).unwrap();
    });
}

#[test]
fn a_truncated_block_costs_its_block_and_no_other() {
    third_block_is_lost(|hints, key| {
        let value = hints.get(key).unwrap().unwrap();
        hints.insert(key, &value[..value.len() / 2]).unwrap();
    });
}

#[test]
fn a_block_that_vanished_is_a_gap_that_is_noticed() {
    third_block_is_lost(|hints, key| {
        hints.remove(key).unwrap();
    });
}

#[test]
fn a_length_bomb_in_a_header_costs_its_block_and_no_memory() {
    third_block_is_lost(|hints, key| {
        let mut value = hints.get(key).unwrap().unwrap().to_vec();
        // Raw body bytes, at offset 30: four billion.
        value[30..34].fill(0xff);
        hints.insert(key, value).unwrap();
    });
}

#[test]
fn a_block_found_under_another_key_is_not_taken_for_the_right_one() {
    third_block_is_lost(|hints, key| {
        let other = chunk_keys(hints, NODE).remove(3);
        let value = hints.get(other).unwrap().unwrap();
        hints.insert(key, value).unwrap();
    });
}

#[test]
fn damage_in_the_middle_of_replay_is_skipped_with_only_what_was_not_yet_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let burst = (0..10)
        .map(|number| hint(1, format!("hint-{number}")))
        .collect();
    for result in try_append(&store, NODE, burst) {
        result.unwrap();
    }
    append(&store, NODE, "behind");
    let blocks_of_burst = hints(&store, NODE);
    store
        .ack(NodeId(NODE), blocks_of_burst[3].mark, Leave::Delivered)
        .unwrap();
    store.close().unwrap();
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        for key in chunk_keys(&hints, NODE) {
            let first = u64::from_be_bytes(key[17..25].try_into().unwrap());
            if first <= 10 {
                hints.remove(key).unwrap();
            }
        }
    });
    let store = open(dir.path());
    scrub(&store, NODE);
    assert_eq!(lost_ranges(&store), [(5, 10)]);
    assert_eq!(payloads(&store, NODE), ["behind"]);
}

#[test]
fn a_missing_tail_is_noticed_after_a_clean_stop_and_its_numbers_are_not_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    five_hints(dir.path());
    changed_for_good(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        for key in chunk_keys(&hints, NODE).split_off(3) {
            hints.remove(key).unwrap();
        }
    });
    let store = open(dir.path());
    let first = hints(&store, NODE);
    assert_eq!(first.len(), 3);
    let fresh = append(&store, NODE, "after");
    assert_ne!(fresh.queue, first[0].mark.queue.queue);
    assert_eq!(fresh.sequence, Sequence(1));
    store
        .ack(NodeId(NODE), first[2].mark, Leave::Delivered)
        .unwrap();
    scrub(&store, NODE);
    assert_eq!(lost_ranges(&store), [(4, 5)]);
    assert_eq!(payloads(&store, NODE), ["after"]);
}

#[test]
fn a_large_hint_that_misses_a_chunk_is_lost_alone_and_an_orphan_chunk_is_no_hint() {
    for missing in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        append(&store, NODE, "before");
        append(&store, NODE, noise(200_000, 1));
        append(&store, NODE, "behind");
        store.close().unwrap();
        changed_for_good(dir.path(), |db| {
            let hints = db.open_tree("hh/hints").unwrap();
            let keys = chunk_keys(&hints, NODE);
            assert!(keys.len() >= 5, "the large hint is in chunks");
            hints.remove(&keys[1 + missing]).unwrap();
        });
        let store = open(dir.path());
        let before = hints(&store, NODE);
        assert_eq!(before.len(), 1);
        store
            .ack(NodeId(NODE), before[0].mark, Leave::Delivered)
            .unwrap();
        scrub(&store, NODE);
        assert_eq!(lost_ranges(&store), [(2, 2)], "chunk {missing}");
        assert_eq!(payloads(&store, NODE), ["behind"]);
    }
}

#[test]
fn a_damaged_cursor_is_rebuilt_from_the_clean_summary_or_from_the_blocks() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        five_hints(dir.path());
        let store = open(dir.path());
        let peeked = hints(&store, NODE);
        store
            .ack(NodeId(NODE), peeked[2].mark, Leave::Delivered)
            .unwrap();
        store.close().unwrap();
        changed_for_good(dir.path(), |db| {
            let hints = db.open_tree("hh/hints").unwrap();
            let prefix = NODE.to_be_bytes();
            let (key, value) = hints.scan_prefix(prefix).next().unwrap().unwrap();
            assert_eq!(key.len(), 17, "the cursor's key comes first");
            let mut value = value.to_vec();
            value[5] ^= 1;
            hints.insert(key, value).unwrap();
        });
        if !clean {
            std::fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
        }
        let store = open(dir.path());
        let damage = store.stats().damage;
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(damage[0].what.contains("cursor"), "{damage:?}");
        let found = payloads(&store, NODE);
        // Without the summary what was not yet trimmed is delivered again: at least once, never not
        // at all.
        assert!(
            found.ends_with(&["hint-4".into(), "hint-5".into()]),
            "{found:?}"
        );
        assert!(!clean || found.len() == 2, "{found:?}");
    }
}

#[test]
fn a_lost_node_record_does_not_lose_its_queue() {
    for damage_it in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        five_hints(dir.path());
        changed_for_good(dir.path(), |db| {
            let nodes = db.open_tree("hh/nodes").unwrap();
            let key = NODE.to_be_bytes();
            match damage_it {
                true => nodes.insert(key, b"nonsense").unwrap(),
                false => nodes.remove(key).unwrap(),
            };
        });
        let store = open(dir.path());
        assert_eq!(payloads(&store, NODE).len(), 5);
        assert!(!store.stats().damage.is_empty());
        // It goes on as a node does, under an id that was never used.
        let before = hints(&store, NODE)[0].mark.queue.queue;
        assert!(append(&store, NODE, "more").queue >= before);
    }
}

#[test]
fn a_lost_queue_counter_gives_no_id_twice() {
    let dir = tempfile::tempdir().unwrap();
    five_hints(dir.path());
    changed_for_good(dir.path(), |db| {
        db.open_tree("hh/meta")
            .unwrap()
            .remove("next_queue")
            .unwrap();
    });
    let store = open(dir.path());
    let used = hints(&store, NODE)[0].mark.queue.queue;
    assert!(append(&store, 9, "another node").queue > used);
}

#[test]
fn a_damaged_identity_is_an_error_that_names_it_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    five_hints(dir.path());
    let change = |key: &str, value: Option<&[u8]>| {
        changed_for_good(dir.path(), |db| {
            let meta = db.open_tree("hh/meta").unwrap();
            let before = meta.get(key).unwrap().unwrap();
            match value {
                Some(value) => meta.insert(key, value).unwrap(),
                None => meta.remove(key).unwrap(),
            };
            before
        })
    };
    for (key, value) in [
        ("store", Some(&b"x"[..])),
        ("store", None),
        ("schema", Some(b"x")),
        ("schema", None),
    ] {
        let before = change(key, value);
        let error = hinted_handoff::internals::Store::open(&config(dir.path()), Box::new(|_| {}));
        match error.err().unwrap() {
            OpenError::Unopenable {
                reason: UnopenableReason::Damaged { record, .. },
                ..
            } => {
                assert_eq!(record, key);
            }
            other => panic!("{other:?}"),
        }
        changed_for_good(dir.path(), |db| {
            db.open_tree("hh/meta")
                .unwrap()
                .insert(key, before)
                .unwrap();
        });
    }
    assert_eq!(payloads(&open(dir.path()), NODE).len(), 5);
}

#[test]
fn a_store_of_a_newer_schema_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    five_hints(dir.path());
    let newer = SCHEMA_VERSION + 1;
    changed_for_good(dir.path(), |db| {
        let value = newer.to_be_bytes();
        let crc = crc32c::crc32c(&[b"schema".as_slice(), &value].concat());
        let checksummed = [value, crc.to_be_bytes()].concat();
        db.open_tree("hh/meta")
            .unwrap()
            .insert("schema", checksummed)
            .unwrap();
    });
    let error = hinted_handoff::internals::Store::open(&config(dir.path()), Box::new(|_| {}))
        .err()
        .unwrap();
    assert!(
        matches!(error, OpenError::NewerSchema { found, supported, .. } if found == newer && supported == SCHEMA_VERSION)
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("schema {newer}"))
            && text.contains(&format!("up to {SCHEMA_VERSION}")),
        "{text}"
    );
}

#[test]
fn a_hint_that_reads_after_all_is_not_declared_lost() {
    let dir = tempfile::tempdir().unwrap();
    five_hints(dir.path());
    let store = open(dir.path());
    let queue = hints(&store, NODE)[0].mark.queue;
    let (tell, told) = std::sync::mpsc::channel();
    store.scrub(NodeId(NODE), queue, move |result| {
        tell.send(result).unwrap()
    });
    told.recv().unwrap().unwrap();
    assert!(matches!(peek(&store, NODE), Peek::Hints(hints) if hints.len() == 5));
    assert_eq!(store.stats().damage, []);
}
