//! A sled database that the host opened for its own rows, and that the store shares: how it must be
//! opened, and the few files that the store keeps in its directory.
//!
//! ```text
//! hh-LOCK    held by flock by the one store in the database, and names the process
//! hh-STORE   the store's id in hex; there once the store was open,
//!            so that a lost tree is not taken for a new store
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

use crate::{
    error::{DatabaseProblem, DirectoryGone, OpenError, StorageError, UnopenableReason},
    store::{
        bounds::{CACHE_BYTES, SEGMENT_BYTES},
        engine::{
            anchor::Anchor,
            folder::{Folder, failed},
            generation::{is_of_sled, open_sled, sync_database},
            log_tail::LogTail,
            snapshots, unsynced,
        },
        format::{
            file_names::{HOST_CLEAN, HOST_STORE},
            shutdown_summary::{self, Summary},
        },
        home::{
            directory::read_summary,
            lock::{Lock, create_if_missing, take_lock},
        },
    },
    types::StoreId,
};

/// Says who has the store.
pub const LOCK: &str = "hh-LOCK";

/// The settings that a database must have to be shared with a store: segments of 8 MiB, which are
/// fixed for its life, and sled's own compression off. The cache is 8 MiB, of which sled uses
/// several times as much; a host may set another.
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
/// It does what [`sled::Config::open`] leaves to its caller: begins anew where a first open was cut
/// short before anything could be stored, removes a torn snapshot that an unclean stop left, which
/// would make every open fail, waits a moment for a lock that lingers, catches panics, and makes
/// the new files durable.
///
/// # Errors
/// [`OpenError::Database`] for settings that a store cannot live with and for a database that is
/// damaged, [`OpenError::Locked`], or what the operating system says. After a flush or an fsync
/// that failed its log is copied to a new file first, which takes room and time for all of it: then
/// all that it shows is on the disk. A damaged one is left as it was, which sled by itself does not
/// do: it writes over what stands behind the damage.
pub fn open_database(config: &sled::Config) -> Result<sled::Db, OpenError> {
    let path = config.get_path();
    check_settings(config)?;
    create_if_missing(&path)?;
    unsynced::repair(&path, false, &|| {})?;
    let log = path.join("db");
    let open = || open_sled(&path, config);
    let opened = snapshots::or_without(&path, || match LogTail::find(&log) {
        Ok(tail) if !tail.is_whole => tail.while_opening(&log, open),
        _ => open(),
    });
    let ((db, witness), _) = opened.map_err(|error| as_database_problem(&path, error))?;
    // What was kept of a database that is closed: what it would hear was seen to above.
    LOGS.lock()
        .retain(|_, kept| kept.path != path || kept.anchor.check().is_err());
    let durable = make_durable(&db);
    // Also where that failed: whoever opens it next is to know.
    witness.ask(&path)?;
    durable?;
    let folder = Folder::open(&path)?;
    sync_database(&canonical(&path)?).inspect_err(|_| unsynced::try_to_mark(&folder))?;
    Ok(db)
}

/// Makes a database safe to open after a flush or an fsync of it failed, by copying its log to a
/// new file, durably.
///
/// After such a failure Linux may show what was never written, until the power goes: a database
/// that is opened as it is, and goes on, loses what it says is durable then. [`open_database`] does
/// this by itself after a failure that this library saw: of a store in the database, or of
/// [`make_durable`]. Call it after any other one, such as of [`sled::Tree::flush`], when every
/// handle of the database is dropped. `path` is the database's directory.
///
/// # Errors
/// [`OpenError::Locked`] if somebody has it open, or what the operating system says; then it must
/// not be opened yet.
pub fn repair_database(path: &Path) -> Result<(), OpenError> {
    unsynced::repair_failed(path)
}

/// What is kept of an open database to fsync its log.
#[derive(Clone)]
struct KeptLog {
    path: PathBuf,
    log: Arc<File>,
    anchor: Anchor,
    folder: Arc<Folder>,
    /// It was opened now, and hears nothing of what failed before.
    is_new: bool,
}

/// Logs of open databases, by where sled has their default tree in memory. Each is opened as early
/// as it can be: Linux tells each open file once of what could not be written, and one that is
/// opened after the failure nothing; sled only logs what its own thread hears. The lock guards only
/// this, and is held for a look at what the paths name.
static LOGS: Mutex<BTreeMap<usize, KeptLog>> = Mutex::new(BTreeMap::new());

fn log_of(db: &sled::Db) -> Result<KeptLog, StorageError> {
    let (tree, path): (&sled::Tree, _) = (db, db.context.get_path());
    let place = std::ptr::from_ref(&**tree).addr();
    let file = path.join("db");
    let gone = || StorageError::new("find its directory", DirectoryGone { file: file.clone() });
    let mut logs = LOGS.lock();
    if let Some(kept) = logs.get(&place).filter(|kept| kept.path == path) {
        if kept.anchor.check().is_ok() {
            return Ok(kept.clone());
        }
        // sled's lock on it tells that it is not one of a database that is closed.
        if is_of_sled(&kept.log) {
            return Err(gone());
        }
    }
    logs.retain(|_, kept| kept.anchor.check().is_ok() || is_of_sled(&kept.log));
    let failed = |error: io::Error| StorageError::new("open for fsync", error);
    let log = File::open(&file).map_err(failed)?;
    if !is_of_sled(&log) {
        return Err(gone());
    }
    let folder = Folder::open(&path);
    let mut kept = KeptLog {
        anchor: Anchor::of(&log, file.clone()).map_err(failed)?,
        log: Arc::new(log),
        folder: Arc::new(folder.map_err(|error| StorageError::new("open for fsync", error))?),
        path,
        is_new: false,
    };
    logs.insert(place, kept.clone());
    kept.is_new = true;
    Ok(kept)
}

/// Makes everything that was written to the database so far durable: sled's own flush, and an
/// fsync, which that is not on Linux.
///
/// For a node that applies hints by transactions of sled's ([`AppliedHints::apply_once_in_sled`]):
/// before it says that it has taken them, and after each 1 MiB of writes or so.
/// [`transaction`](crate::HintedHandoff::transaction) and [`apply`](crate::HintedHandoff::apply) do
/// it by themselves.
///
/// [`AppliedHints::apply_once_in_sled`]: crate::AppliedHints::apply_once_in_sled
///
/// # Errors
/// What sled or the operating system says; the database must be dropped then, and opened again by
/// [`open_database`], which makes that safe. [`DirectoryGone`] if its directory was removed, moved
/// or exchanged meanwhile. A descriptor of the log is kept for each database, until it is closed
/// and another one is asked for.
pub fn make_durable(db: &sled::Db) -> Result<(), StorageError> {
    let KeptLog {
        log,
        folder,
        is_new,
        ..
    } = log_of(db)?;
    let flushed = db.flush();
    let synced = log.sync_data();
    if synced.is_err() || (flushed.is_err() && is_new) {
        unsynced::try_to_mark(&folder);
    }
    flushed.map_err(|error| StorageError::new("flush the log", error))?;
    synced.map_err(|error| StorageError::new("fsync the log", error))
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

/// The directory of a database that the host opened, and the lock that makes this store the only
/// one in it.
#[derive(Debug)]
pub struct HostDatabase {
    folder: Folder,
    lock: Lock,
}

impl HostDatabase {
    /// Checks that a store can live in `db`, whose directory `dir` must name, and locks it against
    /// a second store.
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
        let folder = Folder::open(&path)?;
        if unsynced::is_marked(&folder)? {
            let problem = DatabaseProblem::Unsynced;
            return Err(OpenError::Database { path, problem });
        }
        // Hears of what sled's own thread was told, and did not tell.
        make_durable(db)?;
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
        Ok(self.folder.read(HOST_STORE)?.is_some())
    }

    /// The summary of a clean shutdown, or `None` after any other stop. A damaged one counts as
    /// none.
    pub fn clean_summary(&self) -> Result<Option<Summary>, OpenError> {
        read_summary(&self.folder, HOST_CLEAN)
    }

    /// Call it when the store is open and that is durable, before it takes the first hint.
    pub fn begin_serving(&self, store: StoreId) -> Result<(), OpenError> {
        self.anchor().check()?;
        self.folder
            .replace(HOST_STORE, format!("{store}\n").as_bytes())?;
        self.folder.remove(HOST_CLEAN)?;
        self.folder.sync()
    }

    pub fn write_clean_summary(&self, summary: &Summary) -> Result<(), OpenError> {
        self.anchor().check()?;
        self.folder
            .replace(HOST_CLEAN, &shutdown_summary::encode(summary))
    }
}
