//! Switches by which tests make the storage fail. They are off, and only what has the
//! feature `internals` can reach them.

#[cfg(feature = "internals")]
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

/// What the next commits do instead of their work.
#[cfg(feature = "internals")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CommitFault {
    /// Nothing out of the ordinary.
    None = 0,
    /// Return an I/O error.
    Fail = 1,
    /// Panic.
    Panic = 2,
    /// Never return, as sled's flush may do after an error (docs/sled.md rule 8).
    Hang = 3,
    /// Flush and fsync, and return the I/O error of an fsync.
    FailFsync = 4,
}

#[derive(Debug, Default)]
pub struct Faults {
    #[cfg(feature = "internals")]
    commit: AtomicU8,
    #[cfg(feature = "internals")]
    compacts: AtomicBool,
}

impl Faults {
    #[cfg(feature = "internals")]
    pub fn on_commit(&self, fault: CommitFault) {
        self.commit.store(fault as u8, Relaxed);
    }

    /// Has the store compacted all the time, whatever is in it, or no longer.
    #[cfg(feature = "internals")]
    pub fn on_compaction(&self, eager: bool) {
        self.compacts.store(eager, Relaxed);
    }

    /// Whether the store is to be compacted all the time: a test says so, for this store or, by
    /// `HH_COMPACTION=eager`, for all.
    #[cfg(feature = "internals")]
    pub fn compacts_eagerly(&self) -> bool {
        static ALL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let all = ALL.get_or_init(|| std::env::var("HH_COMPACTION").is_ok_and(|it| it == "eager"));
        *all || self.compacts.load(Relaxed)
    }

    /// Only tests ask for it.
    #[cfg(not(feature = "internals"))]
    pub fn compacts_eagerly(&self) -> bool {
        false
    }

    /// From how many bytes of hints in WAL records on these are flushed: `usual`, or, for all
    /// stores, what `HH_FLUSH_FROM_BYTES` says.
    #[cfg(feature = "internals")]
    pub fn flushes_from(&self, usual: usize) -> usize {
        static ALL: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
        let bytes = || std::env::var("HH_FLUSH_FROM_BYTES").ok()?.parse().ok();
        ALL.get_or_init(bytes).unwrap_or(usual)
    }

    /// Only tests change it.
    #[cfg(not(feature = "internals"))]
    pub fn flushes_from(&self, usual: usize) -> usize {
        usual
    }

    /// Called after the fsync of a commit. Nothing without the feature `internals`.
    #[cfg(not(feature = "internals"))]
    pub fn fsync(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Called after the fsync of a commit.
    #[cfg(feature = "internals")]
    pub fn fsync(&self) -> std::io::Result<()> {
        const EIO: i32 = 5;
        match self.commit.load(Relaxed) == CommitFault::FailFsync as u8 {
            true => Err(std::io::Error::from_raw_os_error(EIO)),
            false => Ok(()),
        }
    }

    /// Called where a commit would flush. Nothing without the feature `internals`.
    #[cfg(not(feature = "internals"))]
    pub fn commit(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Called where a commit would flush. The panic is what a test asks for.
    #[cfg(feature = "internals")]
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

/// What the store does to be safe, each of which a control can switch off to show what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safeguard {
    /// Our own fsync after sled's flush (docs/sled.md rule 1).
    OwnFsync,
    /// A flush and an fsync for every group (rules 2 and 4): without it only a sync or a close
    /// commits.
    GroupCommits,
    /// Segments of 8 MiB (rule 2): without it they are of 512 KiB, sled's default.
    LargeSegments,
    /// Values of 16 KiB at most (rule 3).
    Chunks,
    /// Removing torn snapshots (rule 6).
    TornSnapshots,
    /// Opening without a snapshot that tells of more than the log has (rule 17).
    StaleSnapshots,
    /// Fsyncs of directories (rule 7).
    DirectoryFsync,
    /// Looking whether the files that are open are those that their paths lead to.
    Anchors,
    /// The watchdog over commits (rule 8).
    Watchdog,
    /// Copying a log that an fsync failed for to a new file.
    LogCopies,
    /// Opening a failed store again (rules 8 and 9).
    Reopening,
    /// Checksums of our own (rule 10).
    Checksums,
    /// The `CLEAN` summary (rule 10).
    Clean,
    /// Looking past damage in the log (rule 10).
    LogScan,
    /// A new queue after an unclean stop.
    NewQueues,
    /// Counting attempts to open.
    OpeningCount,
    /// Making the copy of a generation durable before it is in use.
    CopyCommits,
    /// Finding out whether what a transaction has read is still so.
    Validation,
    /// Hints of direct sends that are outstanding.
    HintAfter,
    /// Having a write wait for its hints to be durable where each copy is to be accounted for.
    AccountedHints,
    /// Records of copies that were not stored.
    NotStoredRecords,
}

/// Whether a control switched it off, by naming it in `HH_SWITCHED_OFF`.
#[cfg(feature = "internals")]
pub fn is_off(safeguard: Safeguard) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| std::env::var("HH_SWITCHED_OFF").unwrap_or_default());
    !off.is_empty() && off.split(',').any(|name| name == format!("{safeguard:?}"))
}

/// Only tests switch safeguards off.
#[cfg(not(feature = "internals"))]
#[inline(always)]
pub fn is_off(_safeguard: Safeguard) -> bool {
    false
}

/// Every step at which a test can stop a store, in the order in which a store comes to them.
#[cfg(feature = "internals")]
pub const POINTS: [&str; 57] = [
    "open: locked",
    "open: attempt counted",
    "open: engine open",
    "migrate: data written",
    "migrate: data durable",
    "migrate: version written",
    "open: WAL records flushed",
    "open: recovered",
    "rebuild: written",
    "rebuild: complete",
    "rebuild: named",
    "open: prepared",
    "open: named",
    "open: clean summary removed",
    "append: planned",
    "transaction: accepted",
    "letter: block written",
    "transaction: applied",
    "append: queue counter written",
    "append: node record written",
    "append: padding written",
    "append: chunk written",
    "append: block written",
    "append: WAL record written",
    "flush: block written",
    "ack: cursor written",
    "letter: pointer removed",
    "ack: queue retired",
    "flush: blocks written",
    "flush: cursor written",
    "drop: tombstone written",
    "drop: tombstone durable",
    "pause: record written",
    "pause: durable",
    "pause: all written",
    "pause: all durable",
    "members: written",
    "members: durable",
    "park: record written",
    "park: durable",
    "rename: records written",
    "rename: durable",
    "trim: removed",
    "commit: before flush",
    "commit: before fsync",
    "commit: durable",
    "commit: published",
    "compact: announced",
    "compact: begun",
    "compact: copied",
    "compact: caught up",
    "compact: named",
    "compact: taken up",
    "compact: old closed",
    "compact: old removed",
    "close: settled",
    "close: engine closed",
];

/// How long a step stalls that is made to.
#[cfg(feature = "internals")]
const STALL: std::time::Duration = std::time::Duration::from_secs(1);

/// A step of the store. Does nothing, unless a test set `HH_FAILPOINT` to `<point>/<abort, error,
/// panic or stall>/<n>`: then the `n`th time this process comes to the point it stops there in that
/// way, or goes on after a second.
#[cfg(feature = "internals")]
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
        "stall" => {
            std::thread::sleep(STALL);
            Ok(())
        }
        #[allow(clippy::panic)]
        "panic" => panic!("injected by a test"),
        _ => Err(crate::error::StorageError::new(
            name,
            std::io::Error::other("injected by a test"),
        )),
    }
}

/// A step of the store.
#[cfg(not(feature = "internals"))]
#[inline(always)]
pub fn point(_name: &'static str) -> Result<(), crate::error::StorageError> {
    Ok(())
}
