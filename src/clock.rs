//! The wall clock, and beside it one that nobody sets; in tests both follow tokio's, and the wall
//! clock can be made to jump.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "internals")]
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};

/// What time it is.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// As the operating system says.
    #[default]
    System,
    /// As a test says.
    #[cfg(feature = "internals")]
    Scripted(WallClock),
}

impl Clock {
    /// Milliseconds since 1970; none for a time before that.
    pub fn unix_ms(&self) -> u64 {
        match self {
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                since.map_or(0, |since| since.as_millis() as u64)
            }
            #[cfg(feature = "internals")]
            Clock::Scripted(clock) => clock.unix_ms(),
        }
    }

    /// How long it is since some moment that stays the same as long as the process runs. Nobody
    /// sets this clock, and on Linux it goes on while the machine is suspended.
    pub fn running(&self) -> Duration {
        match self {
            Clock::System => running(),
            #[cfg(feature = "internals")]
            Clock::Scripted(clock) => clock.started.elapsed(),
        }
    }
}

/// Not `Instant`, which on Linux is CLOCK_MONOTONIC and stands still in a suspend: a hint is as old
/// in the morning as the night was long. Both are slewed as the wall clock is, so that the three
/// differ only by steps.
#[cfg(target_os = "linux")]
fn running() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::Boottime)
        .try_into()
        .unwrap_or_default()
}

/// Where there is no such clock a suspend looks as if the wall clock had been set.
#[cfg(not(target_os = "linux"))]
fn running() -> Duration {
    use std::{sync::LazyLock, time::Instant};
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    STARTED.elapsed()
}

/// A wall clock for tests: it runs as tokio's clock does, which tests can stop and advance, and
/// jumps when it is told to.
#[cfg(feature = "internals")]
#[derive(Debug, Clone)]
pub struct WallClock {
    started: tokio::time::Instant,
    /// What it showed when it was made, and by how much it jumped since.
    base_unix_ms: Arc<AtomicU64>,
}

#[cfg(feature = "internals")]
impl WallClock {
    /// A clock that shows this now. To be made and asked on the runtime whose clock it follows.
    pub fn new(unix_ms: u64) -> Self {
        WallClock {
            started: tokio::time::Instant::now(),
            base_unix_ms: Arc::new(AtomicU64::new(unix_ms)),
        }
    }

    /// What it shows.
    pub fn unix_ms(&self) -> u64 {
        let ran = self.started.elapsed().as_millis() as u64;
        // It may have been set back to before it was made.
        self.base_unix_ms.load(Relaxed).wrapping_add(ran)
    }

    /// Somebody sets it forward.
    pub fn jump_forward(&self, by: Duration) {
        self.base_unix_ms.fetch_add(by.as_millis() as u64, Relaxed);
    }

    /// Somebody sets it back.
    pub fn jump_back(&self, by: Duration) {
        self.base_unix_ms.fetch_sub(by.as_millis() as u64, Relaxed);
    }
}
