//! Switches by which tests make the storage fail. They are off, and only tests and the `testkit` feature can reach them.

use std::{
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Duration,
};

/// What the next commits do instead of their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[cfg_attr(not(feature = "testkit"), allow(dead_code))]
pub enum CommitFault {
    /// Nothing out of the ordinary.
    None = 0,
    /// Return an I/O error.
    Fail = 1,
    /// Panic.
    Panic = 2,
    /// Never return, as sled's flush may do after an error (SLED.md rule 8).
    Hang = 3,
    /// Flush, and leave out our own fsync: the control that shows what it is for (SLED.md rule 1).
    SkipFsync = 4,
}

#[derive(Debug, Default)]
pub struct Faults {
    commit: AtomicU8,
}

impl Faults {
    #[cfg(feature = "testkit")]
    pub fn on_commit(&self, fault: CommitFault) {
        self.commit.store(fault as u8, Relaxed);
    }

    pub fn skips_fsync(&self) -> bool {
        self.commit.load(Relaxed) == CommitFault::SkipFsync as u8
    }

    /// Called where a commit would flush.
    pub fn commit(&self) -> std::io::Result<()> {
        const FAIL: u8 = CommitFault::Fail as u8;
        const PANIC: u8 = CommitFault::Panic as u8;
        const HANG: u8 = CommitFault::Hang as u8;
        match self.commit.load(Relaxed) {
            FAIL => Err(std::io::Error::other("injected by a test")),
            #[allow(clippy::panic)]
            PANIC => panic!("injected by a test"),
            HANG => loop {
                std::thread::sleep(Duration::from_millis(20));
                if self.commit.load(Relaxed) != HANG {
                    return Ok(());
                }
            },
            _ => Ok(()),
        }
    }
}
