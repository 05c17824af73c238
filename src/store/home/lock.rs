//! A private directory, and a lock on a file in one.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use crate::{
    error::{LockKind, OpenError},
    store::engine::{
        anchor::Anchor,
        folder::{Folder, failed},
        generation::sync_path,
    },
};

/// A process that was just killed, or a handle just dropped, may need a moment to let go.
const LINGERING_LOCK: Duration = Duration::from_millis(500);

/// A lock on a file, held until this value is dropped.
#[derive(Debug)]
pub struct Lock {
    _held: File,
    /// Where it must be found for as long.
    pub anchor: Anchor,
}

/// Makes the directory private, and its name durable in its parent.
pub fn create_if_missing(path: &Path) -> Result<(), OpenError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    let absolute = std::path::absolute(path).map_err(|source| failed("resolve", path, source))?;
    // Parents made on the way are as new as the directory itself: each name is fsynced in the
    // directory it stands in.
    let missing = absolute.ancestors().take_while(|path| !path.exists());
    let above: Vec<_> = missing.filter_map(Path::parent).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| failed("create", path, source))?;
    above.into_iter().try_for_each(sync_path)
}

/// Takes a lock on a file as soon as it is free; false if somebody else has it for longer than a
/// moment.
pub fn lock_within_a_moment(
    path: &Path,
    attempt: impl Fn() -> Result<(), TryLockError>,
) -> Result<bool, OpenError> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if started.elapsed() < LINGERING_LOCK => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path, source)),
        }
    }
}

/// Who has the lock on such a file, as it says itself.
pub fn holder(file: &mut File) -> LockKind {
    let mut text = String::new();
    let read = file.take(64).read_to_string(&mut text);
    LockKind::Store {
        holder: read.ok().and_then(|_| text.trim().parse().ok()),
    }
}

/// Locks a file in a directory, making it if need be.
pub fn take_lock(folder: &Folder, name: &str) -> Result<Lock, OpenError> {
    let path = folder.path().join(name);
    // Whoever may read it may lock it.
    let private = Mode::RUSR | Mode::WUSR;
    let mut file = folder.file(name, OFlags::RDWR | OFlags::CREATE, private)?;
    if !lock_within_a_moment(&path, || file.try_lock())? {
        let kind = holder(&mut file);
        return Err(OpenError::Locked { path, kind });
    }
    // For the error text of whoever meets the lock; nothing depends on it.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|source| failed("write", &path, source))?;
    let anchor = Anchor::of(&file, path.clone());
    let anchor = anchor.map_err(|source| failed("look at", &path, source))?;
    // It may have been removed before it was locked.
    anchor.check()?;
    Ok(Lock {
        _held: file,
        anchor,
    })
}
