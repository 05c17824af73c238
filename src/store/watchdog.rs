//! Watches the commit thread. SLED.md rule 8: after some errors sled's flush never returns, and rule 5: it holds the
//! process-wide lock meanwhile, so a hung commit cannot be healed in the process. It can be told, to everybody who waits.

use std::{sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::{
    faults::{Safeguard, is_off},
    shared::{Busy, Shared},
};
use crate::{error::StorageError, stats::Health};

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

/// Looks every quarter of `timeout`, at most every second, until it is stopped.
pub fn run(shared: &Arc<Shared>, stop: &StopSignal, timeout: Duration) {
    let every = (timeout / 4).min(Duration::from_secs(1));
    let mut rewrite_hangs = false;
    let mut stopped = stop.stopped.lock();
    while !*stopped {
        stop.changed.wait_for(&mut stopped, every);
        let hangs = |busy: &Busy| u128::from(busy.for_ms()) > timeout.as_millis();
        // A rewrite that hangs is in nobody's way while the store serves; but what failed cannot be opened again beside it.
        if hangs(&shared.rewriting) {
            let text = "writing the store anew hangs; restart the process";
            if !std::mem::replace(&mut rewrite_hangs, true) {
                tracing::error!("{text}");
            }
            if matches!(shared.health(), Health::Failed(_)) {
                let cause = StorageError::new("open the store again", text);
                shared.fail(Health::RestartRequired(cause));
            }
        }
        if hangs(&shared.busy) && !is_off(Safeguard::Watchdog) {
            let text = format!(
                "it did not come back within {}; restart the process",
                humantime::format_duration(timeout)
            );
            shared.abandon(StorageError::new("commit", text));
            return;
        }
    }
}
