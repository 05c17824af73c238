//! The wall clock, by which hints are stamped and grow old; in tests one that follows tokio's, and can be made to jump.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "testkit")]
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};

/// What time it is.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// As the operating system says.
    #[default]
    System,
    /// As a test says.
    #[cfg(feature = "testkit")]
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
            #[cfg(feature = "testkit")]
            Clock::Scripted(clock) => clock.unix_ms(),
        }
    }

    /// How long ago something was; no time at all for what is yet to come.
    pub fn since(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(self.unix_ms().saturating_sub(unix_ms))
    }
}

/// A wall clock for tests: it runs as tokio's clock does, which tests can stop and advance, and jumps when it is told to.
#[cfg(feature = "testkit")]
#[derive(Debug, Clone)]
pub struct WallClock {
    started: tokio::time::Instant,
    /// What it showed when it was made, and by how much it jumped since.
    base_unix_ms: Arc<AtomicU64>,
}

#[cfg(feature = "testkit")]
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
        self.base_unix_ms.load(Relaxed) + ran
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
