//! The limit of what a store takes on the disk, as one of what may be pending.
//!
//! sled's log does not become shorter when hints leave: others are written over them, and only sled
//! knows how much of it is free. So the log tells. Where it grows although it is nearly as long as
//! it may be, most of what it held so far is the limit from then on, and each time that it grows
//! again, most of that, until it is short again. Where the log is as long as it may be nothing is
//! taken any more.

use crate::{config::Config, store::bounds::SEGMENT_BYTES, types::Amount};

const MIB: u64 = 1024 * 1024;
const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// Kept free: for what is in the pipeline, for a copy that gives space back, and for the log to
/// tell that it is full.
const HEADROOM_BYTES: u64 = 160 * MIB;
/// The same of a small store.
const HEADROOM_PART: u64 = 3;
/// With less than this left nothing is taken any more: so much a copy of a store that was drained
/// needs, and what is written meanwhile.
const FULL_BYTES: u64 = 3 * SEGMENT;
/// What the log may grow by for a byte of payload.
const LOG_PER_PAYLOAD: u64 = 2;

/// How long the log may become, and what may be pending for its sake.
#[derive(Debug, Clone, Default)]
pub struct DiskLimit {
    max_bytes: Option<u64>,
    /// Segments of the log, the most since it was below the bound; none before the first look.
    segments: Option<u64>,
    /// The most payload that was pending since the log was short: it did fit.
    held_bytes: u64,
    /// Payload bytes that may be pending; no limit while the log is short, or has not shown that it
    /// is full.
    room_bytes: Option<u64>,
    /// The log is as long as it may be, or will be with what is on its way to it.
    is_full: bool,
}

impl DiskLimit {
    pub fn of(config: &Config) -> Self {
        DiskLimit {
            max_bytes: config.max_disk_bytes,
            ..DiskLimit::default()
        }
    }

    /// Payload bytes that may be pending.
    pub fn room_bytes(&self) -> Option<u64> {
        match self.is_full {
            true => Some(0),
            false => self.room_bytes,
        }
    }

    /// Whether a copy of the store may take so much beside the log until that goes. Where the log
    /// is longer than it may be, as after the bound was set, a small one may in any case: nothing
    /// else makes the log shorter.
    pub fn has_room_beside(&self, log_bytes: u64, bytes: u64) -> bool {
        let fits = |max| log_bytes.saturating_add(bytes) <= max;
        self.max_bytes.is_none_or(fits) || bytes <= log_bytes / 4
    }

    /// The log is so long, with so much pending, and so much on its way. Returns whether there is
    /// more room than before.
    pub fn note(&mut self, log_bytes: u64, pending: Amount, coming: Amount) -> bool {
        let Some(max) = self.max_bytes else {
            return false;
        };
        let before = self.room_bytes();
        let grows_by = coming.bytes.saturating_mul(LOG_PER_PAYLOAD);
        self.is_full = log_bytes.saturating_add(grows_by) > max.saturating_sub(FULL_BYTES);
        let headroom = HEADROOM_BYTES.min(max / HEADROOM_PART);
        let bound = max - headroom;
        // A segment that is begun is filled bit by bit.
        let segments = log_bytes.div_ceil(SEGMENT);
        let has_grown = self.segments.is_some_and(|known| segments > known);
        self.segments = match log_bytes <= bound {
            true => Some(segments),
            false => self.segments.max(Some(segments)),
        };
        self.held_bytes = match log_bytes <= bound / 2 {
            true => pending.bytes,
            false => self.held_bytes.max(pending.bytes),
        };
        if log_bytes <= bound {
            self.room_bytes = None;
        } else if has_grown {
            // It grows a little, too, when much has left and is about to be written over.
            let held = self.room_bytes.unwrap_or(self.held_bytes);
            let part = match log_bytes > max.saturating_sub(FULL_BYTES + SEGMENT) {
                true => held / 4,
                false => held / 16,
            };
            self.room_bytes = Some(held - part);
        }
        before.is_some_and(|before| self.room_bytes().is_none_or(|room| room > before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1024 * MIB;
    /// The log may be as long as this without a look at what is pending.
    const FREE: u64 = MAX - HEADROOM_BYTES;
    const NOTHING: Amount = Amount { hints: 0, bytes: 0 };

    fn limit() -> DiskLimit {
        DiskLimit {
            max_bytes: Some(MAX),
            ..DiskLimit::default()
        }
    }

    fn pending(mib: u64) -> Amount {
        Amount {
            hints: 1,
            bytes: mib * MIB,
        }
    }

    #[test]
    fn what_is_pending_is_the_limit_where_the_log_still_grows_and_less_of_it_the_longer_it_is() {
        let mut limit = limit();
        assert!(!limit.note(FREE, pending(800), NOTHING));
        assert_eq!(limit.room_bytes(), None);
        limit.note(FREE + 8 * MIB, pending(800), NOTHING);
        assert_eq!(limit.room_bytes(), Some(750 * MIB));
        // It does not grow: what is written is written over what left.
        limit.note(FREE + 8 * MIB, pending(700), NOTHING);
        assert_eq!(limit.room_bytes(), Some(750 * MIB));
        limit.note(FREE + 16 * MIB, pending(10), NOTHING);
        assert_eq!(limit.room_bytes(), Some(750 * MIB / 16 * 15));
        limit.note(MAX - FULL_BYTES, pending(10), NOTHING);
        assert!(limit.room_bytes() < Some(530 * MIB));
        limit.note(MAX, pending(200), NOTHING);
        assert_eq!(limit.room_bytes(), Some(0));
        assert!(limit.note(40 * MIB, pending(0), NOTHING), "compacted");
        assert_eq!(limit.room_bytes(), None);
    }

    #[test]
    fn what_is_on_its_way_counts_before_it_is_in_the_log() {
        let mut limit = limit();
        let coming = |mib| pending(mib);
        limit.note(FREE / 2, pending(10), coming(300));
        assert_eq!(limit.room_bytes(), Some(0));
        assert!(limit.note(FREE / 2, pending(10), coming(100)));
        assert_eq!(limit.room_bytes(), None);
    }

    #[test]
    fn a_long_log_that_is_found_is_not_taken_for_a_full_one() {
        let mut limit = limit();
        limit.note(FREE + 8 * MIB, pending(10), NOTHING);
        assert_eq!(limit.room_bytes(), None);
        limit.note(FREE + 16 * MIB, pending(16), NOTHING);
        assert_eq!(limit.room_bytes(), Some(15 * MIB));
    }

    #[test]
    fn beside_the_log_there_is_what_is_left() {
        assert!(limit().has_room_beside(FREE, HEADROOM_BYTES));
        let much = FREE / 4 + 1;
        assert!(!limit().has_room_beside(FREE, much));
        assert!(limit().has_room_beside(4 * MAX, MAX), "it gives space back");
        assert!(DiskLimit::default().has_room_beside(MAX, MAX));
        assert!(!DiskLimit::default().note(u64::MAX, pending(1), NOTHING));
    }
}
