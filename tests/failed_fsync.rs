//! After a failed fsync Linux keeps pages that were never written and marks them clean: they read
//! well until the power goes. What a store answers behind such pages must be there after a power
//! cut all the same.
//!
//! Method: a disk that fails for a while and works again (`FailingDisk`), then a power cut. Where
//! there is no root this is skipped; what a store does then is tested on any disk by
//! `storage_failure` and in `store/engine/unsynced.rs`.

mod common;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process,
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::hosting::{DOWN, Host, MANUAL, SHARD};
use hinted_handoff::{
    Config, FailedOutcome, Health, HintedHandoff, NodeId, database_config,
    internals::{Peek, Reader, Store},
    make_durable, open_database, sled,
};
use hinted_handoff_testkit::{FailingDisk, ScriptedWriter, Stop};

const NODE: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk and where a store can live on it, or `None` where that takes rights that this process
/// does not have.
fn disk() -> Option<(tempfile::TempDir, FailingDisk)> {
    let dir = tempfile::tempdir().unwrap();
    match FailingDisk::new(dir.path(), 192) {
        Ok(disk) => Some((dir, disk)),
        Err(missing) => {
            println!("SKIPPED: no failing disk: {missing}");
            assert!(std::env::var("CI").is_err(), "it must run in CI: {missing}");
            None
        }
    }
}

/// Hardly compresses, so that each takes blocks of the disk.
fn payload(number: u64) -> Bytes {
    let mut noise = fastrand::Rng::with_seed(number);
    let noise = (0..10_000).map(|_| noise.u8(..));
    number.to_be_bytes().into_iter().chain(noise).collect()
}

/// Appends hints of these numbers one by one; keeps those that are answered, ends with the first
/// that fails.
fn append(store: &Store, numbers: std::ops::Range<u64>, answered: &mut BTreeSet<u64>) -> bool {
    for number in numbers {
        let mut told = common::try_append(store, NODE, vec![common::hint(1, payload(number))]);
        match told.remove(0) {
            Ok(_) => answered.insert(number),
            Err(error) => {
                assert_eq!(error.outcome(), FailedOutcome::Unknown, "{error}");
                return false;
            }
        };
    }
    true
}

/// Whatever keeps files of it open must let go within a moment.
fn power_comes_back(disk: &mut FailingDisk) {
    let started = Instant::now();
    while let Err(error) = disk.recover() {
        assert!(started.elapsed() < PATIENCE, "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The store is dropped as a crash would, and opened again from what is on the disk.
fn outlives_a_power_cut(disk: &mut FailingDisk, store: Store, answered: &BTreeSet<u64>) {
    disk.cut_power().unwrap();
    drop(store);
    power_comes_back(disk);
    let store = common::open(&path(disk));
    check(&store, answered);
}

/// All that was answered reads as it was written.
fn check(store: &Store, answered: &BTreeSet<u64>) {
    let (mut found, mut from) = (BTreeSet::new(), None);
    let mut reader = Reader::default();
    while let Peek::Hints(hints) = store
        .peek_from(&mut reader, NodeId(NODE), from, common::EVERYTHING)
        .unwrap()
    {
        for hint in &hints {
            let read = &hint.hint.payload;
            let number = u64::from_be_bytes(read[..8].try_into().unwrap());
            assert_eq!(payload(number), *read, "hint {number} is another");
            found.insert(number);
        }
        from = hints.last().map(|hint| hint.mark.place().next());
    }
    let lost: Vec<_> = answered.difference(&found).collect();
    let (lost, of) = (lost.len(), answered.len());
    println!("{of} answered, {lost} lost");
    assert_eq!(lost, 0, "answered and lost, of {of}");
    assert!(store.stats().damage.is_empty(), "{:?}", store.stats());
}

fn fails_and_is_reopened(
    disk: &FailingDisk,
    store: &Store,
    answered: &mut BTreeSet<u64>,
    first: u64,
) {
    disk.fail().unwrap();
    assert!(
        !append(store, first..first + 2_000, answered),
        "nothing failed"
    );
    disk.work_again().unwrap();
    common::until("the store is not reopened", || {
        matches!(store.health(), Health::Serving)
    });
}

fn path(disk: &FailingDisk) -> std::path::PathBuf {
    disk.path().join("store")
}

/// What a child process does, told to it by these, and where.
const ROLE: &str = "HH_TEST_ROLE";
const STORE: &str = "HH_TEST_STORE";

/// A child that runs one test of this program in a role, and the lines that it says.
struct Child {
    process: process::Child,
    lines: mpsc::Receiver<String>,
}

impl Child {
    fn start(test: &str, role: &str, store: &Path) -> Child {
        let mut process = common::child_for(test)
            .env(ROLE, role)
            .env(STORE, store)
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        std::thread::spawn(move || said.map_while(Result::ok).all(|it| tell.send(it).is_ok()));
        Child { process, lines }
    }

    /// Waits for a word; returns the numbers that were said before it.
    fn until(&self, word: &str) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it does not say {word}"));
            // The first is said behind what the test harness says.
            if line.ends_with(word) {
                return numbers;
            }
            numbers.extend(line.parse::<u64>());
        }
    }

    fn go_on(&mut self) {
        let stdin = self.process.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
}

/// For a child: waits until the parent lets it go on.
fn wait() {
    std::io::stdin().lock().lines().next();
}

/// The role and the store of this process, if it is a child.
fn role() -> Option<(String, std::path::PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    Some((role, std::env::var_os(STORE)?.into()))
}

#[test]
fn what_is_answered_after_a_failed_fsync_outlives_a_power_cut() {
    let Some((_dir, mut disk)) = disk() else {
        return;
    };
    let mut answered = BTreeSet::new();
    let store = common::open(&path(&disk));
    assert!(append(&store, 0..20, &mut answered));
    for time in 1..=3 {
        let first = time * 10_000;
        fails_and_is_reopened(&disk, &store, &mut answered, first);
        assert!(append(&store, first + 5_000..first + 5_100, &mut answered));
    }
    outlives_a_power_cut(&mut disk, store, &answered);
}

/// The process that saw the fsync fail does not live to repair it.
#[test]
fn what_the_next_process_answers_after_a_failed_fsync_outlives_a_power_cut() {
    if let Some((_, store)) = role() {
        let store = common::open(&store);
        let mut answered = BTreeSet::new();
        append(&store, 0..20, &mut answered);
        say("ready");
        wait();
        append(&store, 100..2_000, &mut answered);
        answered.iter().for_each(say);
        say("failed");
        wait();
        return;
    }
    let Some((_dir, mut disk)) = disk() else {
        return;
    };
    let test = "what_the_next_process_answers_after_a_failed_fsync_outlives_a_power_cut";
    let mut child = Child::start(test, "writes", &path(&disk));
    child.until("ready");
    disk.fail().unwrap();
    child.go_on();
    let mut answered: BTreeSet<u64> = child.until("failed").into_iter().collect();
    child.kill();
    disk.work_again().unwrap();
    let store = common::open(&path(&disk));
    assert!(append(&store, 10_000..10_100, &mut answered));
    outlives_a_power_cut(&mut disk, store, &answered);
}

/// A host with its rows, which is told to open its database again, and does.
#[test]
fn what_a_shared_database_answers_after_a_failed_fsync_outlives_a_power_cut() {
    if let Some((role, dir)) = role() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        match role.as_str() {
            "writes" => runtime.block_on(host_writes(&dir)),
            _ => runtime.block_on(async {
                let host = Host::open(&dir).await;
                say(common::hosting::number(host.rows.get("row").unwrap()));
                say("rows");
                say(host.pending(MANUAL));
                say("hints");
            }),
        }
        return;
    }
    let Some((_dir, mut disk)) = disk() else {
        return;
    };
    let test = "what_a_shared_database_answers_after_a_failed_fsync_outlives_a_power_cut";
    let mut child = Child::start(test, "writes", &path(&disk));
    child.until("ready");
    disk.fail().unwrap();
    child.go_on();
    child.until("failed");
    disk.work_again().unwrap();
    child.go_on();
    let answered = child.until("done").pop().unwrap();
    disk.cut_power().unwrap();
    child.kill();
    power_comes_back(&mut disk);
    let child = Child::start(test, "reads", &path(&disk));
    let row = child.until("rows").pop().unwrap();
    let hints = child.until("hints").pop().unwrap();
    child.kill();
    println!("{answered} answered, {row} in the row, {hints} hints");
    assert!(row >= answered, "answered and lost, of {answered}");
    assert_eq!(hints, row, "hints of a row");
}

/// Counts until that fails, and goes on when the disk works again; says how far it came.
async fn host_writes(dir: &Path) {
    let host = Host::open(dir).await;
    for _ in 0..20 {
        host.count("row").await;
    }
    say("ready");
    wait();
    let points = payload(0);
    while host.handoff.write_shard(DOWN, SHARD, &points).await.is_ok() {}
    assert!(matches!(host.handoff.health(), Health::ReopenRequired(_)));
    say("failed");
    wait();
    let _ = host.handoff.shutdown().await;
    drop(host);
    // Tried again by a host that does not take the first answer for the last.
    while open_database(&database_config(dir)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let host = Host::open(dir).await;
    for _ in 0..100 {
        say(host.count("row").await + 1);
    }
    say("done");
    wait();
}

/// sled's own thread only logs that its fsync failed.
#[test]
fn a_failed_fsync_that_no_commit_meets_is_found_out_and_repaired() {
    let Some((_dir, disk)) = disk() else {
        return;
    };
    let store = common::open(&path(&disk));
    let mut answered = BTreeSet::new();
    assert!(append(&store, 0..20, &mut answered));
    let log = path(&disk).join("gen-000001/db");
    let before = fs::metadata(&log).unwrap().ino();
    disk.fail().unwrap();
    // Somebody else's write, of what sled takes for a segment that was never used, and somebody
    // else's fsync.
    let other = File::options().write(true).open(&log).unwrap();
    other.write_all_at(&[0; 1 << 20], 64 << 20).unwrap();
    other.sync_data().unwrap_err();
    drop(other);
    common::until("nobody notices", || {
        !matches!(store.health(), Health::Serving)
    });
    disk.work_again().unwrap();
    common::until("it is not reopened", || {
        matches!(store.health(), Health::Serving)
    });
    assert_ne!(fs::metadata(&log).unwrap().ino(), before, "the same file");
    check(&store, &answered);
}

/// A database that the host opened by itself, and all that its next open shows after a failure.
fn hosts_own(fails: impl FnOnce(&sled::Db, &Path)) {
    let Some((_dir, disk)) = disk() else {
        return;
    };
    let path = disk.path().join("db-of-the-host");
    let config = database_config(&path).flush_every_ms(Some(3_600_000));
    let db = config.open().unwrap();
    for number in 0..600_u64 {
        let row = payload(number).to_vec();
        db.insert(number.to_be_bytes(), row).unwrap();
    }
    disk.fail().unwrap();
    fails(&db, &path);
    // sled may panic when it goes.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(db)));
    std::thread::sleep(Duration::from_millis(300));
    disk.work_again().unwrap();
    let log = path.join("db");
    let before = fs::metadata(&log).unwrap().ino();
    drop(open_database(&database_config(&path)));
    assert_ne!(fs::metadata(&log).unwrap().ino(), before, "the same file");
}

#[test]
fn a_failure_that_the_first_make_durable_meets_is_handed_down() {
    hosts_own(|db, _| {
        make_durable(db).unwrap_err();
    });
}

#[test]
fn a_failure_that_open_in_meets_is_handed_down() {
    hosts_own(|db, path| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = Config {
            min_free_disk: 0,
            ..Config::new(path)
        };
        let opening = HintedHandoff::<Bytes>::open_in(db, config, ScriptedWriter::down());
        assert!(runtime.block_on(opening).is_err());
    });
}

/// sled was told, and nobody else.
#[test]
fn a_failure_that_only_sled_met_is_told_by_the_next_make_durable() {
    let Some((_dir, disk)) = disk() else {
        return;
    };
    let path = disk.path().join("db-of-the-host");
    let db = open_database(&database_config(&path).flush_every_ms(Some(3_600_000))).unwrap();
    for number in 0..600_u64 {
        let row = payload(number).to_vec();
        db.insert(number.to_be_bytes(), row).unwrap();
    }
    disk.fail().unwrap();
    db.flush().unwrap_err();
    disk.work_again().unwrap();
    make_durable(&db).unwrap_err();
    assert!(path.join("hh-UNSYNCED").exists());
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(db)));
}

/// The tests above see what they are to see.
#[test]
fn without_a_copy_of_the_log_what_is_answered_after_a_failed_fsync_is_lost() {
    if disk().is_none() {
        return;
    }
    for test in [
        "what_is_answered_after_a_failed_fsync_outlives_a_power_cut",
        "what_the_next_process_answers_after_a_failed_fsync_outlives_a_power_cut",
        "what_a_shared_database_answers_after_a_failed_fsync_outlives_a_power_cut",
    ] {
        let output = common::child_for(test)
            .env("HH_SWITCHED_OFF", "LogCopies")
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success(), "{test} passes without it");
        let lost = ["answered and lost", "Unopenable", "Damaged"];
        let seen = lost.into_iter().find(|it| said.contains(it));
        println!("{test}: {seen:?}");
        assert!(seen.is_some(), "{test}: something else fails:\n{said}");
    }
}
