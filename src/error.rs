//! What can go wrong, one type an operation. Every text says what, which value, and what to do; causes are kept.

use std::{error::Error, io, path::PathBuf, sync::Arc};

use crate::{
    payload::PayloadError,
    types::{HintId, NodeId},
};

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

    /// The host's database is not one that a store can share.
    #[error("the database in {} cannot be shared: {problem}", path.display())]
    Database {
        /// The database's directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: DatabaseProblem,
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

/// Why a store cannot share a database of the host's.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseProblem {
    /// sled reuses small segments before what replaced them is safely on disk.
    #[error(
        "its segments are of {found} bytes, they must be of {wanted} or a power cut may destroy it; segments are fixed for a \
         database's life: make a new one with database_config() and copy the rows over"
    )]
    SegmentSize {
        /// What it was opened with.
        found: usize,
        /// What it must be opened with.
        wanted: usize,
    },
    /// sled does not sync a temporary database.
    #[error("it is temporary, so sled syncs nothing; open it with database_config()")]
    Temporary,
    /// sled's own compression is not to be used.
    #[error(
        "it uses sled's compression; that is fixed for a database's life: make a new one with database_config() and copy the rows over"
    )]
    Compressed,
    /// Without a flush interval sled collects no garbage.
    #[error(
        "its flush_every_ms is None, so sled never collects garbage; open it with database_config()"
    )]
    NeverFlushed,
    /// sled cannot open it, or the store's records in it are damaged. Nothing was deleted.
    #[error(
        "it is damaged ({reason}). Nothing was deleted. Restore it from a backup; salvage() makes a store of the hints that are \
         intact in it"
    )]
    Damaged {
        /// What was found.
        reason: UnopenableReason,
    },
    /// `dir` is not where the database is.
    #[error("config: dir = {dir:?} is another directory; name the database's own")]
    OtherDirectory {
        /// The configured directory.
        dir: PathBuf,
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
        "refused: the store has failed; it is opened again by itself, or health() says what must be done"
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
        "the store has failed; it is opened again by itself, or health() says what must be done"
    )]
    Storage(#[from] StorageError),
    /// The store failed since the last sync and was opened again.
    #[error(
        "the store failed since the last sync and was opened again: what was answered as buffered before that may be lost, write it \
         again; what was delivered may come again"
    )]
    FailedMeanwhile,
    /// The node's hints are replayed, so nobody can take them by hand.
    #[error("node {node} is replayed; name it in Config::manual_nodes to take its hints by hand")]
    Replayed {
        /// The node asked for.
        node: NodeId,
    },
    /// Somebody takes the node's hints already.
    #[error("node {node} has a consumer already; drop that first")]
    Consumed {
        /// The node asked for.
        node: NodeId,
    },
    /// The next hint cannot be turned back into points here. It is kept.
    #[error("hint {hint} does not decode; it is kept: run a version of the host that reads it")]
    Undecodable {
        /// The hint.
        hint: HintId,
        /// What the decoder said.
        source: Arc<PayloadError>,
    },
    /// The node was never hinted.
    #[error("node {node} has no queue; nothing was ever hinted for it")]
    UnknownNode {
        /// The node asked for.
        node: NodeId,
    },
}

/// Why a transaction was not committed, or is not known to be. Nothing of it is there, unless its outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The closure returned an error of the host's. Downcast it to the host's type.
    #[error("the transaction was aborted by its closure")]
    Aborted(#[source] Box<dyn Error + Send + Sync>),
    /// The closure panicked.
    #[error("the closure of the transaction panicked: {0}")]
    Panicked(String),
    /// No tree was named. For hints alone there is [`write_shard`](crate::HintedHandoff::write_shard).
    #[error("refused: a transaction needs at least one tree of the host's")]
    NoTrees,
    /// A tree that cannot take part.
    #[error("refused: the tree {tree:?} cannot take part: {problem}")]
    Tree {
        /// The tree's name.
        tree: String,
        /// What is wrong with it.
        problem: TreeProblem,
    },
    /// A key, a value, or all of it together is too large to be committed as one.
    #[error("refused: {what}: {size} is over the limit of {max}; split the transaction")]
    TransactionTooLarge {
        /// What is too large: a key, a value, all rows and hints (in bytes), or the rows that were read (in number).
        what: &'static str,
        /// How large it is.
        size: u64,
        /// How large it may be.
        max: u64,
    },
    /// A transaction was begun within the closure of another, which would wait for itself.
    #[error("refused: a transaction cannot be begun within the closure of another")]
    Nested,
    /// Rows that the transaction read changed again and again while it ran alone: somebody writes to them directly.
    #[error(
        "refused: rows that the transaction read were changed directly each of the {attempts} times it ran; change them by \
         transaction() or apply() only"
    )]
    Contended {
        /// How often the closure was run.
        attempts: u32,
    },
    /// A hint to be acknowledged is not the next one of its queue: it was acknowledged before, or others before it were not.
    #[error("refused: hint {hint} is not the next one of its queue; peek again")]
    NotNext {
        /// The first hint that was to be acknowledged.
        hint: HintId,
    },
    /// A row could not be read.
    #[error("refused: a row could not be read")]
    Read(#[source] StorageError),
    /// What refuses a hint, or leaves its outcome unknown, does so with the whole transaction.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
}

impl TransactionError {
    /// Whether the transaction may have come into effect all the same.
    pub fn outcome(&self) -> FailedOutcome {
        match self {
            TransactionError::Enqueue(error) => error.outcome(),
            _ => FailedOutcome::Refused,
        }
    }
}

/// Why a tree cannot take part in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeProblem {
    /// It is not in the database that the hints are in.
    #[error(
        "it is of another database than the hints; open the handoff with open_in() on the tree's database"
    )]
    OtherDatabase,
    /// It is one of the store's own.
    #[error("it is one of the handoff's own")]
    Ours,
    /// It was named before.
    #[error("it is named twice")]
    Twice,
}
