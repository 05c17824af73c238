//! A process that is stopped for longer than a commit may take (SIGSTOP, a frozen container, a
//! virtual machine that is moved) goes on as if nothing had been: its commits were stopped as well.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use hinted_handoff::{Config, Health, internals::Store};
use rustix::process::{Pid, Signal, kill_process};

const NAME: &str = "a_process_that_was_stopped_for_a_while_serves_on_and_fails_no_write";
const STORE: &str = "HH_TEST_STORE";
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(3_500);
const PAUSES: u32 = 2;

/// Commits nearly all the time, until it is told to end; says how that went.
fn commit_until_told(dir: &Path) {
    let config = Config {
        commit_timeout: COMMIT_TIMEOUT,
        ..common::config(dir)
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    let (ended, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for node in 1..=4 {
            let (store, ended, failed) = (&store, &ended, &failed);
            scope.spawn(move || {
                while !ended.load(Relaxed) {
                    let hint = common::hint(1, vec![7; 1_000]);
                    let told = common::try_append(store, node, vec![hint]);
                    failed.fetch_add(u64::from(told[0].is_err()), Relaxed);
                }
            });
        }
        println!("\nready");
        std::io::stdin().lock().lines().next();
        ended.store(true, Relaxed);
    });
    let serves = matches!(store.health(), Health::Serving);
    let failed = failed.load(Relaxed) > 0;
    println!("\nserves: {serves}, failed: {failed}");
}

#[test]
fn a_process_that_was_stopped_for_a_while_serves_on_and_fails_no_write() {
    if let Some(dir) = std::env::var_os(STORE) {
        return commit_until_told(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = common::child_for(NAME)
        .env(STORE, dir.path().join("store"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |word: &str| {
        let mut lines = lines.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(word)).unwrap()
    };
    until("ready");
    let pid = Pid::from_child(&child);
    for _ in 0..PAUSES {
        kill_process(pid, Signal::STOP).unwrap();
        thread::sleep(PAUSE);
        kill_process(pid, Signal::CONT).unwrap();
        // So that its watchdog has looked.
        thread::sleep(COMMIT_TIMEOUT);
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(until("serves"), "serves: true, failed: false");
    assert!(child.wait().unwrap().success());
}
