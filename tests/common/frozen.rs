//! Time that stands still until it is moved: tokio's clock neither runs nor skips ahead while the
//! commit thread works.

#![allow(dead_code)]

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

/// Holds tokio's clock, which must be paused, where it is; `tokio::time::advance` moves it.
pub struct Frozen {
    /// A paused clock skips to the next timer when nothing runs; while a blocking task does, it
    /// does not.
    _release: mpsc::Sender<()>,
}

pub fn freeze() -> Frozen {
    let (release, released) = mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || {
        let _ = released.recv();
    });
    Frozen { _release: release }
}

/// Lets tasks and threads work until something is so. In real time: tokio's does not move.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "not so: {what}"
        );
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets tasks and threads work for a moment, for what must not happen.
pub async fn a_moment() {
    for _ in 0..30 {
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Moves the clock, and lets those work who waited for it.
pub async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    a_moment().await;
}

/// The same in steps no longer than the longest between two looks of the service's tasks.
pub async fn pass_in_steps(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(60));
        pass(step).await;
        left -= step;
    }
}

/// Something is so within half a minute. A task may have been at work when the clock was last
/// moved, and is due again after that.
pub async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30 {
        if is_so() {
            return;
        }
        pass(Duration::from_secs(1)).await;
    }
    until(what, is_so).await;
}
