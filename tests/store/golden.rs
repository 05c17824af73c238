//! The bytes on disk are the documented ones: what the store writes is held against fixtures that
//! were made from the documents alone (`tests/golden/make.py`), and what they hold reads.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::{
    self,
    letters::{cause, claim, letters_read, lose_at, make_dead_letter_at, redrive_as_it_is},
    *,
};
use hinted_handoff::{
    AppliedHints, HintId, LossReason, NodeId, Pause, QueueId, Sequence, ShardId, StoreId, WriteId,
    internals::{Correction, Hint, Leave, Members, QueueRef, Store, decoders},
    sled::{self, Transactional, transaction::ConflictableTransactionError},
};

const NODE: u64 = 258;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.trim().as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn fixture(name: &str) -> String {
    fs::read_to_string(golden(name)).unwrap()
}

/// Name to (key, value).
type Records = BTreeMap<String, (Vec<u8>, Vec<u8>)>;

fn records(name: &str) -> Records {
    let text = fixture(name);
    let lines: Vec<_> = text.lines().collect();
    let records = lines.chunks(3).map(|record| {
        // The values of padding keys are empty.
        let field = |line: &str| hex(line.trim().split_once(' ').map_or("", |it| it.1));
        (record[0].to_owned(), (field(record[1]), field(record[2])))
    });
    records.collect()
}

/// The hints of `store.txt`.
fn nine_hints(dir: &Path) -> Store {
    let store = open(dir);
    let letter = |number: u64| char::from(96 + number as u8);
    for n in 1..=8_u64 {
        let bangs = "!".repeat(n as usize);
        let payload = format!("cpu,host={} v={n} {n}{bangs}", letter(n));
        try_append(&store, NODE, vec![common::hint(7, payload)])
            .remove(0)
            .unwrap();
    }
    for sequence in [1, 3] {
        let taken = claim(&store, NODE, sequence);
        store.deliver(NodeId(NODE), &[taken]).unwrap();
    }
    make_dead_letter_at(&store, NODE, 4, "no such field: \u{fc}");
    let again = make_dead_letter_at(&store, NODE, 6, "another");
    lose_at(&store, NODE, 8, LossReason::Expired);
    assert_eq!(redrive_as_it_is(&store, NODE, again).sequence, Sequence(9));
    store
}

/// The one loss was at that time, not when the fixture says.
fn at_the_fixtures_time(key: &[u8], value: &[u8], at_unix_ms: u64) -> Vec<u8> {
    let number = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let (now, then) = (number(at_unix_ms), number(1_700_000_000_000));
    let twice = |time: &[u8]| [time, time].concat();
    let at = value
        .windows(now.len() * 2)
        .position(|bytes| bytes == twice(&now))
        .unwrap();
    let mut value = value[..value.len() - 4].to_vec();
    value.splice(at..at + now.len() * 2, twice(&then));
    decoders::checksum_again(key, &[&value, [0; 4].as_slice()].concat())
}

#[test]
fn the_store_writes_the_documented_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = nine_hints(dir.path());
    let lost_at = store.losses(0).unwrap().entries[0].1.since_unix_ms;
    let id = store.id();
    store.close().unwrap();

    let clean = fs::read(generation(dir.path()).join("CLEAN")).unwrap();
    behind_its_back(dir.path(), |db| {
        let documented = records("store.txt");
        assert_eq!(documented.len(), 18);
        for (name, (key, value)) in documented {
            let found = match name.split_once(' ').unwrap() {
                ("file", _) => {
                    // It names the store, which has an id of its own.
                    let (magic, rest) = clean.split_at(8);
                    let rest = rest.strip_prefix(&id.0).unwrap();
                    let named = [magic, &value[8..24], rest].concat();
                    decoders::checksum_again(&[], &named)
                }
                (tree, _) => db
                    .open_tree(tree)
                    .unwrap()
                    .get(&key)
                    .unwrap()
                    .unwrap_or_else(|| panic!("{name} is not there"))
                    .to_vec(),
            };
            let found = match name.as_str() {
                "hh/losses entry" => at_the_fixtures_time(&key, &found, lost_at),
                _ => found,
            };
            assert_eq!(found, value, "{name}");
        }
        let store_id = db
            .open_tree("hh/meta")
            .unwrap()
            .get("store")
            .unwrap()
            .unwrap();
        assert_eq!(store_id.len(), 16 + 4);
        let trees: Vec<_> = db
            .tree_names()
            .into_iter()
            .filter(|name| name.starts_with(b"hh/"))
            .collect();
        assert_eq!(trees.len(), 4, "few, fixed trees");
    });
}

#[test]
fn padding_keys_are_written_where_they_are_documented_and_read_past() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (number, bytes) in [(1, 20_000), (2, 10_000), (3, 20_000)] {
        append(&store, NODE, noise(bytes, number));
    }
    store.close().unwrap();
    let documented = records("padding.txt");
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let rows = hints.iter().map(Result::unwrap);
        let empty = rows.filter(|(_, value)| value.is_empty());
        let mut wanted: Vec<_> = documented.values().map(|(key, _)| key.clone()).collect();
        wanted.sort();
        assert_eq!(Vec::from_iter(empty.map(|(key, _)| key.to_vec())), wanted);
    });

    let mut both = records("store.txt");
    both.extend(documented);
    let dir = tempfile::tempdir().unwrap();
    store_of(dir.path(), &both).close().unwrap();
    for _ in 0..2 {
        let store = open(dir.path());
        assert_eq!(store.stats().damage, []);
        let found = hints(&store, NODE);
        let found: Vec<_> = found.iter().map(|it| it.mark.sequence.0).collect();
        assert_eq!(found, [2, 5, 7, 9]);
        store.close().unwrap();
    }
}

/// A store of these records, as after an unclean stop.
fn store_of(dir: &Path, records: &Records) -> Store {
    open(dir).close().unwrap();
    behind_its_back(dir, |db| {
        for (name, (key, value)) in records {
            let (tree, _) = name.split_once(' ').unwrap();
            if tree != "file" {
                let tree = db.open_tree(tree).unwrap();
                tree.insert(key, value.as_slice()).unwrap();
            }
        }
    });
    fs::remove_file(generation(dir).join("CLEAN")).unwrap();
    open(dir)
}

#[test]
fn the_store_reads_the_documented_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), &records("store.txt"));
    assert_eq!(store.stats().damage, []);
    let found = hints(&store, NODE);
    let seen: Vec<_> = found
        .iter()
        .map(|it| (it.mark.sequence.0, it.hint.origin))
        .collect();
    let origin = (QueueId(1), Sequence(6));
    assert_eq!(seen, [(2, None), (5, None), (7, None), (9, Some(origin))]);
    assert_eq!(found[3].hint.payload, "cpu,host=f v=6 6!!!!!!");
    assert_eq!(
        (found[0].hint.shard.0, found[0].hint.enqueued_unix_ms),
        (7, 1_700_000_000_000)
    );
    let (_, queues) = store.nodes().remove(0);
    assert_eq!(queues.pending().hints, 4);
    assert_eq!(
        letters_read(&store, NODE),
        [(4, "cpu,host=d v=4 4!!!!".into())]
    );
    let (_, dead) = store.letters(NodeId(NODE), None, 9).unwrap().remove(0);
    assert_eq!(dead.cause, cause("no such field: \u{fc}"));
    let losses = store.losses(0).unwrap();
    let (0, loss) = &losses.entries[0] else {
        panic!("{losses:?}");
    };
    let place = loss.place.unwrap();
    assert_eq!(
        (loss.node, loss.shard, place.queue, place.first, place.last),
        (
            NodeId(NODE),
            Some(ShardId(7)),
            QueueId(1),
            Sequence(8),
            Sequence(8)
        )
    );
    assert_eq!(
        (loss.reason, loss.since_unix_ms, loss.redriven_from.clone()),
        (LossReason::Expired, 1_700_000_000_000, Vec::new())
    );

    // What is done with is pointed to no longer.
    store
        .ack(NodeId(NODE), found[3].mark, Leave::Delivered)
        .unwrap();
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let (pointer, _) = &records("store.txt")["hh/hints letter 6"];
        let hints = db.open_tree("hh/hints").unwrap();
        assert_eq!(hints.get(pointer).unwrap(), None);
    });
}

/// Those that take more to come to than a test of the whole store.
#[test]
fn records_read_and_are_written_as_documented() {
    let documented = records("more.txt");
    assert_eq!(documented.len(), 7);
    for (name, (key, value)) in documented {
        let again = match name.starts_with("record") {
            true => decoders::node_record(NodeId(NODE), &value),
            false => decoders::loss(&key, &value),
        };
        assert_eq!(again, Ok(value), "{name}");
    }
}

#[test]
fn a_compressed_block_that_an_older_zstd_wrote_reads() {
    let dir = tempfile::tempdir().unwrap();
    let payload =
        b"weather,location=Seattle temp_max=12.8,temp_min=5.0 1325376000000000000\n".repeat(10);
    let store = open(dir.path());
    append(&store, NODE, "what stands in its place");
    store.close().unwrap();
    let value = hex(&fixture("zstd_block.hex"));
    assert_eq!(value[2], 1, "the codec is zstd");
    assert!(value.len() < payload.len());
    let queue = QueueRef {
        node: NodeId(NODE),
        queue: QueueId(1),
    };
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        let replaced = hints.insert(queue.chunk_key(Sequence(1), 0), value);
        assert!(replaced.unwrap().is_some());
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    assert_eq!(payloads(&open(dir.path()), NODE), [payload]);
}

#[test]
fn a_wal_record_is_the_documented_bytes_and_is_flushed_at_open() {
    let documented = records("wal.txt");
    let (record_key, record) = &documented["hh/hints WAL record"];
    let again = decoders::wal_record(Sequence(7), &[record]).unwrap();
    assert_eq!(again, std::slice::from_ref(record));
    let wal = QueueRef {
        node: NodeId(u64::MAX),
        queue: QueueId(0),
    };
    let (cursor_key, cursor) = &documented["hh/hints WAL cursor"];
    assert_eq!(decoders::cursor(wal, cursor).as_ref(), Ok(cursor));

    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        hints.insert(record_key, record.clone()).unwrap();
        hints.insert(cursor_key, cursor.clone()).unwrap();
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    let store = open(dir.path());
    assert_eq!(payloads(&store, NODE), ["v=1"]);
    assert_eq!(payloads(&store, 259), ["v=2"]);
    assert_eq!(hints(&store, 259)[0].mark.bytes_through, 73);
}

#[test]
fn the_ids_of_writes_are_the_documented_bytes_wherever_a_hint_stands() {
    let mut documented = records("writes.txt");
    let more = documented.split_off("more");
    assert_eq!((documented.len(), more.len()), (5, 2));
    let write = |counter| WriteId {
        boot: 0xb007,
        counter,
    };
    let of_write = |counter, payload: &'static str| Hint {
        write: Some(write(counter)),
        ..common::hint(7, payload)
    };
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = of_write(1, "cpu,host=a v=1 1");
    try_append(&store, NODE, vec![first]).remove(0).unwrap();
    let letter = make_dead_letter_at(&store, NODE, 1, "rejected");
    let letter_block = records("writes.txt").remove("hh/hints letter block 1");
    // The letter's block is trimmed once it was sent on.
    let id = HintId {
        store: store.id(),
        queue: QueueId(1),
        sequence: Sequence(1),
    };
    let (_, _, hint) = store.letter(NodeId(NODE), id).unwrap().unwrap();
    assert_eq!(hint.write, Some(write(1)));
    sync(&store);
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let (key, value) = letter_block.unwrap();
        let found = db.open_tree("hh/hints").unwrap().get(key).unwrap();
        assert_eq!(found.unwrap(), value, "the dead letter");
    });

    let store = open(dir.path());
    assert_eq!(redrive_as_it_is(&store, NODE, letter).sequence, Sequence(2));
    let (held, told) = hold(&store, NODE, of_write(1 << 40, "v=3"));
    told.recv().unwrap().unwrap();
    assert_eq!(held.withdraw().unwrap().hints, 1);
    sync(&store);
    let found: Vec<_> = hints(&store, NODE).into_iter().map(|it| it.hint).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].write, found[0].origin.is_some()),
        (Some(write(1)), true)
    );
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        for (name, (key, value)) in &documented {
            if !["hh/hints block 1", "hh/hints letter block 1"].contains(&name.as_str()) {
                assert_eq!(&hints.get(key).unwrap().unwrap(), value, "{name}");
            }
        }
    });

    // Those that a store writes by chance only.
    let queue = QueueRef {
        node: NodeId(NODE),
        queue: QueueId(1),
    };
    let (_, both) = &more["more two hints, one of a write"];
    let block = decoders::block(queue, Sequence(4), &[both]).unwrap();
    let read: Vec<_> = block.hints.iter().map(|it| it.write).collect();
    assert_eq!(read, [None, Some(write(1 << 40))]);
    assert_eq!((block.bytes_before, block.bytes_through), (90, 96));
    let again = decoders::encode_block(queue, Sequence(4), 90, &block.hints);
    assert_eq!(again, std::slice::from_ref(both));
    let (record_key, record) = &more["more WAL record"];
    assert_eq!(
        decoders::wal_record(Sequence(7), &[record]).unwrap(),
        std::slice::from_ref(record)
    );

    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        hints.insert(record_key, record.clone()).unwrap();
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    let store = open(dir.path());
    let read: Vec<_> = hints(&store, NODE).iter().map(|it| it.hint.write).collect();
    assert_eq!(read, [Some(write(1)), None]);
}

#[test]
fn lifetimes_are_the_documented_bytes_wherever_a_hint_stands() {
    let documented = records("lifetimes.txt");
    let hour = Hint {
        lifetime_ms: Some(3_600_000),
        ..common::hint(7, "cpu,host=a v=1 1")
    };
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stored = try_append(&store, NODE, vec![hour.clone()]);
    assert!(stored.iter().all(Result::is_ok));
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let (key, value) = &documented["hh/hints block 1"];
        let found = db.open_tree("hh/hints").unwrap().get(key).unwrap();
        assert_eq!(&found.unwrap(), value);
    });
    assert_eq!(hints(&open(dir.path()), NODE)[0].hint, hour);

    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    let (record_key, record) = &documented["more WAL record"];
    let again = decoders::wal_record(Sequence(7), &[record]).unwrap();
    assert_eq!(again, std::slice::from_ref(record));
    behind_its_back(dir.path(), |db| {
        let hints = db.open_tree("hh/hints").unwrap();
        hints.insert(record_key, record.clone()).unwrap();
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    let found = hints(&open(dir.path()), NODE).into_iter();
    let found: Vec<_> = found.map(|it| it.hint.lifetime_ms).collect();
    assert_eq!(found, [Some(60_000), None]);

    let queue = QueueRef {
        node: NodeId(NODE),
        queue: QueueId(1),
    };
    let lifetimes = |name: &str| {
        let (_, bytes) = &documented[name];
        let block = decoders::block(queue, Sequence(4), &[bytes]).unwrap();
        let again = decoders::encode_block(queue, Sequence(4), 90, &block.hints);
        assert_eq!(again, std::slice::from_ref(bytes), "{name}");
        let hints = block.hints.into_iter();
        hints.map(|it| it.lifetime_ms).collect::<Vec<_>>()
    };
    assert_eq!(
        lifetimes("more two hints, one with a lifetime"),
        [None, Some(0)]
    );
    assert_eq!(lifetimes("more all that a hint can have"), [Some(5)]);
}

#[test]
fn clocks_that_were_wrong_are_the_documented_bytes() {
    let (key, value) = records("clock.txt").remove("hh/meta clock").unwrap();
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    behind_its_back(dir.path(), |db| {
        db.open_tree("hh/meta")
            .unwrap()
            .insert(&key, value.clone())
            .unwrap();
    });
    let store = open(dir.path());
    let read = store.corrections().unwrap();
    assert_eq!(read[0].corrected(9), Some(1_600_000_000_009));
    assert_eq!(read[0].corrected(10), None);
    assert_eq!(read[1], Correction::of_life(1_700_000_000_000, -2500));
    told(|done| store.set_corrections(read, done)).unwrap();
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        let found = db.open_tree("hh/meta").unwrap().get(&key).unwrap();
        assert_eq!(found.unwrap(), value);
    });
}

#[test]
fn members_and_nodes_that_leave_are_the_documented_bytes() {
    let documented = records("members.txt");
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, NODE, "v=1");
    told(|done| store.pause(NodeId(NODE), Some(Pause::Lasting), done)).unwrap();
    told(|done| store.leave(NodeId(NODE), true, done)).unwrap();
    let members = Members {
        nodes: [NodeId(3), NodeId(NODE)].into(),
        are_all: true,
    };
    told(|done| store.retain_nodes(members, 1, done)).unwrap();
    store.close().unwrap();
    behind_its_back(dir.path(), |db| {
        for (name, (key, value)) in documented {
            let tree = db.open_tree(name.split_once(' ').unwrap().0).unwrap();
            assert_eq!(tree.get(key).unwrap().unwrap(), value, "{name}");
        }
    });
    let store = open(dir.path());
    assert_eq!(store.leaving(), [NodeId(NODE)].into());
    let hold = |node| store.hold(NodeId(node));
    assert_eq!(
        (hold(NODE).paused, hold(NODE).unlisted),
        (Some(Pause::Lasting), false)
    );
    assert!(hold(4).unlisted && !hold(3).unlisted);
}

#[test]
fn a_receiver_writes_and_reads_the_documented_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let db = sled::open(dir.path()).unwrap();
    let (rows, applied) = (
        db.open_tree("rows").unwrap(),
        AppliedHints::open(&db).unwrap(),
    );
    let apply = |queue, sequence| {
        let hint = HintId {
            store: StoreId(std::array::from_fn(|index| index as u8)),
            queue: QueueId(queue),
            sequence: Sequence(sequence),
        };
        let applied = (&rows, applied.tree()).transaction(|(_, marks)| {
            let is_new = applied.apply_once_in_sled(marks, hint, ShardId(7))?;
            Ok::<bool, ConflictableTransactionError>(is_new)
        });
        (hint.store, applied.unwrap())
    };
    let (store, _) = apply(8, 1);
    apply(9, 258);
    assert_eq!(applied.forget_retired_in_sled(store, QueueId(9)), Ok(1));
    let documented = records("applied.txt");
    assert_eq!(documented.len(), applied.tree().len());
    for (name, (key, value)) in &documented {
        let found = applied.tree().get(key).unwrap().unwrap();
        assert_eq!(&found.to_vec(), value, "{name}");
    }
    applied.tree().clear().unwrap();
    for (key, value) in documented.into_values() {
        applied.tree().insert(key, value).unwrap();
    }
    assert_eq!(
        [apply(9, 258).1, apply(9, 259).1, apply(8, 999).1],
        [false, true, false]
    );
}
