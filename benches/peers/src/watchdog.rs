//! A peer that hangs must not hang the benchmark.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Longer than any round, with its backlog.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `round`; if it takes a minute it is told whose it is, and the process ends.
pub fn guard<T>(name: &'static str, round: impl FnOnce() -> T) -> T {
    let (over, waiting) = channel::<()>();
    thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::exit(1);
        }
    });
    let outcome = round();
    drop(over);
    outcome
}
