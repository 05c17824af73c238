//! When a failed store is opened again, and what is known of its failures.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const FIRST_ATTEMPT_AFTER: Duration = Duration::from_millis(50);
pub const ATTEMPTS_APART_MAX: Duration = Duration::from_secs(10);

/// When to try next.
#[derive(Debug)]
pub struct Reopening {
    /// `None` while the store serves.
    pub next_attempt: Option<Instant>,
    pub delays: ExponentialBackoff,
    pub last_reopened: Option<Instant>,
    /// How often the files were found damaged and rebuilt in this life.
    pub rebuilt: u32,
    /// An fsync of the log failed: a marker must stand beside it before it is opened
    /// (`unsynced.rs`).
    pub log_is_unsynced: bool,
}

impl Default for Reopening {
    fn default() -> Self {
        let delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_ATTEMPT_AFTER)
            .with_max_delay(ATTEMPTS_APART_MAX)
            .without_max_times();
        Reopening {
            next_attempt: None,
            delays: delays.build(),
            last_reopened: None,
            rebuilt: 0,
            log_is_unsynced: false,
        }
    }
}
