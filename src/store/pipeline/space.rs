//! The free-space reserve.

use std::path::PathBuf;

use crate::error::EnqueueError;

pub struct Space {
    pub dir: PathBuf,
    /// 0 turns it off.
    pub reserve_bytes: u64,
}

/// Less is free than the reserve.
pub struct Shortage {
    available_bytes: u64,
    reserve_bytes: u64,
}

impl Shortage {
    /// Whether half of the reserve is there still.
    pub fn is_half(&self) -> bool {
        self.available_bytes >= self.reserve_bytes / 2
    }

    pub fn refusal(&self) -> EnqueueError {
        EnqueueError::DiskReserve {
            available_bytes: self.available_bytes,
            reserve_bytes: self.reserve_bytes,
        }
    }
}

impl Space {
    /// docs/sled.md rule 8: after ENOSPC sled cannot even delete, so hints are refused while there
    /// is still room to drain.
    pub fn shortage(&self) -> Option<Shortage> {
        if self.reserve_bytes == 0 {
            return None;
        }
        // A file system that does not answer is no reason to refuse; if it is broken the commit
        // will tell.
        let available_bytes = self.available_bytes()?;
        (available_bytes < self.reserve_bytes).then_some(Shortage {
            available_bytes,
            reserve_bytes: self.reserve_bytes,
        })
    }

    /// Whether there is room for something that will give space back: it may use half of the
    /// reserve.
    pub fn has_for(&self, bytes: u64) -> bool {
        let available = self.available_bytes();
        available.is_none_or(|available| available >= self.reserve_bytes / 2 + bytes)
    }

    /// What is free for the store's user; `None` if the file system does not answer.
    pub fn available_bytes(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.dir).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }
}
