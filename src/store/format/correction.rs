//! Stamps that are off: what a life of the store found of the clock that it was opened by.
//!
//! ```text
//! key    "clock" in the tree `hh/meta`
//! value  a correction: from u64 | to u64 (unix ms as stamped, both included;
//!        to is u64::MAX while the life may go on)
//!        ahead i64 (ms to be added)
//!        CRC32C over key and all of the above u32
//! ```
//! All big endian, the newest last. Absent as long as no clock was wrong.

use bytes::{Buf, BufMut};

use crate::store::format::checksum::DecodeError;

/// Beyond this the oldest is forgotten.
pub const CORRECTIONS_MAX: usize = 32;

/// Hints with stamps in a range were enqueued so much later than these say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    from: u64,
    to: u64,
    ahead_ms: i64,
}

impl Correction {
    /// Of the life that was opened then, by a clock that was found to be off by so much. A life
    /// before that was cut short may have been opened by the same wrong clock.
    pub fn of_life(opened_unix_ms: u64, ahead_ms: i64) -> Self {
        Correction {
            from: opened_unix_ms.saturating_sub(ahead_ms.unsigned_abs()),
            to: u64::MAX,
            ahead_ms,
        }
    }

    /// The life it is about was over at this time.
    pub fn ended_by(self, unix_ms: u64) -> Self {
        let last = unix_ms.saturating_add_signed(self.ahead_ms.saturating_neg());
        // Not if the clock is wrong again, by which that life has not begun yet.
        match self.to == u64::MAX && last > self.from {
            true => Correction { to: last, ..self },
            false => self,
        }
    }

    /// When a hint was enqueued that has this stamp, if it is about that.
    pub fn corrected(&self, stamp: u64) -> Option<u64> {
        let is_about = (self.from..=self.to).contains(&stamp);
        is_about.then(|| stamp.saturating_add_signed(self.ahead_ms))
    }

    pub(crate) fn encode_all(corrections: &[Correction]) -> Vec<u8> {
        let kept = corrections.len().saturating_sub(CORRECTIONS_MAX);
        let kept = corrections.get(kept..).unwrap_or_default();
        let mut bytes = Vec::with_capacity(kept.len() * 24);
        for it in kept {
            bytes.put_u64(it.from);
            bytes.put_u64(it.to);
            bytes.put_i64(it.ahead_ms);
        }
        bytes
    }

    pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Correction>, DecodeError> {
        let mut corrections = Vec::new();
        while !bytes.is_empty() && corrections.len() < CORRECTIONS_MAX {
            corrections.push(Correction {
                from: bytes.try_get_u64()?,
                to: bytes.try_get_u64()?,
                ahead_ms: bytes.try_get_i64()?,
            });
        }
        match bytes.is_empty() {
            true => Ok(corrections),
            false => Err(DecodeError::Invalid("there are too many corrections")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_read_back_and_the_oldest_is_forgotten() {
        let of = |opened| Correction::of_life(opened, -5);
        let some: Vec<_> = (1000..1003).map(of).collect();
        assert_eq!(
            Correction::decode_all(&Correction::encode_all(&some)),
            Ok(some)
        );
        let many: Vec<_> = (1000..1100).map(of).collect();
        let kept = Correction::decode_all(&Correction::encode_all(&many)).unwrap();
        assert_eq!(kept, many[68..]);
        let mut bytes = Correction::encode_all(&many);
        bytes.push(0);
        assert!(Correction::decode_all(&bytes).is_err());
        bytes.truncate(30);
        assert!(Correction::decode_all(&bytes).is_err());
    }

    #[test]
    fn a_correction_is_about_the_stamps_of_its_life_only() {
        // Opened at 1000, which was 11000 in truth; over by 13000, or 3000 by its own clock.
        let life = Correction::of_life(1000, 10_000);
        assert_eq!(life.corrected(500_000), Some(510_000));
        let life = life.ended_by(13_000);
        assert_eq!(life.corrected(3000), Some(13_000));
        assert_eq!(life.corrected(3001), None);
        // One that was opened by the same wrong clock before.
        assert_eq!(life.corrected(5), Some(10_005));
        assert_eq!(life.ended_by(1_000_000), life);
        let unknown = Correction::of_life(1000, 10_000);
        assert_eq!(unknown.ended_by(20), unknown);
    }
}
