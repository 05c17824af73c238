//! The bytes on disk are the documented ones: what the store writes is held against fixtures that were made from the
//! documents alone (`tests/golden/make.py`), and what an earlier release wrote still reads.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::*;
use hinted_handoff::{
    AppliedHints, HintId, NodeId, QueueId, Sequence, ShardId, StoreId,
    sled::{self, Transactional, transaction::ConflictableTransactionError},
    testkit::Leave,
};

const NODE: u64 = 258;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.trim().as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// Name to (key, value).
fn documented() -> BTreeMap<String, (Vec<u8>, Vec<u8>)> {
    records("bytes.txt")
}

fn records(name: &str) -> BTreeMap<String, (Vec<u8>, Vec<u8>)> {
    let text = fixture(name);
    let lines: Vec<_> = text.lines().collect();
    let records = lines.chunks(3).map(|record| {
        let field = |line: &str| hex(line.trim().split_once(' ').unwrap().1);
        (record[0].to_owned(), (field(record[1]), field(record[2])))
    });
    records.collect()
}

fn hint(payload: &'static [u8]) -> hinted_handoff::testkit::NewHint {
    common::hint(7, payload)
}

#[test]
fn the_store_writes_the_documented_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for payload in [b"cpu,host=a v=1 1".as_slice(), b"mem v=2 2"] {
        try_append(&store, NODE, vec![hint(payload)])
            .remove(0)
            .unwrap();
    }
    let first = hints(&store, NODE).remove(0).mark;
    store.ack(NodeId(NODE), first, Leave::Delivered).unwrap();
    store.close().unwrap();

    let clean = fs::read(generation(dir.path()).join("CLEAN")).unwrap();
    behind_its_back(dir.path(), |db| {
        let documented = documented();
        assert_eq!(documented.len(), 7);
        for (name, (key, value)) in documented {
            let found = match name.split_once(' ').unwrap() {
                ("file", _) => clean.clone(),
                // The first block is done, so it may be trimmed by now; the test below reads it.
                (_, "first block") => continue,
                (tree, _) => db
                    .open_tree(tree)
                    .unwrap()
                    .get(&key)
                    .unwrap()
                    .unwrap()
                    .to_vec(),
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
        assert_eq!(trees.len(), 3, "few, fixed trees");
    });
}

#[test]
fn the_store_reads_the_documented_bytes() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    let documented = documented();
    behind_its_back(dir.path(), |db| {
        for (name, (key, value)) in &documented {
            let (tree, what) = name.split_once(' ').unwrap();
            if tree != "file" && what != "cursor" {
                db.open_tree(tree)
                    .unwrap()
                    .insert(key, value.as_slice())
                    .unwrap();
            }
        }
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().damage, []);
    assert_eq!(payloads(&store, NODE), ["cpu,host=a v=1 1", "mem v=2 2"]);
    let read = hints(&store, NODE).remove(0).hint;
    assert_eq!(
        (read.shard.0, read.format, read.enqueued_unix_ms),
        (7, 0, 1_700_000_000_000)
    );
}

#[test]
fn a_compressed_block_of_the_first_release_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let payload =
        b"weather,location=Seattle temp_max=12.8,temp_min=5.0 1325376000000000000\n".repeat(10);
    open(dir.path()).close().unwrap();
    let value = hex(&fixture("zstd_block.hex"));
    assert_eq!(value[2], 1, "the codec is zstd");
    assert!(value.len() < payload.len());
    let (record_key, record) = documented().remove("hh/nodes record").unwrap();
    let (block_key, _) = documented().remove("hh/hints first block").unwrap();
    behind_its_back(dir.path(), |db| {
        db.open_tree("hh/nodes")
            .unwrap()
            .insert(record_key, record)
            .unwrap();
        db.open_tree("hh/hints")
            .unwrap()
            .insert(block_key, value)
            .unwrap();
    });
    fs::remove_file(generation(dir.path()).join("CLEAN")).unwrap();
    assert_eq!(payloads(&open(dir.path()), NODE), [payload]);
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
