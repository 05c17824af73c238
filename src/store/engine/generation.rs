//! One generation of the store: every sled handle and our own fsync handle, opened and dropped
//! together.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub use sled::Db;

use crate::{
    error::{DirectoryGone, LockKind, OpenError, StorageError, UnopenableReason},
    store::{
        bounds::{CACHE_BYTES, LINGERING_LOCK, SEGMENT_BYTES},
        engine::{
            anchor::Anchor,
            conf,
            folder::Folder,
            growth::Growth,
            snapshots,
            table::{self, Table},
            unsynced::{self, Witness},
        },
        failpoints::{Faults, Safeguard, is_off, point},
    },
};

/// All our trees. A host's may have any other name.
pub const META: &str = "hh/meta";
pub const NODES: &str = "hh/nodes";
pub const HINTS: &str = "hh/hints";
pub const LOSSES: &str = "hh/losses";

pub struct Engine {
    pub meta: Table,
    pub nodes: Table,
    pub hints: Table,
    pub losses: Table,
    db: sled::Db,
    folder: Folder,
    /// Whether an fsync failed: what reads of the log may not be on the disk.
    unsynced: Arc<AtomicBool>,
    /// docs/sled.md rule 1: sled's flush is no fsync on Linux, this handle is how we do one.
    log: File,
    /// Where it must be found, as long as it is open.
    anchor: Anchor,
    fsyncs: AtomicU64,
    growth: Growth,
    /// The same value over all generations and reopens of a store.
    pub faults: Arc<Faults>,
}

impl Engine {
    /// Opens the database in `dir`, and makes it there if there is none.
    pub fn open(dir: &Path, faults: Arc<Faults>) -> Result<Engine, OpenError> {
        make_private_dir(dir)?;
        // docs/sled.md rule 13: compression and temporary stay as they are. Rule 2: no thread of
        // sled's writes to the log, as the one that flushes now and then does: it moves pages out
        // of segments that are mostly empty, megabytes at a time, with no fsync in between. Whoever
        // has a leaf written anew moves one along, which is enough.
        let config = sled::Config::new()
            .path(dir)
            .segment_size(match is_off(Safeguard::LargeSegments) {
                true => 512 * 1024,
                false => SEGMENT_BYTES,
            })
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let (db, witness) = open_sled(dir, &config)?;
        let engine = Engine::of(db, dir, faults);
        // Also where that failed: what opens the log next is to know.
        witness.ask(dir)?;
        engine
    }

    /// Takes up the open database `db` in `dir`.
    pub fn of(db: sled::Db, dir: &Path, faults: Arc<Faults>) -> Result<Engine, OpenError> {
        let tree = |name: &str| {
            db.open_tree(name)
                .map(Table)
                .map_err(|error| classify(dir, error, "open a tree"))
        };
        // docs/sled.md rule 14: few trees, all of them fixed.
        let (meta, nodes, hints) = (tree(META)?, tree(NODES)?, tree(HINTS)?);
        let losses = tree(LOSSES)?;
        let log_path = dir.join("db");
        let log = File::open(&log_path).map_err(|source| OpenError::Io {
            action: "open for fsync",
            path: log_path.clone(),
            source,
        })?;
        if !is_of_sled(&log) {
            let file = log_path;
            return Err(StorageError::new("open for fsync", DirectoryGone { file }).into());
        }
        let anchor = Anchor::of(&log, log_path.clone()).map_err(|source| OpenError::Io {
            action: "look at",
            path: log_path,
            source,
        })?;
        let engine = Engine {
            meta,
            nodes,
            hints,
            losses,
            growth: Growth::of(&db),
            db,
            folder: Folder::open(dir)?,
            unsynced: Arc::default(),
            log,
            anchor,
            fsyncs: AtomicU64::new(0),
            faults,
        };
        // Its handles are older than what it writes, so they hear of what fails.
        engine.commit().inspect_err(|_| drop(engine.fsync()))?;
        sync_database(dir).inspect_err(|_| engine.distrust_log())?;
        Ok(engine)
    }

    /// All our tables, in an order of no meaning that is always the same.
    pub fn tables(&self) -> [&Table; 4] {
        let Engine {
            meta,
            nodes,
            hints,
            losses,
            db: _,
            folder: _,
            unsynced: _,
            log: _,
            anchor: _,
            fsyncs: _,
            growth: _,
            faults: _,
        } = self;
        [meta, nodes, hints, losses]
    }

    /// Length of the log, which is nearly all that the database takes on the disk.
    pub fn log_bytes(&self) -> u64 {
        self.log.metadata().map_or(0, |log| log.len())
    }

    /// Where its log must be found.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    pub(super) fn db(&self) -> &sled::Db {
        &self.db
    }

    /// Makes everything handed to sled so far durable.
    ///
    /// docs/sled.md rule 1: flush, then an fsync of our own. Rule 5: a blocking flush on the
    /// caller's thread, never `flush_async`. Rule 4: with one flush a group, few buffers are ever
    /// outstanding.
    pub(super) fn commit(&self) -> Result<(), StorageError> {
        point("commit: before flush")?;
        self.faults
            .commit()
            .map_err(|error| StorageError::new("flush the log", error))?;
        self.db
            .flush()
            .map_err(|error| StorageError::new("flush the log", error))?;
        let flushed = self.growth.flushed(&self.db);
        point("commit: before fsync")?;
        if is_off(Safeguard::OwnFsync) {
            return Ok(());
        }
        self.fsync()?;
        self.growth.synced(flushed);
        self.fsyncs.fetch_add(1, Relaxed);
        point("commit: durable")
    }

    /// To be asked before each key that is handed over: whether sled has written so much since the
    /// last fsync that all so far is to be made durable first (docs/sled.md rule 2).
    pub(super) fn is_due(&self) -> sled::Result<bool> {
        self.growth.is_due(&self.db)
    }

    /// The same before a batch or a transaction of sled's.
    pub(super) fn is_due_before_batch(&self) -> sled::Result<bool> {
        self.growth.is_due_before_batch(&self.db)
    }

    /// What sled has written since the last fsync.
    pub fn unsynced_bytes(&self) -> sled::Result<u64> {
        self.growth.bytes(&self.db)
    }

    #[cfg(feature = "internals")]
    pub fn growth(&self) -> &Growth {
        &self.growth
    }

    /// Fsyncs what sled wrote. Linux tells each open file once of what it could not write, so this
    /// tells of all that failed since the last call, whether sled heard of it or not. After an
    /// error nothing may be appended to the log as it is, not by whoever opens it next either; if
    /// there is none, all that sled wrote is on the disk, whatever failed besides.
    pub fn fsync(&self) -> Result<(), StorageError> {
        self.log
            .sync_data()
            .and_then(|()| self.faults.fsync())
            .inspect_err(|_| self.distrust_log())
            .map_err(|error| StorageError::new("fsync the log", error))
    }

    fn distrust_log(&self) {
        self.unsynced.store(true, Relaxed);
        unsynced::try_to_mark(&self.folder);
    }

    /// Whether an fsync failed; to be kept beyond a close, which may find that out.
    pub fn unsynced(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unsynced)
    }

    pub fn fsyncs(&self) -> u64 {
        self.fsyncs.load(Relaxed)
    }

    /// Whether any node or hint is stored.
    pub fn holds_data(&self) -> table::Result<bool> {
        Ok(!self.nodes.is_empty()? || !self.hints.is_empty()?)
    }

    /// Drops sled and waits for its last writes. docs/sled.md rule 15: its drop may panic.
    pub fn close(self) -> Result<(), StorageError> {
        let Engine {
            meta,
            nodes,
            hints,
            losses,
            db,
            folder,
            unsynced,
            log,
            ..
        } = self;
        let closed = catch_unwind(AssertUnwindSafe(|| drop((meta, nodes, hints, losses, db))))
            .map_err(|panic| StorageError::new("close the engine", panic_text(panic.as_ref())));
        let synced = log.sync_data().map_err(|error| {
            unsynced.store(true, Relaxed);
            unsynced::try_to_mark(&folder);
            StorageError::new("fsync the log", error)
        });
        closed.and(synced)
    }

    /// The same of one that nobody else holds any more.
    pub fn close_shared(engine: Arc<Engine>) -> Result<(), StorageError> {
        let held = || StorageError::new("close the engine", "it is still held");
        Arc::into_inner(engine).ok_or_else(held)?.close()
    }
}

/// Opens sled in `dir`, which `config` names, with what it needs before and after an unclean stop.
/// The witness is to be asked once whoever fsyncs the log has opened it, too.
pub fn open_sled(dir: &Path, config: &sled::Config) -> Result<(sled::Db, Witness), OpenError> {
    snapshots::remove_torn(dir)?;
    conf::make_whole(dir, config)?;
    let started = Instant::now();
    loop {
        let witness = Witness::of(dir);
        // docs/sled.md rule 10: recovery may panic.
        let opened = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok((db, witness)),
            Ok(Err(error)) => classify(dir, error, "open the engine"),
            Err(panic) => unopenable(dir, UnopenableReason::Panic(panic_text(panic.as_ref()))),
        };
        match opened {
            OpenError::Locked { .. } if started.elapsed() < LINGERING_LOCK => {
                std::thread::sleep(Duration::from_millis(20));
            }
            error => {
                witness.after_failure(dir);
                return Err(error);
            }
        }
    }
}

/// Whether a log is the one that sled has open, which is looked for by its path: then sled's own
/// lock is on it. One that somebody else has open cannot be told apart.
pub fn is_of_sled(log: &File) -> bool {
    let locks = cfg!(any(target_os = "linux", target_os = "macos"));
    !locks || log.try_lock().is_err()
}

/// docs/sled.md rule 7: sled never fsyncs its directory, nor `conf`, which may be one that it wrote
/// itself.
pub fn sync_database(dir: &Path) -> Result<(), OpenError> {
    sync_path(&dir.join("db"))?;
    sync_path(&dir.join("conf"))?;
    sync_path(dir)?;
    dir.parent().map_or(Ok(()), sync_path)
}

pub fn unopenable(dir: &Path, reason: UnopenableReason) -> OpenError {
    OpenError::Unopenable {
        path: dir.to_owned(),
        reason,
    }
}

/// Tells a store that is damaged from a machine that is in the way. sled reports its lock as an I/O
/// error by text only.
pub fn classify(dir: &Path, error: sled::Error, action: &'static str) -> OpenError {
    match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            OpenError::Locked {
                path: dir.join("db"),
                kind: LockKind::Sled,
            }
        }
        // An error number is the operating system's: permissions, descriptors, a bad disk. The
        // store itself may be whole.
        sled::Error::Io(error) if error.raw_os_error().is_some() => {
            OpenError::Storage(StorageError::new(action, error))
        }
        sled::Error::Unsupported(text) => unopenable(dir, UnopenableReason::Settings(text)),
        error => unopenable(dir, UnopenableReason::Engine(error.to_string())),
    }
}

/// The same of what a writer said.
pub fn classify_stored(dir: &Path, error: StorageError) -> OpenError {
    match error.source.downcast_ref::<sled::Error>() {
        Some(source) => classify(dir, source.clone(), error.action),
        None => error.into(),
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no text".to_owned(),
    }
}

fn make_private_dir(dir: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(OpenError::Io {
            action: "create",
            path: dir.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Fsyncs a file or a directory.
pub fn sync_path(path: &Path) -> Result<(), OpenError> {
    if is_off(Safeguard::DirectoryFsync) {
        return Ok(());
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| OpenError::Io {
            action: "fsync",
            path: path.to_owned(),
            source,
        })
}

/// For tests that make what is found.
#[cfg(test)]
impl Engine {
    pub fn commit_now(&self) {
        self.commit().unwrap();
    }
}
