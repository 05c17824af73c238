//! A sled database that the host opened for its own rows, and that the store shares: how it must be opened, and the few files
//! that the store keeps in its directory.
//!
//! ```text
//! hh-LOCK    held by flock by the one store in the database, and names the process
//! hh-STORE   the store's id in hex; there once the store was open, so that a lost tree is not taken for a new store
//! hh-UNSYNCED an fsync failed, see unsynced.rs
//! hh-CLEAN   the summary of a clean shutdown, see clean.rs
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    anchor::Anchor,
    clean::{self, Summary},
    directory::{Lock, create_if_missing, read_summary, take_lock},
    engine::{CACHE_BYTES, SEGMENT_BYTES, is_of_sled, open_sled, sync_database},
    exposed::Exposed,
    folder::{Folder, failed},
    unsynced,
};
use crate::{
    error::{DatabaseProblem, DirectoryGone, OpenError, StorageError, UnopenableReason},
    types::StoreId,
};

const LOCK: &str = "hh-LOCK";
pub const STORE: &str = "hh-STORE";
pub const CLEAN: &str = "hh-CLEAN";

/// The settings that a database must have to be shared with a store: segments of 8 MiB, which are fixed for its life, and
/// sled's own compression off. The cache is 8 MiB, of which sled uses several times as much; a host may set another.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use hinted_handoff::{database_config, open_database};
///
/// let db = open_database(&database_config(dir.path().join("db")).cache_capacity(64 << 20))?;
/// let accounts = db.open_tree("accounts")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn database_config(path: impl AsRef<Path>) -> sled::Config {
    sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
}

/// Opens a database that is to be shared, and makes it if there is none, with mode 0700.
///
/// It does what [`sled::Config::open`] leaves to its caller: begins anew where a first open was cut short before anything could be
/// stored, removes a torn snapshot that an unclean stop left, which would make every open fail, waits a moment for a lock that
/// lingers, catches panics, and makes the new files durable.
///
/// # Errors
/// [`OpenError::Database`] for settings that a store cannot live with and for a database that is damaged, [`OpenError::Locked`],
/// or what the operating system says. After a flush or an fsync that failed its log is copied to a
/// new file first, which takes room and time for all of it: then all that it shows is on the disk.
/// A damaged one is left as it was, which sled by itself does not do: it writes over what stands
/// behind the damage.
pub fn open_database(config: &sled::Config) -> Result<sled::Db, OpenError> {
    let path = config.get_path();
    check_settings(config)?;
    create_if_missing(&path)?;
    unsynced::mend(&path, false, &|| {})?;
    let log = path.join("db");
    let open = || open_sled(&path, config);
    let opened = match Exposed::find(&log) {
        Ok(exposed) if !exposed.is_whole => exposed.while_opening(&log, open),
        _ => open(),
    };
    let (db, witness) = opened.map_err(|error| as_database_problem(&path, error))?;
    make_durable(&db)?;
    witness.ask(&path)?;
    sync_database(&canonical(&path)?).inspect_err(|_| unsynced::try_to_mark(&path))?;
    Ok(db)
}

/// Makes a database safe to open after a flush or an fsync of it failed, by copying its log to a
/// new file, durably.
///
/// After such a failure Linux may show what was never written, until the power goes: a database
/// that is opened as it is, and goes on, loses what it says is durable then. [`open_database`] does
/// this by itself after a failure that this library saw: of a store in the database, or of
/// [`make_durable`]. Call it after any other one, such as of [`sled::Tree::flush`], when every handle
/// of the database is dropped. `path` is the database's directory.
///
/// # Errors
/// [`OpenError::Locked`] if somebody has it open, or what the operating system says; then it must
/// not be opened yet.
pub fn mend_database(path: &Path) -> Result<(), OpenError> {
    unsynced::mark(path).map_err(|source| failed("mark", path, source))?;
    unsynced::mend(path, false, &|| {})
}

/// Logs of databases, by the path by which they were opened, and opened as early: Linux tells each
/// open file once of what could not be written, and one that is opened after the failure nothing.
/// sled only logs what its own thread hears. The lock guards only this, and is held for a look at
/// what the paths name.
static LOGS: Mutex<BTreeMap<PathBuf, (Arc<File>, Anchor)>> = Mutex::new(BTreeMap::new());

fn log_of(db: &sled::Db) -> Result<Arc<File>, StorageError> {
    let dir = db.context.get_path();
    let mut logs = LOGS.lock();
    logs.retain(|_, (_, anchor)| anchor.check().is_ok());
    if let Some((log, _)) = logs.get(&dir) {
        return Ok(Arc::clone(log));
    }
    let file = dir.join("db");
    let failed = |error: io::Error| StorageError::new("open for fsync", error);
    let log = File::open(&file).map_err(failed)?;
    if !is_of_sled(&log) {
        return Err(StorageError::new("open for fsync", DirectoryGone { file }));
    }
    let (anchor, log) = (Anchor::of(&log, file).map_err(failed)?, Arc::new(log));
    logs.insert(dir, (Arc::clone(&log), anchor));
    Ok(log)
}

/// Makes everything that was written to the database so far durable: sled's own flush, and an fsync, which that is not on
/// Linux.
///
/// For a node that applies hints by transactions of sled's ([`AppliedHints::apply_once_in_sled`]): before it says that it has
/// taken them, and after each 1 MiB of writes or so. [`transaction`](crate::HintedHandoff::transaction) and
/// [`apply`](crate::HintedHandoff::apply) do it by themselves.
///
/// [`AppliedHints::apply_once_in_sled`]: crate::AppliedHints::apply_once_in_sled
///
/// # Errors
/// What sled or the operating system says; the database must be dropped then, and opened again by
/// [`open_database`], which makes that safe. [`DirectoryGone`] if its directory was exchanged
/// meanwhile.
pub fn make_durable(db: &sled::Db) -> Result<(), StorageError> {
    let flushed = db
        .flush()
        .map_err(|error| StorageError::new("flush the log", error));
    let synced = log_of(db)?
        .sync_data()
        .inspect_err(|_| unsynced::try_to_mark(&db.context.get_path()))
        .map_err(|error| StorageError::new("fsync the log", error));
    flushed.and(synced)
}

fn canonical(path: &Path) -> Result<PathBuf, OpenError> {
    fs::canonicalize(path).map_err(|source| failed("resolve", path, source))
}

/// What is left to do about a damaged store is not the same in a database of the host's.
pub fn as_database_problem(path: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Unopenable { reason, .. } => OpenError::Database {
            path: path.to_owned(),
            problem: match reason {
                UnopenableReason::Settings(text) => DatabaseProblem::Settings { text },
                reason => DatabaseProblem::Damaged { reason },
            },
        },
        other => other,
    }
}

fn check_settings(config: &sled::Config) -> Result<(), OpenError> {
    let problem = if config.segment_size != SEGMENT_BYTES {
        DatabaseProblem::SegmentSize {
            found: config.segment_size,
            wanted: SEGMENT_BYTES,
        }
    } else if config.temporary {
        DatabaseProblem::Temporary
    } else if config.use_compression {
        DatabaseProblem::Compressed
    } else if config.flush_every_ms.is_none() {
        DatabaseProblem::NeverFlushed
    } else {
        return Ok(());
    };
    Err(OpenError::Database {
        path: config.get_path(),
        problem,
    })
}

/// The directory of a database that the host opened, and the lock that makes this store the only one in it.
#[derive(Debug)]
pub struct HostDatabase {
    folder: Folder,
    lock: Lock,
}

impl HostDatabase {
    /// Checks that a store can live in `db`, whose directory `dir` must name, and locks it against a second store.
    pub fn lock(db: &sled::Db, dir: &Path) -> Result<Self, OpenError> {
        check_settings(&db.context)?;
        // The host may change its working directory.
        let path = canonical(&db.context.get_path())?;
        if !canonical(dir).is_ok_and(|dir| dir == path) {
            let problem = DatabaseProblem::OtherDirectory {
                dir: dir.to_owned(),
            };
            return Err(OpenError::Database { path, problem });
        }
        if unsynced::is_marked(&path)? {
            let problem = DatabaseProblem::Unsynced;
            return Err(OpenError::Database { path, problem });
        }
        let folder = Folder::open(&path)?;
        let lock = take_lock(&folder, LOCK)?;
        Ok(HostDatabase { folder, lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where its lock must be found.
    pub fn anchor(&self) -> &Anchor {
        &self.lock.anchor
    }

    /// Whether a store was open in it before.
    pub fn served(&self) -> Result<bool, OpenError> {
        Ok(self.folder.read(STORE)?.is_some())
    }

    /// The summary of a clean shutdown, or `None` after any other stop. A damaged one counts as none.
    pub fn clean_summary(&self) -> Result<Option<Summary>, OpenError> {
        read_summary(&self.folder, CLEAN)
    }

    /// Call it when the store is open and that is durable, before it takes the first hint.
    pub fn begin_serving(&self, store: StoreId) -> Result<(), OpenError> {
        self.anchor().check()?;
        self.folder
            .replace(STORE, format!("{store}\n").as_bytes())?;
        self.folder.remove(CLEAN)?;
        self.folder.sync()
    }

    pub fn write_clean_summary(&self, summary: &Summary) -> Result<(), OpenError> {
        self.anchor().check()?;
        self.folder.replace(CLEAN, &clean::encode(summary))
    }
}
