use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::*;
use crate::{
    store::{
        bounds::SEGMENT_BYTES,
        engine::{
            generation::Engine,
            log_scan::{NODE, TreeNode, messages, segments},
            log_tail::snapshot_lsn,
        },
        format::keys::QueueRef,
    },
    types::{NodeId, QueueId, Sequence},
};

const QUEUES: u64 = 4;

fn queue(number: u64) -> QueueRef {
    QueueRef {
        node: NodeId(number % 2),
        queue: QueueId(1 + number % QUEUES),
    }
}

fn open(dir: &Path) -> Engine {
    Engine::open(dir, Arc::default()).unwrap()
}

/// Some life of a store: blocks that come and go, cursors that move, a flush now and then.
fn live(engine: &Engine, random: &mut fastrand::Rng) {
    let mut alive: Vec<Vec<u8>> = Vec::new();
    let bytes_max = [40, 400, 16_000][random.usize(..3)];
    for step in 0..random.u64(20..1500) {
        let at = queue(random.u64(..));
        match random.u8(..100) {
            0..60 => {
                let key = at.chunk_key(Sequence(step + 1), random.u16(..3)).to_vec();
                let value = vec![step as u8 | 1; random.usize(..bytes_max)];
                engine.hints.insert(&key, value);
                alive.push(key);
            }
            60..80 if !alive.is_empty() => {
                let key = alive.swap_remove(random.usize(..alive.len()));
                engine.hints.remove(key);
            }
            80..95 => engine
                .hints
                .insert(at.cursor_key(), step.to_be_bytes().to_vec()),
            95..97 => {
                let mut batch = sled::Batch::default();
                for number in 0..random.u64(2..30) {
                    let key = at.chunk_key(Sequence(100_000 + number), 0);
                    batch.insert(&key, vec![7; random.usize(..bytes_max)]);
                }
                engine.hints.0.apply_batch(batch).unwrap();
            }
            97 => engine.nodes.insert(step.to_be_bytes(), vec![3; 30]),
            _ => engine.commit().unwrap(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn ours(dir: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let tree = LogTree::read(
        &dir.join("db"),
        (Ending::MayBeTorn, Database::Own),
        &mut |_, _| {},
    )
    .unwrap();
    let entries = tree.range(&[0], &[u8::MAX; 28]).map(Result::unwrap);
    let entries: BTreeMap<_, _> = entries.map(|(key, value)| (key, value.to_vec())).collect();
    // Each of them by itself, too, and the last of each queue.
    for (key, value) in entries.iter().step_by(7) {
        assert_eq!(tree.get(key).unwrap().as_deref(), Some(value.as_slice()));
    }
    for at in (0..QUEUES).map(queue) {
        let (from, to) = (
            at.chunk_key(Sequence(0), 0).to_vec(),
            at.blocks_end_key().to_vec(),
        );
        let expected = entries.range(from.clone()..to.clone()).next_back();
        let last = tree.last(&from, &to, |_, _| true).unwrap();
        assert_eq!(last.as_ref(), expected.map(|(key, _)| key));
    }
    entries
}

/// `None` if sled does not open it.
fn sleds(dir: &Path) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let opened = std::panic::catch_unwind(|| Engine::open(dir, Arc::default()).ok());
    let engine = opened.ok().flatten()?;
    let entries = engine.hints.iter().map(Result::unwrap);
    let entries = entries.map(|(key, value)| (key.to_vec(), value.to_vec()));
    let entries = entries.collect();
    engine.close().unwrap();
    Some(entries)
}

/// Flips a bit in the last segment, behind what a snapshot tells of.
fn damage_tail(dir: &Path, random: &mut fastrand::Rng) {
    let path = dir.join("db");
    let snapshot = snapshot_lsn(&path).unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let found = segments(&file).unwrap();
    let Some(last) = found
        .iter()
        .filter(|it| it.number.is_some())
        .max_by_key(|it| it.number)
    else {
        return;
    };
    let mut bytes = vec![0; SEGMENT_BYTES];
    let read = file.read_at(&mut bytes, last.offset).unwrap();
    let used = bytes[..read]
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap_or(0);
    let base = last.number.unwrap() * SEGMENT_BYTES as u64;
    let low = snapshot.saturating_sub(base).max(20) as usize;
    if low < used {
        let at = random.usize(low..used);
        file.write_all_at(&[bytes[at] ^ 4], last.offset + at as u64)
            .unwrap();
    }
}

/// What `LogTree` is for: nothing but this says that its copy of sled's ways is right.
#[test]
fn what_is_found_in_a_log_is_what_sled_finds_however_it_stopped() {
    let stores = std::env::var("HH_STORES").map_or(6, |it| it.parse().unwrap());
    let seed =
        std::env::var("HH_SEED").map_or_else(|_| fastrand::u64(..), |it| it.parse().unwrap());
    println!("{stores} stores, HH_SEED={seed}");
    let (mut compared, mut torn, mut refused) = (0, 0, 0);
    for store in 0..stores {
        let mut random = fastrand::Rng::with_seed(seed ^ store);
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // Each life begins where any of the stops before left it.
        let mut begin: Option<PathBuf> = None;
        for life in 0..random.u8(1..5) {
            let lived = at(&format!("lived-{life}"));
            if let Some(begin) = &begin {
                copy(begin, &lived);
            }
            let engine = open(&lived);
            live(&engine, &mut random);
            let killed = at(&format!("killed-{life}"));
            copy(&lived, &killed);
            engine.close().unwrap();
            let closed = at(&format!("closed-{life}"));
            copy(&lived, &closed);
            let damaged = at(&format!("damaged-{life}"));
            copy(&killed, &damaged);
            damage_tail(&damaged, &mut random);
            begin = Some([&killed, &closed, &damaged][random.usize(..3)].clone());
            for stopped in [killed, closed, damaged] {
                let found = ours(&stopped);
                let tree = LogTree::read(
                    &stopped.join("db"),
                    (Ending::MayBeTorn, Database::Own),
                    &mut |_, _| {},
                );
                torn += u32::from(tree.unwrap().torn_at().is_some());
                match sleds(&stopped) {
                    Some(expected) => {
                        let is_same = found == expected;
                        let differs = found
                            .iter()
                            .zip(&expected)
                            .find(|(one, other)| one != other);
                        assert!(
                            is_same,
                            "HH_SEED={seed}, store {store}, {stopped:?}: {} found of {}, {:?}",
                            found.len(),
                            expected.len(),
                            differs.map(|(one, other)| (one.0, other.0))
                        );
                        compared += 1;
                    }
                    None => {
                        refused += 1;
                        begin = Some(lived.clone());
                    }
                }
            }
        }
    }
    println!("{compared} compared, {torn} torn, {refused} that sled does not open");
    assert!(compared > refused && torn > 0);
}

/// Each message of a log: its kind, and its last byte.
fn ends(log: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    for (segment, bytes) in log.chunks(SEGMENT_BYTES).enumerate() {
        for message in messages(bytes, None) {
            found.push((message.kind, segment * SEGMENT_BYTES + message.end - 1));
        }
    }
    found
}

/// A leaf whose successor or whose end is damaged is read as it was once.
#[test]
fn a_key_that_was_removed_does_not_come_back_with_an_older_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let at = queue(0);
    let key = |number: u64| at.chunk_key(Sequence(number), 0).to_vec();
    let engine = open(dir.path());
    // The leaf is split, and what goes is in the new one; then they are one again.
    (1..=40).for_each(|number| engine.hints.insert(key(number), vec![number as u8; 400]));
    (26..=36).for_each(|number| assert!(engine.hints.remove(key(number))));
    (2..=20).for_each(|number| assert!(engine.hints.remove(key(number))));
    engine.commit().unwrap();
    engine.close().unwrap();
    let gone = |number: &u64| (2..=20).contains(number) || (26..=36).contains(number);
    let log = dir.path().join("db");
    let whole = fs::read(&log).unwrap();
    let read = || LogTree::read(&log, (Ending::Closed, Database::Own), &mut |_, _| {}).unwrap();
    let mut damaged = 0;
    for (kind, end) in ends(&whole) {
        let mut content = whole.clone();
        content[end] ^= 1;
        fs::write(&log, content).unwrap();
        damaged += 1;
        let tree = read();
        let value = |number: u64| tree.get(&key(number)).unwrap();
        let back: Vec<u64> = (1..=40)
            .filter(gone)
            .filter(|it| value(*it).is_some())
            .collect();
        // A message tells of one removal by itself, those that others tell of are known.
        assert!(
            back.len() <= 1,
            "{back:?}, by damage of a {kind} that ends at {end}"
        );
        let range = tree.range(&key(0), &key(41)).map(|it| it.unwrap().0);
        let expected = (1..=40).filter(|it| value(*it).is_some()).map(key);
        assert_eq!(range.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
    println!("{damaged} messages damaged, one by one");
    assert!(damaged > 5);
}

/// What has the right checksum by chance, or was put there, behind a header that is damaged.
#[test]
fn a_segment_number_that_no_log_reaches_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let key = queue(0).chunk_key(Sequence(1), 0);
    engine.hints.insert(key, vec![7; 30]);
    engine.close().unwrap();
    let header = [&[2, 0, 255_u8], [u8::MAX; 8].as_slice(), &[0]].concat();
    let crc = (crc32fast::hash(&header) ^ u32::MAX).to_le_bytes();
    let mut segment = vec![0; SEGMENT_BYTES];
    segment[20..36].copy_from_slice(&[crc.as_slice(), &header].concat());
    let log = dir.path().join("db");
    let mut content = fs::read(&log).unwrap();
    content.resize(content.len().next_multiple_of(SEGMENT_BYTES), 0);
    content.extend(segment);
    fs::write(&log, content).unwrap();
    for ending in [Ending::Closed, Ending::MayBeTorn] {
        let tree = LogTree::read(&log, (ending, Database::Own), &mut |_, _| {}).unwrap();
        assert_eq!(tree.get(&key).unwrap().as_deref(), Some([7; 30].as_slice()));
    }
}

/// Cuts the log between the two halves of the last split in it: the new leaf is there, and the old
/// one is as it was.
fn cut_within_a_split(dir: &Path) {
    let path = dir.join("db");
    let mut log = fs::read(&path).unwrap();
    let mut cut = None;
    for (number, segment) in log.chunks(SEGMENT_BYTES).enumerate() {
        let mut before = None;
        for message in messages(segment, None) {
            let node = (message.kind == NODE)
                .then(|| TreeNode::parse(message.body))
                .flatten();
            if let Some(node) = node {
                if before.is_some() && before == node.next {
                    cut = Some(number * SEGMENT_BYTES + message.at);
                }
                before = Some(message.page);
            } else {
                before = None;
            }
        }
    }
    log[cut.unwrap()..].fill(0);
    fs::write(&path, log).unwrap();
}

/// The new leaf of a split that was cut short is never looked at by sled, but moved when its
/// segment is emptied. So it looks newer than what became of its keys.
#[test]
fn a_leaf_that_a_power_cut_left_without_a_sibling_says_nothing_once_it_was_moved() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let engine = open(&at("first"));
    let key = |number: u64| queue(0).chunk_key(Sequence(number), 0).to_vec();
    (1..=20).for_each(|number| engine.hints.insert(key(number), vec![number as u8; 400]));
    engine.commit().unwrap();
    copy(&at("first"), &at("torn"));
    engine.close().unwrap();
    cut_within_a_split(&at("torn"));

    let engine = open(&at("torn"));
    let there = (1..=20).filter(|it| engine.hints.get(key(*it)).unwrap().is_some());
    let there: Vec<u64> = there.collect();
    assert!(there.len() > 10, "{there:?} are there behind the cut");
    there
        .iter()
        .step_by(2)
        .for_each(|it| assert!(engine.hints.remove(key(*it))));
    engine.hints.insert(queue(0).cursor_key(), vec![9; 30]);
    // Until the first segment was emptied.
    for round in 0..2_500_u64 {
        let key = queue(1).chunk_key(Sequence(round % 60), 0);
        engine
            .hints
            .insert(key, vec![(round / 60) as u8 + 1; 16_000]);
        if round % 20 == 0 {
            engine.commit().unwrap();
        }
    }
    engine.close().unwrap();
    let found = ours(&at("torn"));
    let expected = sleds(&at("torn")).unwrap();
    let keys = |of: &BTreeMap<Vec<u8>, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&found), keys(&expected));
    assert!(found == expected);
}
