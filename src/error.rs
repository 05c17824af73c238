//! What can go wrong, one type an operation. Every text says what, which value, and what to do; causes are kept.

use std::{error::Error, io, path::PathBuf, sync::Arc};

use crate::types::NodeId;

/// A failure of the storage below: the disk, the file system or the engine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("storage failed to {action}")]
pub struct StorageError {
    /// What the store was about to do.
    pub action: &'static str,
    /// What went wrong. Shared, since everybody who waits is told.
    pub source: Arc<dyn Error + Send + Sync>,
}

impl StorageError {
    pub(crate) fn new(
        action: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        StorageError {
            action,
            source: Arc::from(source.into()),
        }
    }
}

/// A setting out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config: {field} = {value} is out of range: {rule}")]
pub struct ConfigError {
    /// The name of the setting.
    pub field: &'static str,
    /// The value found.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The directory is not one that a store may be kept in.
    #[error("{} cannot hold a store: {problem}", path.display())]
    Directory {
        /// The configured directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: DirectoryProblem,
    },

    /// Somebody else has the store open.
    #[error("{} is locked: {kind}", path.display())]
    Locked {
        /// The locked file.
        path: PathBuf,
        /// By which kind of lock.
        kind: LockKind,
    },

    /// The store was written by a newer version of this library.
    #[error(
        "the store at {} has schema {found}, this library reads up to {supported}; open it with a newer version of hinted-handoff",
        path.display()
    )]
    NewerSchema {
        /// The store's directory.
        path: PathBuf,
        /// The store's schema version.
        found: u32,
        /// The newest schema version known here.
        supported: u32,
    },

    /// The store is there but cannot be opened, and not enough is known of it to rebuild it. Nothing was deleted.
    #[error(
        "the store in {} cannot be opened ({reason}). Nothing was deleted. Restore it from a backup, or set \
         on_unopenable = \"start_empty\" to have it moved aside whole and to start with an empty store; salvage() makes a store \
         of what is intact in it",
        path.display()
    )]
    Unopenable {
        /// The generation directory that does not open.
        path: PathBuf,
        /// What was found.
        reason: UnopenableReason,
    },

    /// The operating system refused something.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The store could not be made ready after it was opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is wrong with a configured directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryProblem {
    /// It is a file, or something else that is no directory.
    #[error("it is not a directory; name a directory, or a path where one can be made")]
    NotADirectory,
    /// It is a symbolic link, whose target others could exchange.
    #[error("it is a symbolic link; name its target")]
    Symlink,
    /// It belongs to another user.
    #[error(
        "it belongs to user {owner}, this process runs as user {us}; change the owner or the user"
    )]
    WrongOwner {
        /// The user it belongs to.
        owner: u32,
        /// The effective user of this process.
        us: u32,
    },
    /// Others may write to it.
    #[error("others may write to it (mode {mode:o}); chmod it to 700")]
    WritableByOthers {
        /// Its permission bits.
        mode: u32,
    },
    /// It holds files, but no store.
    #[error("it holds {entry:?}, which is not part of a store; name an empty directory")]
    Foreign {
        /// One of the entries found.
        entry: String,
    },
    /// It holds a store where an empty directory is needed.
    #[error("it holds a store already ({found}); name an empty directory")]
    Occupied {
        /// The generation found.
        found: String,
    },
    /// `CURRENT` does not name a generation, or one that is not there.
    #[error(
        "its CURRENT file says {text:?}, which names no generation directory in it; restore the directory whole"
    )]
    BadCurrent {
        /// What `CURRENT` holds.
        text: String,
    },
    /// There are several generations and no `CURRENT` to choose one.
    #[error(
        "it has no CURRENT file but several generations ({found}); write the name of the one to use into CURRENT"
    )]
    NoCurrent {
        /// Their names.
        found: String,
    },
}

/// Which lock is held by whom.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockKind {
    /// Our own `LOCK` file, by flock.
    #[error("the hinted-handoff LOCK file is held (flock) by {}; stop that process, or shut its handle down, first", holder_text(*.holder))]
    Store {
        /// The process id written into the file, where it could be read.
        holder: Option<u32>,
    },
    /// sled's lock on its own file, held although ours was free: another program opened the database, or a handle
    /// dropped a moment ago has not let go yet.
    #[error(
        "sled's own lock (flock) on its file is held although the LOCK file was free; another program has the database open: stop it"
    )]
    Sled,
}

fn holder_text(holder: Option<u32>) -> String {
    match holder {
        Some(pid) if pid == std::process::id() => format!("this very process ({pid})"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// Why a store counts as unopenable.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnopenableReason {
    /// Opening it killed the process this often in a row.
    #[error(
        "{attempts} attempts in a row died while opening it; delete the OPENING file beside it to try once more"
    )]
    DiedWhileOpening {
        /// How many attempts.
        attempts: u32,
    },
    /// The engine said no.
    #[error("the engine reports: {0}")]
    Engine(String),
    /// The engine panicked.
    #[error("the engine panicked: {0}")]
    Panic(String),
    /// A record that everything depends on is damaged.
    #[error("the {record} record is damaged: {detail}")]
    Damaged {
        /// Which record.
        record: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// Whether a failed write may still come into effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedOutcome {
    /// The hint is not stored and will not be delivered.
    Refused,
    /// The hint may or may not be stored; it may still be delivered.
    Unknown,
}

/// Why a hint was not stored, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The points encode to no bytes at all.
    #[error("refused: the points encode to no bytes; there is nothing to hint")]
    EmptyPoints,
    /// The hint is over the configured maximum.
    #[error(
        "refused: a hint of {bytes} bytes is over max_entry_bytes = {max}; split the write or raise the limit"
    )]
    EntryTooLarge {
        /// Encoded size of the points.
        bytes: u64,
        /// The configured maximum.
        max: u64,
    },
    /// The service was shut down.
    #[error("refused: the hinted handoff is shut down; open it again")]
    ShutDown,
    /// The disk is nearly full. Replay goes on and makes room.
    #[error(
        "refused: {available_bytes} bytes are free on the store's disk, the reserve is {reserve_bytes}; free space or wait for replay"
    )]
    DiskReserve {
        /// Free bytes on the store's file system.
        available_bytes: u64,
        /// The configured reserve.
        reserve_bytes: u64,
    },
    /// The store failed earlier and is not mended yet; [`health`](crate::HintedHandoff::health) says how bad it is.
    #[error(
        "refused: the store has failed; it is opened again by itself, or health() says that the process must be restarted"
    )]
    StoreFailed(#[source] StorageError),
    /// The store failed while this hint was being committed.
    #[error(
        "outcome unknown: the store failed while committing the hint; it may still be delivered"
    )]
    Unknown(#[source] StorageError),
}

impl From<HandoffError> for EnqueueError {
    /// Why a store that does not serve refuses a hint.
    fn from(error: HandoffError) -> Self {
        match error {
            HandoffError::Storage(cause) => EnqueueError::StoreFailed(cause),
            _ => EnqueueError::ShutDown,
        }
    }
}

impl EnqueueError {
    /// Whether the hint may be stored all the same.
    pub fn outcome(&self) -> FailedOutcome {
        match self {
            EnqueueError::Unknown(_) => FailedOutcome::Unknown,
            _ => FailedOutcome::Refused,
        }
    }
}

/// Why an operation on the running store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// The service was shut down.
    #[error("the hinted handoff is shut down; open it again")]
    ShutDown,
    /// The store failed, now or earlier.
    #[error(
        "the store has failed; it is opened again by itself, or health() says that the process must be restarted"
    )]
    Storage(#[from] StorageError),
    /// The store failed since the last sync and was opened again.
    #[error(
        "the store failed since the last sync and was opened again: what was answered as buffered before that may be lost, write it \
         again; what was delivered may come again"
    )]
    FailedMeanwhile,
    /// The node was never hinted.
    #[error("node {node} has no queue; nothing was ever hinted for it")]
    UnknownNode {
        /// The node asked for.
        node: NodeId,
    },
}
