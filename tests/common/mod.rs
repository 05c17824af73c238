//! What several store tests need: a store that is easy to fill, and its database opened behind its
//! back.

#![allow(dead_code)]

pub mod clock;
pub mod copy;
pub mod frozen;
pub mod hosting;
pub mod letters;
pub mod service;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Config, EnqueueError, HintId, NodeId, ShardId,
    internals::{Held, Hint, Peek, PeekLimits, PeekedHint, Reader, Store},
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

/// Lets the commit thread scrub what a peek found damaged.
pub fn scrub(store: &Store, node: u64) {
    let Peek::Damaged(place) = peek(store, node) else {
        panic!("nothing is damaged");
    };
    let (tell, told) = mpsc::channel();
    store.scrub(NodeId(node), place.queue, move |result| {
        tell.send(result).unwrap()
    });
    told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}

pub fn sync(store: &Store) {
    told(|done| store.sync(done)).unwrap();
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Blocks until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits, in real time, until it is so.
pub async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What must not hang.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("it hangs")
}

/// This program once more, as a child that runs one test of it, `module::name`.
pub fn child_for(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    command
}

/// A file of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(name)
}

/// Bytes of all files below a directory. What goes while it is looked at counts no more.
pub fn bytes_on_disk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(it) if it.is_dir() => bytes_on_disk(&entry.path()),
        Ok(it) => it.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// A payload that stands nowhere else on the disk.
pub fn marked(number: u64) -> Vec<u8> {
    [format!("hint-{number}-").into_bytes(), noise(40, number)].concat()
}

/// Sequences that the store says the disk lost, first and last.
pub fn lost_ranges(store: &Store) -> Vec<(u64, u64)> {
    let damage = store.stats().damage;
    let ranges = damage.iter().filter_map(|damage| damage.lost);
    ranges.map(|(first, last)| (first.0, last.0)).collect()
}

/// Asks something, and waits for the answer.
pub fn told<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (tell, told) = mpsc::channel();
    // Nobody listens if the wait below gave up.
    ask(Box::new(move |answer| drop(tell.send(answer))));
    told.recv_timeout(Duration::from_secs(60)).unwrap()
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
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}
