//! What several store tests need: a store that is easy to fill, and its database opened behind its
//! back.

#![allow(dead_code)]

pub mod clock;

use std::{path::Path, sync::mpsc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    Config, DeadReason, EnqueueError, HintId, LossReason, NodeId, ShardId,
    internals::{Burial, Held, Hint, Peek, PeekLimits, PeekedHint, Place, Reader, Store},
};

pub const EVERYTHING: PeekLimits = PeekLimits {
    hints: usize::MAX,
    payload_bytes: u64::MAX,
};

pub fn config(dir: &Path) -> Config {
    Config {
        min_free_disk: 0,
        ..Config::new(dir)
    }
}

pub fn open(dir: &Path) -> Store {
    Store::open(&config(dir), Box::new(|_| {})).unwrap()
}

pub fn hint(shard: u64, payload: impl Into<Bytes>) -> Hint {
    Hint {
        shard: ShardId(shard),
        format: 0,
        enqueued_unix_ms: 1_700_000_000_000,
        payload: payload.into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    }
}

/// Appends hints as one burst and waits for all answers.
pub fn try_append(store: &Store, node: u64, hints: Vec<Hint>) -> Vec<Result<HintId, EnqueueError>> {
    let (tell, told) = mpsc::channel();
    let count = hints.len();
    for (index, hint) in hints.into_iter().enumerate() {
        let tell = tell.clone();
        let done = move |result| tell.send((index, result)).unwrap();
        store.append(NodeId(node), hint, Box::new(done));
    }
    let wait = Duration::from_secs(20);
    let mut results: Vec<_> = (0..count)
        .map(|_| told.recv_timeout(wait).unwrap())
        .collect();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Hands in a hint that is held; told its id once it is durable.
pub fn hold(
    store: &Store,
    node: u64,
    hint: Hint,
) -> (Held, mpsc::Receiver<Result<HintId, EnqueueError>>) {
    let (tell, told) = mpsc::channel();
    let done = move |result| drop(tell.send(result));
    let held = store.append_held(
        Default::default(),
        NodeId(node),
        hint,
        false,
        Box::new(done),
    );
    (held, told)
}

/// Appends one hint and waits: a block of its own.
pub fn append(store: &Store, node: u64, payload: impl Into<Bytes>) -> HintId {
    let mut results = try_append(store, node, vec![hint(1, payload)]);
    results.pop().unwrap().unwrap()
}

pub fn peek(store: &Store, node: u64) -> Peek {
    let mut reader = Reader::default();
    store.peek(&mut reader, NodeId(node), EVERYTHING).unwrap()
}

pub fn hints(store: &Store, node: u64) -> Vec<PeekedHint> {
    match peek(store, node) {
        Peek::Empty => Vec::new(),
        Peek::Hints(hints) => hints,
        Peek::Damaged(place) => panic!("{place:?} is damaged"),
    }
}

pub fn payloads(store: &Store, node: u64) -> Vec<Bytes> {
    hints(store, node)
        .into_iter()
        .map(|it| it.hint.payload)
        .collect()
}

/// Lets the commit thread judge what a peek found damaged.
pub fn judge(store: &Store, node: u64) {
    let Peek::Damaged(place) = peek(store, node) else {
        panic!("nothing is damaged");
    };
    let (tell, told) = mpsc::channel();
    store.judge_damage(NodeId(node), place.queue, move |result| {
        tell.send(result).unwrap()
    });
    told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}

pub fn sync(store: &Store) {
    told(|done| store.sync(done)).unwrap();
}

/// Asks something, and waits for the answer.
pub fn told<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (tell, told) = mpsc::channel();
    ask(Box::new(move |answer| tell.send(answer).unwrap()));
    told.recv_timeout(Duration::from_secs(20)).unwrap()
}

/// What failed, as a node might say it.
pub fn burial(error: &str) -> Burial {
    Burial {
        reason: DeadReason::Rejected,
        error: error.to_owned(),
        attempts: 3,
        first_failed_unix_ms: 1_700_000_000_001,
        last_failed_unix_ms: 1_700_000_000_200,
    }
}

/// Claims one of the hints that are pending, by its sequence.
pub fn claim(store: &Store, node: u64, sequence: u64) -> PeekedHint {
    let mut claimed = hints(store, node);
    claimed.retain(|it| it.mark.sequence.0 == sequence);
    claimed.truncate(1);
    store.claim(NodeId(node), &mut claimed);
    claimed.pop().unwrap()
}

/// Makes a hint a dead letter.
pub fn bury(store: &Store, node: u64, sequence: u64, error: &str) -> Place {
    let hint = claim(store, node, sequence);
    let place = hint.mark.place();
    told(|done| store.bury(NodeId(node), hint, burial(error), done)).unwrap();
    place
}

pub fn lose(store: &Store, node: u64, sequence: u64, reason: LossReason) {
    let hint = claim(store, node, sequence);
    let left = told(|done| store.lose(NodeId(node), vec![hint], reason, done));
    assert_eq!(left.unwrap().hints, 1);
}

/// Sends a dead letter on.
pub fn redrive(store: &Store, node: u64, letter: Place) -> HintId {
    let id = HintId {
        store: store.id(),
        queue: letter.queue.queue,
        sequence: letter.sequence,
    };
    let (_, _, stored) = store.letter(NodeId(node), id).unwrap().unwrap();
    let hint = Hint {
        origin: Some(stored.origin.unwrap_or((id.queue, id.sequence))),
        ..stored
    };
    let now = told(|done| store.redrive(NodeId(node), letter, hint, done));
    now.unwrap().unwrap()
}

/// The sequences of a node's dead letters with their payloads.
pub fn letters(store: &Store, node: u64) -> Vec<(u64, Bytes)> {
    let found = store.letters(NodeId(node), None, usize::MAX).unwrap();
    let read = |(place, _): &(Place, _)| {
        let id = HintId {
            store: store.id(),
            queue: place.queue.queue,
            sequence: place.sequence,
        };
        let (_, _, hint) = store.letter(NodeId(node), id).unwrap().unwrap();
        (place.sequence.0, hint.payload)
    };
    found.iter().map(read).collect()
}

pub fn generation(dir: &Path) -> std::path::PathBuf {
    dir.join("gen-000001")
}

/// The generation in use.
pub fn generation_in_use(dir: &Path) -> std::path::PathBuf {
    let name = std::fs::read_to_string(dir.join("CURRENT")).unwrap();
    dir.join(name.trim_end())
}

/// Damages every place of the closed store's log that holds these bytes; returns how many there
/// were.
pub fn destroy(dir: &Path, bytes: &[u8]) -> usize {
    let log = generation_in_use(dir).join("db");
    let mut content = std::fs::read(&log).unwrap();
    let mut places = 0;
    for at in 0..content.len().saturating_sub(bytes.len()) {
        if content[at..].starts_with(bytes) {
            content[at] ^= 0x10;
            places += 1;
        }
    }
    std::fs::write(&log, content).unwrap();
    places
}

/// Opens the closed store's database by itself and lets `change` do what the disk might do.
pub fn behind_its_back<T>(dir: &Path, change: impl FnOnce(&sled::Db) -> T) -> T {
    let config = sled::Config::new()
        .path(generation(dir))
        .segment_size(8 << 20);
    // A handle dropped a moment ago may still hold the lock.
    let mut tries = 0..100;
    let db = loop {
        match config.open() {
            Err(_) if tries.next().is_some() => std::thread::sleep(Duration::from_millis(20)),
            opened => break opened.unwrap(),
        }
    };
    let result = change(&db);
    db.flush().unwrap();
    result
}

/// The same, and nothing of what was there before stays in the log, where the store would find it
/// again.
pub fn changed_for_good<T>(dir: &Path, change: impl FnOnce(&sled::Db) -> T) -> T {
    type Entries = Vec<(sled::IVec, sled::IVec)>;
    let (result, trees) = behind_its_back(dir, |db| {
        let result = change(db);
        let trees = db.tree_names().into_iter().map(|name| {
            let tree = db.open_tree(&name).unwrap();
            let entries: Entries = tree.iter().map(Result::unwrap).collect();
            (name, entries)
        });
        (result, trees.collect::<Vec<_>>())
    });
    let clean = generation(dir).join("CLEAN");
    let summary = std::fs::read(&clean).ok();
    std::fs::remove_dir_all(generation(dir)).unwrap();
    behind_its_back(dir, |db| {
        for (name, entries) in trees {
            let tree = db.open_tree(name).unwrap();
            for (key, value) in entries {
                tree.insert(key, value).unwrap();
            }
        }
    });
    if let Some(summary) = summary {
        std::fs::write(clean, summary).unwrap();
    }
    result
}

/// The keys of a node's block chunks, in order.
pub fn chunk_keys(hints: &sled::Tree, node: u64) -> Vec<sled::IVec> {
    let keys = hints
        .scan_prefix(node.to_be_bytes())
        .keys()
        .map(Result::unwrap);
    keys.filter(|key| key.len() == 27).collect()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}
