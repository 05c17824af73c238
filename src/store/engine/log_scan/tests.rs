use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::store::engine::{generation::Engine, log_tail::LogTail};

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn scanned(log: &Path) -> Pairs {
    let mut found = Pairs::new();
    scan(log, |key, value| {
        found.insert(key.to_vec(), value.to_vec());
        Ok(())
    })
    .unwrap();
    found
}

/// A closed database whose log has several segments, and what is in it.
fn database(dir: &Path) -> Pairs {
    let mut written = Pairs::new();
    for life in 0..3_u64 {
        let engine = Engine::open(&dir.join("db-dir"), Arc::default()).unwrap();
        for number in 0..400_u64 {
            let key = [&[7; 16], number.to_be_bytes().as_slice(), &[0; 3]].concat();
            let length = (number * 37 % 16_000) as usize;
            let value = [life, number].map(u64::to_be_bytes).concat();
            let value = [value, vec![(number % 251) as u8; length]].concat();
            engine.hints.0.insert(&key, value.clone()).unwrap();
            written.insert(key, value);
        }
        engine.close().unwrap();
    }
    written
}

#[test]
fn everything_is_found_in_a_whole_log_in_its_newest_version() {
    let dir = tempfile::tempdir().unwrap();
    let written = database(dir.path());
    let log = dir.path().join("db-dir/db");
    assert!(log.metadata().unwrap().len() > SEGMENT_BYTES as u64);
    assert!(LogTail::find(&log).unwrap().is_whole);
    let found = scanned(&log);
    let missing = written
        .iter()
        .filter(|(key, value)| found.get(*key) != Some(*value))
        .count();
    assert_eq!(missing, 0, "of {}", written.len());
}

#[test]
fn damage_costs_what_it_hits_and_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let written = database(dir.path());
    let log = dir.path().join("db-dir/db");
    let whole = std::fs::read(&log).unwrap();
    let last_segment = whole.len().div_ceil(SEGMENT_BYTES) - 1;
    for (offset, is_torn) in [
        (4, true),
        (30_000, false),
        (last_segment * SEGMENT_BYTES + 4, true),
        (last_segment * SEGMENT_BYTES + 3_000, true),
    ] {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0x40;
        std::fs::write(&log, &damaged).unwrap();
        let found = scanned(&log);
        let missing = written.keys().filter(|key| !found.contains_key(*key));
        // A node holds at most sixteen entries, and most stand in other messages too.
        assert!(missing.count() <= 16, "byte {offset}");
        let tail = LogTail::find(&log).unwrap();
        assert_eq!(tail.is_whole, !is_torn, "byte {offset}");

        // What sled does to the log can be undone.
        let kept = tail.keep(&log).unwrap();
        drop(Engine::open(log.parent().unwrap(), Arc::default()));
        let _until_it_let_go = Engine::open(log.parent().unwrap(), Arc::default());
        kept.put_back(&log).unwrap();
        if is_torn {
            assert!(std::fs::read(&log).unwrap() == damaged, "byte {offset}");
        }
    }
}

#[test]
fn numbers_are_read_as_sled_writes_them() {
    let cases: [(&[u8], u64); 7] = [
        (&[240], 240),
        (&[241, 0], 240),
        (&[248, 255], 2287),
        (&[249, 255, 255], 67_823),
        (&[250, 1, 2, 3], 0x03_0201),
        (&[255, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807_0605_0403_0201),
        (&[251, 1, 0, 0, 0x80], 0x8000_0001),
    ];
    for (mut bytes, number) in cases {
        assert_eq!(take_number(&mut bytes), Some(number));
        assert!(bytes.is_empty());
    }
    assert_eq!(take_number(&mut [255, 1].as_slice()), None);
}
