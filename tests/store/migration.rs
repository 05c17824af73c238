//! Whole stores as the last commits with schema 1 and 2 left them, stopped cleanly and killed:
//! opened by today's code they are of today's schema, with every hint, dead letter, cursor and list
//! of queues as it was, however often the migration dies.
//!
//! `tests/golden/README.md` says how they were made, and what was read in them then is beside them.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::{fs::DirBuilderExt, process::ExitStatusExt},
    path::Path,
};

use crate::common::{
    letters::{claim, dead_letter_at, letters_read, lose_at, redrive_as_it_is},
    *,
};
use hinted_handoff::{
    LossReason, NodeId, OnUnopenable, QueueId,
    internals::{Leave, Peek, QueueRef, Reader, SCHEMA_VERSION, Store, decoders},
    sled,
};

const OF_SCHEMA_1: [&str; 2] = ["schema1_clean", "schema1_killed"];
const OF_SCHEMA_2: [&str; 2] = ["schema2_clean", "schema2_killed"];
const POINTS: [&str; 3] = [
    "migrate: data written",
    "migrate: data durable",
    "migrate: version written",
];

fn private_dir(path: &Path) {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700).create(path).unwrap();
}

/// A file after the other: length of its name u32 BE, name, length u32 BE, bytes.
fn unpack(variant: &str, into: &Path) {
    let packed = fs::read(golden(&format!("{variant}.store.zst"))).unwrap();
    let unpacked = zstd::bulk::decompress(&packed, 64 << 20).unwrap();
    let mut rest = unpacked.as_slice();
    let take = |rest: &mut &[u8]| {
        let (length, behind) = rest.split_first_chunk::<4>().unwrap();
        let (bytes, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        *rest = behind;
        bytes.to_vec()
    };
    private_dir(into);
    while !rest.is_empty() {
        let path = into.join(String::from_utf8(take(&mut rest)).unwrap());
        private_dir(path.parent().unwrap());
        fs::write(path, take(&mut rest)).unwrap();
    }
}

/// All that can be read in a store, in the form of the fixtures. Takes it.
fn read_all(store: &Store) -> String {
    let mut lines = vec![format!("store {}", store.id())];
    for (node, queues) in store.nodes() {
        let pending = queues.pending();
        lines.push(format!(
            "node {} pending {} {}",
            node.0, pending.hints, pending.bytes
        ));
        let mut reader = Reader::default();
        loop {
            let hints = match store.peek(&mut reader, node, EVERYTHING).unwrap() {
                Peek::Empty => break,
                Peek::Hints(hints) => hints,
                Peek::Damaged(queue) => panic!("{queue:?}"),
            };
            for it in &hints {
                let (place, payload) = (it.mark.place(), &it.hint.payload);
                lines.push(format!(
                    "hint {} {} {} {} {} {} {:08x}",
                    node.0,
                    place.queue.queue.0,
                    place.sequence.0,
                    it.hint.shard.0,
                    it.hint.enqueued_unix_ms,
                    payload.len(),
                    crc32c::crc32c(payload)
                ));
            }
            let last = hints.last().unwrap().mark;
            store.ack(node, last, Leave::Delivered).unwrap();
        }
    }
    lines.join("\n") + "\n"
}

/// What schema 2 brought.
fn read_more(store: &Store) -> String {
    let mut lines = Vec::new();
    for (node, _) in store.nodes() {
        for (sequence, payload) in letters_read(store, node.0) {
            let (bytes, crc) = (payload.len(), crc32c::crc32c(&payload));
            lines.push(format!("letter {} {sequence} {bytes} {crc:08x}", node.0));
        }
    }
    lines.push(format!("lost {}", store.losses(0).unwrap().total().hints));
    lines.join("\n") + "\n"
}

/// Cursors and node records, in today's form; and the schema.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn records(dir: &Path) -> (u8, Records) {
    behind_its_back(dir, |db| {
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        let open = |name| db.open_tree(name).unwrap();
        let mut records = Records::new();
        for entry in open("hh/nodes").iter().map(Result::unwrap) {
            let node = NodeId(number(&entry.0));
            let record = decoders::node_record(node, &entry.1).unwrap();
            records.insert(entry.0.to_vec(), record);
        }
        let keep = |(key, value): (sled::IVec, sled::IVec)| {
            let queue = QueueRef {
                node: NodeId(number(&key[..8])),
                queue: QueueId(number(&key[8..16])),
            };
            (key.to_vec(), decoders::cursor(queue, &value).unwrap())
        };
        let hints = open("hh/hints");
        let cursors = hints.iter().map(Result::unwrap);
        records.extend(cursors.filter(|(key, _)| key.len() == 17).map(keep));
        let schema = open("hh/meta").get("schema").unwrap().unwrap();
        (schema[3], records)
    })
}

fn cursor_key(queue: QueueRef) -> Vec<u8> {
    let (node, queue) = (queue.node.0.to_be_bytes(), queue.queue.0.to_be_bytes());
    [node.as_slice(), &queue, &[0]].concat()
}

fn schema_of(variant: &str) -> u8 {
    if OF_SCHEMA_1.contains(&variant) { 1 } else { 2 }
}

/// As they were found, in a copy of their own: sled repairs what it opens.
fn records_before(variant: &str) -> Records {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    unpack(variant, &dir);
    let (schema, records) = records(&dir);
    assert_eq!(schema, schema_of(variant));
    records
}

/// Opens a store as it was found, and holds what is in it against what was.
fn check_migrated(variant: &str, dir: &Path, before: &Records) {
    let store = open(dir);
    assert_eq!(store.stats().damage, []);
    store.close().unwrap();
    let (schema, mut after) = records(dir);
    assert_eq!(u32::from(schema), SCHEMA_VERSION);
    // An open writes the cursor of a queue with what a dead letter became, also before anything has
    // left it.
    after.retain(|key, _| key.len() != 17 || before.contains_key(key));
    assert_eq!(before, &after, "{variant}: cursors and lists of queues");

    let store = open(dir);
    let expected = fs::read_to_string(golden(&format!("{variant}.txt"))).unwrap();
    let mut found = read_all(&store);
    if schema_of(variant) > 1 {
        found += &read_more(&store);
    }
    assert_eq!(found, expected, "{variant}");
    assert_eq!(store.stats().damage, []);
}

#[test]
fn an_older_store_is_migrated_with_all_that_is_in_it() {
    // Of schema 2, a queue more that was begun for what a dead letter became.
    for (variant, records) in [OF_SCHEMA_1, OF_SCHEMA_2]
        .concat()
        .into_iter()
        .zip([7, 7, 7, 7])
    {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        unpack(variant, &dir);
        let before = records_before(variant);
        // Three nodes with two queues or one, one whose queue is drained; one was removed.
        assert_eq!(before.len(), records, "{variant}: {before:?}");
        check_migrated(variant, &dir, &before);
    }
}

#[test]
fn a_store_of_schema_1_works_with_all_that_is_new() {
    for variant in OF_SCHEMA_1 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        unpack(variant, &dir);
        let store = open(&dir);
        assert_eq!(store.losses(0).unwrap().entries, []);
        let first = hints(&store, 1);
        assert_eq!(first[0].mark.sequence.0, 7);
        // Out of order, in a queue whose cursor is of version 1.
        let nine = claim(&store, 1, 9);
        assert_eq!(store.deliver(NodeId(1), &[nine]).unwrap().hints, 1);
        let dead_lettered = dead_letter_at(&store, 1, 8, "rejected");
        lose_at(&store, 1, 11, LossReason::Obsolete);
        append(&store, 1, "new");
        append(&store, 6, "for a new node");
        store.close().unwrap();

        let store = open(&dir);
        assert_eq!(store.stats().damage, []);
        let left: Vec<_> = hints(&store, 1)
            .iter()
            .map(|it| it.mark.sequence.0)
            .collect();
        assert_eq!(left, [7, 10, 12]);
        assert_eq!(letters_read(&store, 1).len(), 1);
        assert_eq!(store.losses(0).unwrap().total().hints, 1);
        let now = redrive_as_it_is(&store, 1, dead_lettered);
        assert!(now.queue > dead_lettered.queue.queue);
        store.close().unwrap();
        let queue = dead_lettered.queue;
        let (_, after) = records(&dir);
        assert!(after[&cursor_key(queue)].len() > 64, "with ranges");

        let store = open(&dir);
        assert_eq!(store.stats().damage, []);
        assert_eq!(letters_read(&store, 1), []);
        let taken = read_all(&store);
        assert_eq!(
            taken.lines().filter(|it| it.starts_with("hint 1 ")).count(),
            7
        );
        assert_eq!(payloads(&store, 6), [""; 0]);
    }
}

/// Not a test of its own: the process that dies.
#[test]
fn child() {
    if let Ok(dir) = std::env::var("HH_MIGRATED") {
        let _ended_at_its_failpoint = Store::open(&config(Path::new(&dir)), Box::new(|_| {}));
    }
}

#[test]
fn a_migration_that_dies_anywhere_is_run_again_and_ends_the_same() {
    for variant in [OF_SCHEMA_1, OF_SCHEMA_2].concat() {
        for (point, action) in POINTS
            .iter()
            .flat_map(|point| [(point, "abort"), (point, "error")])
        {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join("store");
            unpack(variant, &dir);
            let before = records_before(variant);
            let status = child_for("migration::child")
                .env("HH_MIGRATED", &dir)
                .env("HH_FAILPOINT", format!("{point}/{action}/1"))
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap();
            assert_eq!(
                status.signal().is_some(),
                action == "abort",
                "{point}/{action}: {status}"
            );
            let (schema, after) = records(&dir);
            assert_eq!(after, before, "{point}");
            // An abort takes with it what is not flushed; an error flushes what was written.
            let may_be_new = *point == POINTS[2];
            let from = schema_of(variant);
            assert!(schema == from || may_be_new, "{point}: {schema}");
            assert!(schema == from + 1 || !may_be_new || action == "abort");
            check_migrated(variant, &dir, &before);
        }
    }
}

#[test]
fn a_damaged_store_of_schema_1_is_rebuilt_and_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    unpack("schema1_clean", &dir);
    // The header of the log's only segment: sled takes it for empty.
    let log = generation(&dir).join("db");
    let mut bytes = fs::read(&log).unwrap();
    bytes[2] ^= 1;
    fs::write(&log, bytes).unwrap();
    let mut config = config(&dir);
    config.on_unopenable = OnUnopenable::Fail;
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    assert!(store.stats().moved_aside.is_some());
    let expected = fs::read_to_string(golden("schema1_clean.txt")).unwrap();
    assert_eq!(read_all(&store), expected);
}
