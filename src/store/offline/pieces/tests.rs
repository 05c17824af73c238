use std::{
    fs,
    path::Path,
    sync::{Arc, mpsc},
};

use crate::{
    config::Config,
    offline::{ClosedStore, Selection, Severity},
    store::{
        Hint, Peek, PeekLimits, Reader, Reservation, Store, engine::generation::Engine,
        format::keys::Key,
    },
    types::{NodeId, Sequence, ShardId},
};

const NODE: NodeId = NodeId(7);
/// More than a block has, so that each is one of its own; all of them are more than is held of
/// copies at once.
const PAYLOAD_BYTES: usize = 60_000;
const HINTS: u64 = 16;

fn payload(number: u64) -> Vec<u8> {
    let mut noise = vec![0; PAYLOAD_BYTES];
    fastrand::Rng::with_seed(number).fill(&mut noise);
    noise
}

fn append(store: &Store, number: u64) {
    let (tell, told) = mpsc::channel();
    let hint = Hint {
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: 1_700_000_000_000 + number,
        payload: payload(number).into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    };
    let done = Box::new(move |it| tell.send(it).unwrap());
    store.append_within(Reservation::default(), NODE, hint, done);
    told.recv().unwrap().unwrap();
}

/// A closed store whose first hints were delivered.
fn closed(dir: &Path, delivered: usize) {
    let config = Config {
        min_free_disk: 0,
        ..Config::new(dir)
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    (0..HINTS).for_each(|number| append(&store, number));
    // Until it is closed they may be in WAL records only.
    store.close().unwrap();
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    let mut reader = Reader::default();
    let one = PeekLimits {
        hints: 1,
        payload_bytes: u64::MAX,
    };
    for _ in 0..delivered {
        let Peek::Hints(hints) = store.peek(&mut reader, NODE, one).unwrap() else {
            panic!("a hint waits");
        };
        store.deliver(NODE, &hints).unwrap();
    }
    store.close().unwrap();
}

/// Damages every place of the log that holds the payload.
fn destroy(dir: &Path, number: u64) {
    let log = dir.join("gen-000001/db");
    let mut content = fs::read(&log).unwrap();
    let payload = payload(number);
    let begin = &payload[..64];
    let places = (0..content.len() - begin.len()).filter(|at| content[*at..].starts_with(begin));
    let places: Vec<usize> = places.collect();
    assert!(!places.is_empty(), "hint {number} is in no place");
    places.iter().for_each(|at| content[*at] ^= 0x10);
    fs::write(&log, content).unwrap();
}

/// Has sled forget the blocks of all pending hints, as if it had lost their leaves. Copies stand in
/// the log.
fn forget(dir: &Path) {
    let store = ClosedStore::open(dir).unwrap();
    let at = store.nodes[&NODE].queues[0].at;
    drop(store);
    let engine = Engine::open(&dir.join("gen-000001"), Arc::default()).unwrap();
    let keys = engine.hints.iter().map(|entry| entry.unwrap().0.to_vec());
    let keys: Vec<Vec<u8>> = keys.collect();
    for key in keys {
        if matches!(Key::parse(&key), Some(Key::Chunk { queue, .. }) if queue == at) {
            engine.hints.remove(key);
        }
    }
    engine.close().unwrap();
}

/// The numbers of the hints that read, and of those that are lost.
fn read(dir: &Path) -> (Vec<u64>, Vec<u64>) {
    let store = ClosedStore::open(dir).unwrap();
    let mut hints = store.hints(&Selection::default());
    let mut found = Vec::new();
    for hint in hints.by_ref() {
        let hint = hint.unwrap();
        let number = hint.enqueued_unix_ms - 1_700_000_000_000;
        assert_eq!(hint.payload, payload(number));
        found.push(number);
        assert!(found.len() <= HINTS as usize, "{found:?}");
    }
    let mut lost = Vec::new();
    for finding in hints.findings() {
        if finding.severity == Severity::Lost {
            let (first, last) = (finding.first.unwrap().0, finding.last.unwrap().0);
            assert_eq!(finding.hints, last - first + 1);
            lost.extend(first - 1..last);
        }
    }
    (found, lost)
}

#[test]
fn what_is_delivered_and_stands_in_the_log_is_not_in_the_way_of_a_rescue() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    closed(&store, 8);
    forget(&store);
    assert_eq!(read(&store), ((8..HINTS).collect(), vec![]));
    destroy(&store, 8);
    assert_eq!(read(&store), ((9..HINTS).collect(), vec![8]));
    let info = ClosedStore::open(&store).unwrap().info().unwrap();
    let oldest = info.nodes[0].oldest_unix_ms;
    assert_eq!(oldest, Some(1_700_000_000_009), "the first that reads");
}

#[test]
fn more_is_rescued_than_is_held_at_once_and_each_hole_in_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    closed(&store, 2);
    forget(&store);
    assert_eq!(read(&store), ((2..HINTS).collect(), vec![]));
    for number in [3, 4, 9, 15] {
        destroy(&store, number);
    }
    let (found, lost) = read(&store);
    assert_eq!(lost, [3, 4, 9, 15]);
    assert_eq!(found, [2, 5, 6, 7, 8, 10, 11, 12, 13, 14]);
}

#[test]
fn a_key_behind_which_no_hint_can_stand_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    closed(&store, 2);
    let opened = ClosedStore::open(&store).unwrap();
    let at = opened.nodes[&NODE].queues[0].at;
    drop(opened);
    let engine = Engine::open(&store.join("gen-000001"), Arc::default()).unwrap();
    let key = at.chunk_key(Sequence(u64::MAX), 0);
    engine.hints.insert(key, vec![3; 30]);
    engine.close().unwrap();
    let store = ClosedStore::open(&store).unwrap();
    let mut hints = store.hints(&Selection::default());
    assert_eq!(hints.by_ref().count(), HINTS as usize - 2);
    let lost = hints.findings().iter().map(|it| (it.first, it.last));
    let behind = (Some(Sequence(HINTS + 1)), Some(Sequence(u64::MAX - 1)));
    assert_eq!(lost.collect::<Vec<_>>(), [behind]);
}
