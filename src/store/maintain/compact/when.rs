//! Whether compacting a store is worth it.

use std::time::{Duration, Instant};

use crate::store::bounds::SEGMENT_BYTES;

const MIB: u64 = 1024 * 1024;

/// A shorter log is left alone. One in use grows to 40 MiB with nothing live in it, however fast
/// hints come and go: sled cleans up behind itself from there on. So a store that keeps up with its
/// writers is never compacted.
const LOG_BYTES_MIN: u64 = 48 * MIB;
/// The log must be this many times what is live in it: else it would not become much shorter.
const LOG_PER_LIVE: u64 = 4;
/// More than this is not copied: it is read through again while writers wait.
pub const LIVE_BYTES_MAX: u64 = 32 * MIB;
/// The log must be this many times what the store writes in a second: one that is as busy would
/// fill a new one as soon.
const LOG_PER_SECOND: u64 = 64;
/// What a new log takes before anything is in it, and what it may have grown by when the old one
/// goes.
const ROOM_BESIDE: u64 = 3 * SEGMENT_BYTES as u64;
/// A generation is used at least this many times as long as it took to write it, and so long
/// besides.
const USED_PER_WRITTEN: u32 = 20;
const USED_AT_LEAST: Duration = Duration::from_secs(10);
/// After one that was given up; doubles with each in a row, up to the longest.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A store at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub log_bytes: u64,
    /// At most so much is live.
    pub live_bytes: u64,
    /// Handed to the engine within the last second.
    pub bytes_in_a_second: u64,
}

impl Look {
    pub fn is_worth_it(&self) -> bool {
        self.log_bytes >= LOG_BYTES_MIN
            && self.live_bytes <= LIVE_BYTES_MAX
            && self.log_bytes >= self.live_bytes.saturating_mul(LOG_PER_LIVE)
            && self.log_bytes >= self.bytes_in_a_second.saturating_mul(LOG_PER_SECOND)
    }

    /// What the copy needs on the disk, at most.
    pub fn room_bytes(&self) -> u64 {
        self.live_bytes * LOG_PER_LIVE + ROOM_BESIDE
    }
}

/// When to look again after a compaction, so that they cost little however things go.
#[derive(Debug, Default)]
pub struct Pace {
    not_before: Option<Instant>,
    /// Given up in a row.
    given_up: u32,
}

impl Pace {
    pub fn allows(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    pub fn after_success(&mut self, took: Duration) {
        self.given_up = 0;
        self.not_before = Some(Instant::now() + USED_AT_LEAST + took * USED_PER_WRITTEN);
    }

    pub fn after_failure(&mut self) {
        let doubled = AGAIN_AFTER.saturating_mul(1 << self.given_up.min(10));
        self.given_up += 1;
        self.not_before = Some(Instant::now() + doubled.min(AGAIN_AFTER_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAINED: Look = Look {
        log_bytes: 4096 * MIB,
        live_bytes: MIB,
        bytes_in_a_second: MIB,
    };

    #[test]
    fn a_log_that_is_mostly_empty_is_worth_it_also_while_hints_come_and_go() {
        assert!(DRAINED.is_worth_it());
        let busy = Look {
            bytes_in_a_second: 60 * MIB,
            ..DRAINED
        };
        assert!(busy.is_worth_it());
        let idle = Look {
            log_bytes: 65 * MIB,
            live_bytes: 0,
            bytes_in_a_second: 0,
        };
        assert!(idle.is_worth_it(), "no more than 64 MiB are to be left");
    }

    #[test]
    fn a_log_that_is_short_or_full_or_would_soon_be_as_long_again_is_not() {
        let not = [
            Look {
                log_bytes: 47 * MIB,
                live_bytes: 0,
                bytes_in_a_second: 0,
            },
            Look {
                live_bytes: 33 * MIB,
                ..DRAINED
            },
            Look {
                log_bytes: 100 * MIB,
                live_bytes: 26 * MIB,
                ..DRAINED
            },
            Look {
                log_bytes: 200 * MIB,
                bytes_in_a_second: 20 * MIB,
                ..DRAINED
            },
        ];
        for look in not {
            assert!(!look.is_worth_it(), "{look:?}");
        }
    }
}
