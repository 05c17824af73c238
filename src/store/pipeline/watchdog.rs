//! Watches the commit thread. docs/sled.md rule 8: after some errors sled's flush never returns,
//! and rule 5: it holds the process-wide lock meanwhile, so a store whose commit hangs cannot be
//! opened again in the process, unless that comes back after all. It can be told, to everybody who
//! waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    error::StorageError,
    stats::Health,
    store::{
        failpoints::{Safeguard, is_off},
        pipeline::{busy::Busy, shared::Shared},
    },
};

/// `stopped` guards only the stop flag; the condition variable wakes the watchdog to see it.
#[derive(Default)]
pub struct StopSignal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    /// Waits so long, or until it is stopped; says whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, timeout);
        }
        *stopped
    }

    pub fn is_stopped(&self) -> bool {
        *self.stopped.lock()
    }

    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }
}

/// One thread, as the watchdog sees it.
#[derive(Default)]
struct Watched {
    turn: Option<u64>,
    /// For how long it was seen busy with that turn.
    busy_for: Duration,
}

impl Watched {
    /// Looks again; returns how long it has been busy with its turn. `passed` is the time since the
    /// last look.
    fn look(&mut self, busy: &Busy, passed: Duration) -> Duration {
        let turn = busy.turn();
        self.busy_for = match turn.is_some() && turn == self.turn {
            true => self.busy_for + passed,
            false => Duration::ZERO,
        };
        self.turn = turn;
        self.busy_for
    }
}

/// Looks every quarter of `timeout`, at most every second, until it is stopped.
///
/// Time counts only as far as this thread runs: if the process is stopped for a while (SIGSTOP, a
/// frozen container, a machine that is paused), so are those that it watches. A thread that comes
/// back after it was given up has failed, no more: then the store can open itself again.
pub fn run(shared: &Arc<Shared>, stop: &StopSignal, timeout: Duration) {
    let every = (timeout / 4).min(Duration::from_secs(1));
    let (mut commit, mut compaction) = (Watched::default(), Watched::default());
    let (mut commit_hangs, mut compaction_hangs) = (false, false);
    let mut looked = Instant::now();
    while !stop.wait(every) {
        if let Some(on_look) = shared.on_look.get() {
            on_look();
        }
        let passed = looked.elapsed().min(every * 2);
        looked = Instant::now();
        let hung_before = (commit_hangs, compaction_hangs);
        commit_hangs = commit.look(&shared.busy, passed) > timeout && !is_off(Safeguard::Watchdog);
        compaction_hangs = compaction.look(&shared.compacting, passed) > timeout;
        let compaction_text =
            "compacting the store hangs; restart the process if it does not come back";
        if compaction_hangs && !hung_before.1 {
            tracing::error!(error = compaction_text, "compacting the store hangs");
        }
        if commit_hangs && !hung_before.0 {
            let text = format!(
                "it did not come back within {}; restart the process if it does not",
                humantime::format_duration(timeout)
            );
            shared.abandon_for_now(StorageError::new("commit", text));
        }
        // It is in nobody's way while the store serves; but what failed cannot be opened again
        // beside it.
        if compaction_hangs && matches!(shared.health(), Health::Failed(_)) {
            let cause = StorageError::new("open the store again", compaction_text);
            shared.fail_for_now(cause);
        }
        if !commit_hangs && !compaction_hangs {
            shared.has_returned();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        config::Config,
        store::{CommitFault, Store},
    };

    fn until(store: &Store, wished: fn(&Health) -> bool) {
        let started = Instant::now();
        while !wished(&store.health()) {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{:?}",
                store.health()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_turn_counts_from_when_it_was_seen_first_and_the_next_one_counts_anew() {
        let (busy, mut watched) = (Busy::default(), Watched::default());
        let second = Duration::from_secs(1);
        assert_eq!(watched.look(&busy, second), Duration::ZERO);
        busy.start();
        let seen: Vec<_> = (0..3).map(|_| watched.look(&busy, second)).collect();
        assert_eq!(seen, [Duration::ZERO, second, 2 * second]);
        busy.start();
        assert_eq!(watched.look(&busy, second), Duration::ZERO);
        busy.stop();
        assert_eq!(watched.look(&busy, second), Duration::ZERO);
    }

    #[test]
    fn a_compaction_that_hangs_is_in_the_way_of_a_failed_store_only_until_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            commit_timeout: Duration::from_secs(1),
            min_free_disk: 0,
            ..Config::new(dir.path().join("store"))
        };
        let store = Store::open(&config, Box::new(|_| {})).unwrap();
        store.shared.compacting.start();
        std::thread::sleep(2 * config.commit_timeout);
        assert!(matches!(store.health(), Health::Serving));
        // It fails again however often it is opened.
        store.inject(CommitFault::Fail);
        let cause = StorageError::new("commit", "a test says so");
        store.shared.fail(Health::Failed(cause));
        until(&store, |it| matches!(it, Health::RestartRequired(_)));
        // A reopen that began before would succeed; beside a real compaction none begins.
        while store.shared.busy.turn().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        store.inject(CommitFault::None);
        std::thread::sleep(config.commit_timeout);
        assert!(matches!(store.health(), Health::RestartRequired(_)));
        store.shared.compacting.stop();
        until(&store, |it| matches!(it, Health::Serving));
        store.close().unwrap();
    }
}
