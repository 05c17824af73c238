//! Whether the wall clock can be believed: not right after open, and not right after it was set.

use std::time::Duration;

use tokio::time::Instant;

/// What the two clocks may differ by between two looks: more than a clock that is being slewed, less than any clock that is set.
const SLACK: Duration = Duration::from_secs(1);
/// NTP slews by half of this at most.
const SLACK_PER: u32 = 1000;

/// Compares the wall clock with the monotonic one.
#[derive(Debug)]
pub struct Jumps {
    grace: Duration,
    looked: Instant,
    wall_unix_ms: u64,
    quiet_until: Instant,
}

/// The wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    Forward(Duration),
    Back(Duration),
}

impl Jumps {
    /// The wall clock is believed from `grace` on.
    pub fn new(now: Instant, wall_unix_ms: u64, grace: Duration) -> Self {
        Jumps {
            grace,
            looked: now,
            wall_unix_ms,
            quiet_until: now + grace,
        }
    }

    /// Whether the wall clock jumped since the last look. If so it is not believed for a while.
    pub fn look(&mut self, now: Instant, wall_unix_ms: u64) -> Option<Jump> {
        let passed = now.saturating_duration_since(self.looked);
        let expected = self.wall_unix_ms.saturating_add(passed.as_millis() as u64);
        (self.looked, self.wall_unix_ms) = (now, wall_unix_ms);
        let off = Duration::from_millis(wall_unix_ms.abs_diff(expected));
        if off <= SLACK + passed / SLACK_PER {
            return None;
        }
        self.quiet_until = now + self.grace;
        Some(match wall_unix_ms > expected {
            true => Jump::Forward(off),
            false => Jump::Back(off),
        })
    }

    /// How long it is not believed yet; `None` if it is.
    pub fn quiet_for(&self, now: Instant) -> Option<Duration> {
        let quiet = self.quiet_until.saturating_duration_since(now);
        (!quiet.is_zero()).then_some(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[test]
    fn a_clock_that_is_set_either_way_is_not_believed_for_the_grace() {
        let start = Instant::now();
        let mut jumps = Jumps::new(start, 1_000_000, GRACE);
        assert_eq!(jumps.quiet_for(start), Some(GRACE));
        let mut now = start + GRACE;
        assert_eq!(jumps.look(now, 1_060_000), None);
        assert_eq!(jumps.quiet_for(now), None);
        now += Duration::from_secs(10);
        let hour = Duration::from_secs(3600);
        assert_eq!(
            jumps.look(now, 1_070_000 + 3_600_000),
            Some(Jump::Forward(hour))
        );
        assert_eq!(jumps.quiet_for(now), Some(GRACE));
        now += GRACE;
        assert_eq!(jumps.look(now, 1_130_000 + 3_600_000), None);
        assert_eq!(jumps.quiet_for(now), None);
        assert_eq!(jumps.look(now, 1_130_000), Some(Jump::Back(hour)));
        assert_eq!(jumps.quiet_for(now), Some(GRACE));
    }

    #[test]
    fn a_clock_that_is_slewed_is_believed() {
        let start = Instant::now();
        let mut jumps = Jumps::new(start, 1_000_000, Duration::ZERO);
        let now = start + Duration::from_secs(60);
        assert_eq!(jumps.look(now, 1_060_000 + 30), None);
        assert_eq!(jumps.look(now, 1_060_000 + 30 - 1000), None);
        assert!(jumps.look(now, 1_060_000 + 30 - 2001).is_some());
    }
}
