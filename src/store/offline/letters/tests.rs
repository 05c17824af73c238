use std::{
    fs,
    path::Path,
    sync::{Arc, mpsc},
};

use crate::{
    config::Config,
    offline::{ClosedStore, Selection},
    store::{
        DeadCause, DeadReason, Fate, Hint, Store,
        engine::generation::Engine,
        format::keys::{Key, Place},
    },
    types::{NodeId, ShardId},
};

const NODE: NodeId = NodeId(7);

fn payload(number: u64) -> Vec<u8> {
    let mut noise = vec![0; 2_000];
    fastrand::Rng::with_seed(number).fill(&mut noise);
    noise
}

fn open(dir: &Path) -> Store {
    let config = Config {
        min_free_disk: 0,
        ..Config::new(dir)
    };
    Store::open(&config, Box::new(|_| {})).unwrap()
}

/// Stores a hint that is a dead letter at once.
fn append(store: &Store, number: u64) {
    let hint = Hint {
        shard: ShardId(1),
        format: 0,
        enqueued_unix_ms: number,
        payload: payload(number).into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    };
    let cause = DeadCause {
        reason: DeadReason::Rejected,
        error: "no such measurement".to_owned(),
        attempts: 3,
        first_failed_unix_ms: 1,
        last_failed_unix_ms: 2,
    };
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |it| tell.send(it).unwrap());
    store.append_undelivered(NODE, hint, Fate::Dead(cause), done);
    told.recv().unwrap().unwrap();
}

/// A closed store with so many dead letters.
fn closed(dir: &Path, letters: u64) {
    let store = open(dir);
    (0..letters).for_each(|number| append(&store, number));
    store.close().unwrap();
}

/// Changes the database as the store never does.
fn behind_its_back<T>(dir: &Path, change: impl FnOnce(&Engine) -> T) -> T {
    let engine = Engine::open(&dir.join("gen-000001"), Arc::default()).unwrap();
    let changed = change(&engine);
    engine.close().unwrap();
    changed
}

/// All that is stored of dead letters, by key.
fn stored(engine: &Engine) -> Vec<(Place, Vec<u8>, Vec<u8>)> {
    let entries = engine.hints.iter().map(Result::unwrap);
    let of_letters = entries.filter_map(|(key, value)| {
        let place = match Key::parse(&key)? {
            Key::Letter(place) => place,
            Key::LetterChunk {
                queue, sequence, ..
            } => Place { queue, sequence },
            _ => return None,
        };
        Some((place, key.to_vec(), value.to_vec()))
    });
    of_letters.collect()
}

#[test]
fn a_dead_letter_that_was_discarded_stays_gone_if_damage_brings_its_record_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    closed(&dir, 3);
    let before = behind_its_back(&dir, stored);
    let store = open(&dir);
    let letters = store.letters(NODE, None, usize::MAX).unwrap();
    let gone = letters[1].0;
    let (tell, told) = mpsc::channel();
    store.discard(NODE, vec![gone], move |it| tell.send(it).unwrap());
    assert_eq!(told.recv().unwrap().unwrap().hints, 1);
    store.close().unwrap();
    // As if the leaf were read as it was before.
    behind_its_back(&dir, |engine| {
        let back = before.iter().filter(|(place, ..)| *place == gone);
        let back: Vec<_> = back.collect();
        assert!(back.len() >= 2, "its record and its payload");
        for (_, key, value) in back {
            engine.hints.insert(key, value.clone());
        }
    });

    let store = ClosedStore::open(&dir).unwrap();
    let letters = store.letters(&Selection::default()).unwrap();
    let read: Vec<u64> = letters
        .map(|it| it.unwrap().hint.enqueued_unix_ms)
        .collect();
    assert_eq!(read, [0, 2]);
    assert_eq!(store.info().unwrap().dead_letters.hints, 2);
    let verified = store.verify(|_, _| {}).unwrap();
    assert_eq!(verified.dead_letters.hints, 2);
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

#[test]
fn payloads_that_do_not_read_take_one_look_through_the_log_for_all_of_a_queue() {
    const LETTERS: u64 = 5;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    closed(&dir, LETTERS);
    behind_its_back(&dir, |engine| {
        for (place, key, _) in stored(engine) {
            if key != place.letter_key() && place.sequence.0 != 3 {
                engine.hints.remove(key);
            }
        }
    });
    let store = ClosedStore::open(&dir).unwrap();
    let mut letters = store.letters(&Selection::default()).unwrap();
    let first = letters.next().unwrap().unwrap();
    assert_eq!(first.hint.payload, payload(0));
    // What was opened reads on; another look through the log does not find it.
    fs::remove_file(dir.join("gen-000001/db")).unwrap();
    for number in 1..LETTERS {
        let letter = letters.next().unwrap().unwrap();
        assert_eq!(letter.hint.payload, payload(number));
        assert!(letter.reads);
    }
    assert_eq!(letters.findings().len() as u64, LETTERS - 1);
}
