//! The limit of what a store takes on the disk, as one of what may be pending.
//!
//! sled's log does not become shorter when hints leave: others are written over them, and only sled
//! knows how much of it is free. So the log tells. Where it grows although it is nearly as long as
//! it may be, most of what it held so far is the limit from then on, and each time that it grows
//! again, most of that, until it is short again. Where the log is as long as it may be nothing is
//! taken any more.

use crate::{config::Config, types::Amount};

use super::engine::SEGMENT_BYTES;

const MIB: u64 = 1024 * 1024;
const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// Kept free: for what is in the pipeline, for a copy that gives space back, and for the log to
/// tell that it is full.
const HEADROOM_BYTES: u64 = 160 * MIB;
/// The same of a small store.
const HEADROOM_PART: u64 = 4;

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
        self.room_bytes
    }

    /// Whether something else of the store's may take so much beside the log.
    pub fn has_room_beside(&self, log_bytes: u64, bytes: u64) -> bool {
        self.max_bytes
            .is_none_or(|max| log_bytes.saturating_add(bytes) <= max)
    }

    /// The log is so long, with so much pending. Returns whether there is more room than before.
    pub fn note(&mut self, log_bytes: u64, pending: Amount) -> bool {
        let Some(max) = self.max_bytes else {
            return false;
        };
        let before = self.room_bytes;
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
        } else if log_bytes > max.saturating_sub(SEGMENT) {
            self.room_bytes = Some(0);
        } else if has_grown {
            // It grows a little, too, when much has left and is about to be written over.
            let held = before.unwrap_or(self.held_bytes);
            let part = match log_bytes > max.saturating_sub(3 * SEGMENT) {
                true => held / 4,
                false => held / 16,
            };
            self.room_bytes = Some(held - part);
        }
        before.is_some_and(|before| self.room_bytes.is_none_or(|room| room > before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1024 * MIB;
    /// The log may be as long as this without a look at what is pending.
    const FREE: u64 = MAX - HEADROOM_BYTES;

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
        assert!(!limit.note(FREE, pending(800)));
        assert_eq!(limit.room_bytes(), None);
        limit.note(FREE + 8 * MIB, pending(800));
        assert_eq!(limit.room_bytes(), Some(750 * MIB));
        // It does not grow: what is written is written over what left.
        limit.note(FREE + 8 * MIB, pending(700));
        assert_eq!(limit.room_bytes(), Some(750 * MIB));
        limit.note(FREE + 16 * MIB, pending(10));
        assert_eq!(limit.room_bytes(), Some(750 * MIB / 16 * 15));
        limit.note(MAX - 16 * MIB, pending(10));
        assert!(limit.room_bytes() < Some(530 * MIB));
        limit.note(MAX, pending(200));
        assert_eq!(limit.room_bytes(), Some(0));
        assert!(limit.note(40 * MIB, pending(0)), "written anew");
        assert_eq!(limit.room_bytes(), None);
    }

    #[test]
    fn a_long_log_that_is_found_is_not_taken_for_a_full_one() {
        let mut limit = limit();
        limit.note(FREE + 8 * MIB, pending(10));
        assert_eq!(limit.room_bytes(), None);
        limit.note(FREE + 16 * MIB, pending(16));
        assert_eq!(limit.room_bytes(), Some(15 * MIB));
    }

    #[test]
    fn beside_the_log_there_is_what_is_left() {
        assert!(limit().has_room_beside(FREE, HEADROOM_BYTES));
        assert!(!limit().has_room_beside(FREE, HEADROOM_BYTES + 1));
        assert!(DiskLimit::default().has_room_beside(MAX, MAX));
        assert!(!DiskLimit::default().note(u64::MAX, pending(1)));
    }
}
