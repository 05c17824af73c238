//! What a failed fsync leaves, and how a database is made safe to open after it.
//!
//! After EIO Linux keeps pages that were never written and marks them clean: they read well until
//! they are evicted or the power goes, and no later fsync writes them. Whoever appends to such a
//! log, and fsyncs that, has a log with a hole in it, where it will end after a power cut, or which
//! sled does not open at all. So nothing is appended to a log after a failed fsync. All
//! that reads of it is copied to a new file, which takes its place once it is on the disk.
//!
//! - Why a new file: writing the same pages again is not enough. (Measured on ext4 with its default
//!   options, Linux 6.18: pages written again in place, and an fsync that succeeds, and after a
//!   power cut they are zeros; the blocks were given to the file, and are never marked as written.)
//!   Blocks that are bad stay behind, too.
//! - Why all of it: sled's garbage collection moves pages at any time, and its own thread only logs
//!   that an fsync failed.
//! - A page that was evicted shows what the disk holds: it is what a crash would have left, and so
//!   is any mixture of such pages and newer ones. sled and the checks of an open know what to make
//!   of it.
//!
//! ```text
//! hh-UNSYNCED    in sled's directory: an fsync failed, and the log was not copied yet
//! db.new         the copy, until it is whole
//! ```
//! The marker need not be durable: the hole is there only as long as the page cache is, and so is
//! the marker. If a process was killed before it could leave one, the next fsync tells of a failure
//! that no process has seen.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use crate::{
    error::{LockKind, OpenError, StorageError, with_causes},
    store::{
        bounds::{LINGERING_LOCK, SEGMENT_BYTES},
        engine::folder::{Folder, failed},
        failpoints::{Safeguard, is_off},
    },
};

pub const MARKER: &str = "hh-UNSYNCED";
const NEW: &str = "db.new";
/// Copied between two fsyncs: so much memory it takes, and so soon it is seen that a disk fails
/// still.
const STEP_BYTES: u64 = SEGMENT_BYTES as u64;

/// Says that what reads in the database in this directory may not be on the disk.
pub fn mark(folder: &Folder) -> Result<(), OpenError> {
    let how = OFlags::WRONLY | OFlags::CREATE;
    let marker = folder.file(MARKER, how, Mode::from_raw_mode(0o666));
    marker.map(drop)
}

/// [`mark`] for those who have an error to tell already.
pub fn try_to_mark(folder: &Folder) {
    if let Err(error) = mark(folder) {
        tracing::error!(
            path = %folder.path().display(), error = %with_causes(&error),
            "could not leave a marker that an fsync failed"
        );
    }
}

/// Whether it was said.
pub fn is_marked(folder: &Folder) -> Result<bool, OpenError> {
    Ok(!is_off(Safeguard::LogCopies) && folder.read(MARKER)?.is_some())
}

/// Makes the database in `dir` safe to open: copies its log if an fsync failed. Nobody may have it
/// open. `alive` is called now and then.
pub fn repair(dir: &Path, was_clean: bool, alive: &dyn Fn()) -> Result<(), OpenError> {
    let has_failed = |log: &File| !was_clean && log.sync_data().is_err();
    repair_if(dir, has_failed, alive)
}

/// The same after a failure that the caller knows of.
pub fn repair_failed(dir: &Path) -> Result<(), OpenError> {
    repair_if(dir, |_| true, &|| {})
}

fn repair_if(
    dir: &Path,
    has_failed: impl FnOnce(&File) -> bool,
    alive: &dyn Fn(),
) -> Result<(), OpenError> {
    let exists = dir.try_exists();
    if is_off(Safeguard::LogCopies) || !exists.map_err(|source| failed("look for", dir, source))? {
        return Ok(());
    }
    let folder = Folder::open(dir)?;
    let path = dir.join("db");
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return folder.remove(MARKER),
        Err(source) => return Err(failed("open", &path, source)),
    };
    // Somebody else may be about to do the same.
    lock(&log, &path)?;
    // What an earlier one left that did not come to its end.
    folder.remove(NEW)?;
    if !is_marked(&folder)? && !has_failed(&log) {
        return Ok(());
    }
    // The kernel tells of it once.
    mark(&folder)?;
    tracing::warn!(path = %dir.display(), "an fsync failed: the log is copied to a new file");
    let copied = copy(&log, &dir.join(NEW), alive);
    if copied.is_err() {
        // It takes room that may be what is missing.
        let _ = folder.remove(NEW);
    }
    copied.map_err(|source| failed("copy to a new file", &path, source))?;
    folder.rename("replace", NEW, "db")?;
    // sled may have written it, and never fsyncs it (docs/sled.md rule 7).
    if let Some(conf) = folder.read("conf")? {
        folder.replace("conf", &conf)?;
    }
    folder.sync()?;
    folder.remove(MARKER)
}

/// The log, opened before sled opens it: it is told of all that could not be written since, while
/// sled tells of an fsync that failed, at most, and not again.
pub struct Witness(Option<File>);

impl Witness {
    /// `None` inside if there is no log yet.
    pub fn of(dir: &Path) -> Witness {
        Witness(File::open(dir.join("db")).ok())
    }

    /// The same where sled does not open, which is error enough. Of a log that it had just begun
    /// nobody can say.
    pub fn after_failure(&self, dir: &Path) {
        if self.0.is_some() {
            let _ = self.ask(dir);
        } else if let (true, Ok(folder)) = (dir.join("db").exists(), Folder::open(dir)) {
            try_to_mark(&folder);
        }
    }

    /// Asks whether all was written, and leaves a marker if not.
    pub fn ask(&self, dir: &Path) -> Result<(), StorageError> {
        let Some(log) = &self.0 else {
            return Ok(());
        };
        let Err(error) = log.sync_data() else {
            return Ok(());
        };
        if let Ok(folder) = Folder::open(dir) {
            try_to_mark(&folder);
        }
        Err(StorageError::new("fsync the log", error))
    }
}

/// sled's own lock, which lingers for a moment after a close. Held as long as the file is open.
fn lock(log: &File, path: &Path) -> Result<(), OpenError> {
    let started = Instant::now();
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if started.elapsed() < LINGERING_LOCK => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked {
                    path: path.to_owned(),
                    kind: LockKind::Sled,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", path, source)),
        }
    }
}

/// Copies what reads, durably.
fn copy(log: &File, new: &Path, alive: &dyn Fn()) -> io::Result<()> {
    let found = log.metadata()?;
    let copy = File::create(new)?;
    copy.set_permissions(found.permissions())?;
    let mut bytes = Vec::new();
    for from in (0..found.len()).step_by(STEP_BYTES as usize) {
        bytes.resize(STEP_BYTES.min(found.len() - from) as usize, 0);
        log.read_exact_at(&mut bytes, from)?;
        copy.write_all_at(&bytes, from)?;
        copy.sync_all()?;
        alive();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs, os::unix::fs::MetadataExt};

    use super::*;

    const LOG_BYTES: usize = STEP_BYTES as usize + 5_000;

    fn database() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let log: Vec<u8> = (0..LOG_BYTES).map(|at| (at / 4096) as u8 | 1).collect();
        fs::write(dir.path().join("db"), log).unwrap();
        fs::write(dir.path().join("conf"), "settings").unwrap();
        dir
    }

    fn folder(dir: &tempfile::TempDir) -> Folder {
        Folder::open(dir.path()).unwrap()
    }

    /// Which files they are, and what is in them.
    fn files(dir: &tempfile::TempDir) -> [(u64, Vec<u8>); 2] {
        ["db", "conf"].map(|name| {
            let path = dir.path().join(name);
            (fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap())
        })
    }

    #[test]
    fn after_a_failed_fsync_the_log_and_the_settings_are_other_files_with_the_same_bytes() {
        let dir = database();
        let before = files(&dir);
        mark(&folder(&dir)).unwrap();
        let steps = Cell::new(0);
        // Whether it was closed cleanly says nothing of what is on the disk.
        repair(dir.path(), true, &|| steps.set(steps.get() + 1)).unwrap();
        for (before, after) in before.iter().zip(files(&dir)) {
            assert_ne!(before.0, after.0);
            assert!(before.1 == after.1);
        }
        assert_eq!(steps.get(), 2, "signs of life");
        assert!(!is_marked(&folder(&dir)).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "what is left");
    }

    #[test]
    fn a_log_that_no_fsync_failed_for_stays_and_what_a_crash_left_of_a_copy_goes() {
        let dir = database();
        let before = files(&dir);
        for was_clean in [true, false] {
            fs::write(dir.path().join(NEW), "a part").unwrap();
            repair(dir.path(), was_clean, &|| {}).unwrap();
            assert!(before == files(&dir));
            assert!(!dir.path().join(NEW).exists());
        }
    }

    #[test]
    fn a_database_that_somebody_has_open_is_not_touched_and_stays_marked() {
        let dir = database();
        let before = files(&dir);
        mark(&folder(&dir)).unwrap();
        // Of somebody who repairs it at this moment.
        fs::write(dir.path().join(NEW), "a part").unwrap();
        let held = File::open(dir.path().join("db")).unwrap();
        held.lock().unwrap();
        let refused = repair(dir.path(), false, &|| {}).unwrap_err();
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        assert!(dir.path().join(NEW).exists());
        assert!(before == files(&dir));
        assert!(is_marked(&folder(&dir)).unwrap());
    }

    #[test]
    fn a_copy_that_comes_to_nothing_leaves_the_old_log_and_the_marker() {
        let dir = database();
        let before = files(&dir);
        mark(&folder(&dir)).unwrap();
        fs::create_dir(dir.path().join("conf.new")).unwrap();
        repair(dir.path(), false, &|| {}).unwrap_err();
        assert!(before[0].1 == files(&dir)[0].1);
        assert!(is_marked(&folder(&dir)).unwrap());
    }

    #[test]
    fn a_directory_without_a_log_is_safe_to_open() {
        let dir = tempfile::tempdir().unwrap();
        mark(&folder(&dir)).unwrap();
        repair(dir.path(), false, &|| {}).unwrap();
        assert!(!is_marked(&folder(&dir)).unwrap());
    }

    /// Writes to the log while the disk fails. The kernel finds that out by itself, and has told no
    /// open file of it.
    fn lose_pages(disk: &hinted_handoff_testkit::FailingDisk, dir: &Path) {
        use std::io::Write;

        disk.fail().unwrap();
        let log = File::options().append(true).open(dir.join("db"));
        log.unwrap().write_all(&[7; 1 << 20]).unwrap();
        let _ = rustix::fs::syncfs(File::open(dir).unwrap());
        disk.work_again().unwrap();
    }

    fn database_on_a_failing_disk()
    -> Option<(tempfile::TempDir, hinted_handoff_testkit::FailingDisk)> {
        let dir = database();
        match hinted_handoff_testkit::FailingDisk::new(dir.path(), 64) {
            Ok(disk) => {
                for name in ["db", "conf"] {
                    fs::copy(dir.path().join(name), disk.path().join(name)).unwrap();
                    let copy = File::open(disk.path().join(name));
                    copy.and_then(|copy| copy.sync_all()).unwrap();
                }
                Some((dir, disk))
            }
            Err(missing) => {
                println!("SKIPPED: no failing disk: {missing}");
                assert!(std::env::var("CI").is_err(), "it must run in CI: {missing}");
                None
            }
        }
    }

    /// The process was killed before it could fsync, or leave a marker.
    #[test]
    fn a_log_with_pages_that_were_lost_unheard_is_copied() {
        let Some((_dir, disk)) = database_on_a_failing_disk() else {
            return;
        };
        let log = disk.path().join("db");
        let inode = || fs::metadata(&log).unwrap().ino();
        let before = inode();
        repair(disk.path(), false, &|| {}).unwrap();
        assert_eq!(before, inode(), "nothing failed");
        lose_pages(&disk, disk.path());
        let bytes = fs::read(&log).unwrap();
        repair(disk.path(), false, &|| {}).unwrap();
        assert_ne!(before, inode());
        assert!(bytes == fs::read(&log).unwrap());
    }

    /// sled asks itself, and does not tell.
    #[test]
    fn a_witness_hears_of_all_that_failed_since_it_came() {
        let Some((_dir, disk)) = database_on_a_failing_disk() else {
            return;
        };
        let witness = Witness::of(disk.path());
        witness.ask(disk.path()).unwrap();
        lose_pages(&disk, disk.path());
        let other = File::open(disk.path().join("db")).unwrap();
        other.sync_data().unwrap_err();
        witness.ask(disk.path()).unwrap_err();
        let folder = Folder::open(disk.path()).unwrap();
        assert!(is_marked(&folder).unwrap());
    }
}
