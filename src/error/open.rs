//! Why a store cannot be opened.

use std::{io, path::PathBuf};

use super::{ConfigError, DirectoryGone, RuntimeProblem, StorageError};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The runtime is not one that replay can run on.
    #[error("replay cannot run on this runtime: {0}")]
    Runtime(RuntimeProblem),

    /// The directory is not one that a store may be kept in.
    #[error("{} cannot hold a store: {problem}", path.display())]
    #[non_exhaustive]
    Directory {
        /// The configured directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: DirectoryProblem,
    },

    /// The host's database is not one that a store can share.
    #[error("the database in {} cannot be shared: {problem}", path.display())]
    #[non_exhaustive]
    Database {
        /// The database's directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: DatabaseProblem,
    },

    /// Somebody else has the store open.
    #[error("{} is locked: {kind}", path.display())]
    #[non_exhaustive]
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
    #[non_exhaustive]
    NewerSchema {
        /// The store's directory.
        path: PathBuf,
        /// The store's schema version.
        found: u32,
        /// The newest schema version known here.
        supported: u32,
    },

    /// The store is there but cannot be opened, and not enough is known of it to rebuild it.
    /// Nothing was deleted.
    #[error(
        "the store in {} cannot be opened ({reason}). Nothing was deleted. Restore it from a backup, or set \
         on_unopenable = \"start_empty\" to have it moved aside whole and to start with an empty store; salvage() makes a store \
         of what is intact in it",
        path.display()
    )]
    #[non_exhaustive]
    Unopenable {
        /// The generation directory that does not open.
        path: PathBuf,
        /// What was found.
        reason: UnopenableReason,
    },

    /// The operating system refused something.
    #[error("could not {action} {}", path.display())]
    #[non_exhaustive]
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
    /// It holds nothing where a store is to be looked into.
    #[error("it holds no store: neither a generation directory nor a database")]
    NoStore,
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
    /// It was made with other settings, which are fixed for its life.
    #[error(
        "it was made with other settings ({text}); make a new one with database_config() and copy the rows over"
    )]
    Settings {
        /// What sled says.
        text: String,
    },
    /// sled cannot open it, or the store's records in it are damaged. Nothing was deleted.
    #[error(
        "it is damaged ({reason}). Nothing was deleted. Restore it from a backup; salvage() makes a store of the hints that are \
         intact in it"
    )]
    Damaged {
        /// What was found.
        reason: UnopenableReason,
    },
    /// An fsync failed, and it was opened again as it was: what reads of it may not be on the disk.
    #[error(
        "an fsync of it failed, so some of what it shows may not be on the disk; drop it and open \
         it with open_database(), which copies its log to a new file"
    )]
    Unsynced,
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
    /// sled's lock on its own file, held although ours was free: another program opened the
    /// database, or a handle dropped a moment ago has not let go yet.
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
    /// The engine does not open it with these settings.
    #[error("the engine does not open it with these settings: {0}")]
    Settings(String),
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

impl StorageError {
    /// Whether the directory of the store is gone.
    pub(crate) fn is_directory_gone(&self) -> bool {
        let within = match self.source.downcast_ref() {
            Some(OpenError::Storage(within)) => Some(within),
            _ => self.source.downcast_ref(),
        };
        self.source.is::<DirectoryGone>() || within.is_some_and(Self::is_directory_gone)
    }
}
