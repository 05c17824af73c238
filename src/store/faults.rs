//! Switches by which tests make the storage fail. They are off, and only tests and the `testkit` feature can reach them.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

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

    /// Whether our own fsync is to be left out.
    pub fn skips_fsync(&self) -> bool {
        cfg!(feature = "testkit") && self.commit.load(Relaxed) == CommitFault::SkipFsync as u8
    }

    /// Called where a commit would flush. Nothing without the feature `testkit`.
    #[cfg(not(feature = "testkit"))]
    pub fn commit(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Called where a commit would flush. The panic is what a test asks for.
    #[cfg(feature = "testkit")]
    pub fn commit(&self) -> std::io::Result<()> {
        const FAIL: u8 = CommitFault::Fail as u8;
        const PANIC: u8 = CommitFault::Panic as u8;
        const HANG: u8 = CommitFault::Hang as u8;
        match self.commit.load(Relaxed) {
            FAIL => Err(std::io::Error::other("injected by a test")),
            #[allow(clippy::panic)]
            PANIC => panic!("injected by a test"),
            HANG => loop {
                std::thread::sleep(std::time::Duration::from_millis(20));
                if self.commit.load(Relaxed) != HANG {
                    return Ok(());
                }
            },
            _ => Ok(()),
        }
    }
}

/// Every step at which a test can stop a store, in the order in which a store comes to them.
#[cfg(feature = "testkit")]
pub const POINTS: [&str; 29] = [
    "open: locked",
    "open: attempt counted",
    "open: engine open",
    "migrate: data written",
    "migrate: data durable",
    "migrate: version written",
    "open: recovered",
    "rebuild: written",
    "rebuild: complete",
    "rebuild: named",
    "open: prepared",
    "open: named",
    "open: clean summary removed",
    "append: planned",
    "append: queue counter written",
    "append: node record written",
    "append: chunk written",
    "append: block written",
    "ack: cursor written",
    "ack: queue retired",
    "drop: tombstone written",
    "drop: tombstone durable",
    "trim: removed",
    "commit: before flush",
    "commit: before fsync",
    "commit: durable",
    "commit: published",
    "close: settled",
    "close: engine closed",
];

/// A step of the store. Does nothing, unless a test set `HH_FAILPOINT` to `<point>/<abort, error or panic>/<n>`: then the
/// `n`th time this process comes to the point it stops there in that way.
#[cfg(feature = "testkit")]
pub fn point(name: &'static str) -> Result<(), crate::error::StorageError> {
    use std::sync::{OnceLock, atomic::AtomicU32};
    struct Armed {
        point: String,
        action: String,
        left: AtomicU32,
    }
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("HH_FAILPOINT").ok()?;
        let mut parts = text.split('/').map(str::to_owned);
        let (point, action) = (parts.next()?, parts.next()?);
        let left = AtomicU32::new(parts.next()?.parse().ok()?);
        Some(Armed {
            point,
            action,
            left,
        })
    });
    let Some(armed) = armed.as_ref().filter(|armed| armed.point == name) else {
        return Ok(());
    };
    if armed.left.fetch_sub(1, Relaxed) != 1 {
        return Ok(());
    }
    eprintln!("@failpoint {name}");
    match armed.action.as_str() {
        "abort" => std::process::abort(),
        #[allow(clippy::panic)]
        "panic" => panic!("injected by a test"),
        _ => Err(crate::error::StorageError::new(
            name,
            std::io::Error::other("injected by a test"),
        )),
    }
}

/// A step of the store.
#[cfg(not(feature = "testkit"))]
#[inline(always)]
pub fn point(_name: &'static str) -> Result<(), crate::error::StorageError> {
    Ok(())
}
