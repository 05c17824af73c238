//! Stores for tests of the program, and the program run on them.

#![allow(dead_code)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc,
    time::Duration,
};

use hinted_handoff::{
    Config, DeadReason, HintId, NodeId, ShardId, WriteId,
    internals::{DeadCause, Fate, Hint, Store},
};

pub fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.min_free_disk = 0;
    config
}

pub fn open(dir: &Path) -> Store {
    Store::open(&config(dir), Box::new(|_| {})).unwrap()
}

pub fn hint(shard: u64, payload: impl Into<Vec<u8>>) -> Hint {
    Hint {
        shard: ShardId(shard),
        format: 3,
        enqueued_unix_ms: 1_700_000_000_000 + shard,
        payload: payload.into().into(),
        origin: None,
        write: Some(WriteId {
            boot: 77,
            counter: shard,
        }),
        lifetime_ms: (shard == 2).then_some(1 << 50),
    }
}

fn answered<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (tell, told) = mpsc::channel();
    ask(Box::new(move |answer| drop(tell.send(answer))));
    told.recv_timeout(Duration::from_secs(60)).unwrap()
}

pub fn append(store: &Store, node: u64, hint: Hint) -> HintId {
    answered(|done| store.append(NodeId(node), hint, done)).unwrap()
}

pub fn append_dead(store: &Store, node: u64, hint: Hint) -> HintId {
    let cause = DeadCause {
        reason: DeadReason::Rejected,
        error: "no such column\u{1b}[2J\tat all".to_owned(),
        attempts: 5,
        first_failed_unix_ms: 1_700_000_000_100,
        last_failed_unix_ms: 1_700_000_000_200,
    };
    let fate = Fate::Dead(cause);
    answered(|done| store.append_undelivered(NodeId(node), hint, fate, done)).unwrap()
}

/// Bytes that do not compress.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}

/// What stands nowhere else on the disk.
pub fn marked(number: u64) -> Vec<u8> {
    [format!("hint-{number}-").into_bytes(), noise(40, number)].concat()
}

/// Nodes 1 and 2 with hints of two shards, a large one and a dead letter among them.
pub fn fill(store: &Store) {
    for number in 0..6 {
        append(store, 1, hint(1 + number % 2, marked(number)));
    }
    append(store, 2, hint(1, noise(100_000, 9)));
    append(store, 2, hint(1, marked(7)));
    append_dead(store, 2, hint(1, marked(8)));
}

/// A store that was closed.
pub fn closed(dir: &Path) {
    let store = open(dir);
    fill(&store);
    store.close().unwrap();
}

/// The files of an open store as they are, as if its process had been killed.
pub fn killed(dir: &Path) {
    let living = tempfile::tempdir().unwrap();
    let store = open(&living.path().join("store"));
    fill(&store);
    copy(&living.path().join("store"), dir);
    store.close().unwrap();
}

pub fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let into = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &into),
            false => drop(fs::copy(entry.path(), into).unwrap()),
        }
    }
}

/// Damages every place of the log that holds these bytes.
pub fn destroy(dir: &Path, bytes: &[u8]) {
    let log = dir.join("gen-000001/db");
    let mut content = fs::read(&log).unwrap();
    let mut places = 0;
    for at in 0..content.len().saturating_sub(bytes.len()) {
        if content[at..].starts_with(bytes) {
            content[at] ^= 0x10;
            places += 1;
        }
    }
    assert!(places > 0);
    fs::write(&log, content).unwrap();
}

pub fn hh(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hh"));
    command.args(arguments);
    command
}

pub fn run(arguments: &[&str]) -> Output {
    hh(arguments).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs it, and sees to it that it went well.
pub fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
    assert_eq!(err(&output), "", "{arguments:?}");
    out(&output)
}

pub fn json(arguments: &[&str]) -> serde_json::Value {
    let arguments = [&["--json"], arguments].concat();
    serde_json::from_str(&ok(&arguments)).unwrap()
}

pub fn lines(text: &str) -> Vec<serde_json::Value> {
    let lines = text.lines();
    lines.map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// Every file and folder with its bytes and when it was changed.
pub fn all_of(dir: &Path) -> Vec<(PathBuf, (i64, i64), Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        let about = fs::metadata(&folder).unwrap();
        found.push((
            folder.clone(),
            (about.mtime(), about.mtime_nsec()),
            Vec::new(),
        ));
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::metadata(&path).unwrap();
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            found.push((path, (about.mtime(), about.mtime_nsec()), bytes));
        }
    }
    found.sort();
    found
}

pub fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

/// A directory for a store, and what holds it.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    (dir, store)
}
