//! A unix socket that is nobody else's from its first moment, and gone at the end.
//!
//! The socket is bound in a directory that only this user may enter, gets its mode there, and is
//! then renamed to its path, in the place of a stale one. A lock beside it says that it is in use:
//! of two that begin at the same moment one is refused.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{Address, ServeError, connections::Listener};

/// How long to wait for somebody who serves at the path.
const LIVE_TIME: Duration = Duration::from_secs(1);
/// Locks that vanish while they are taken, before that is an error.
const TRIES: usize = 16;

/// A socket that is listened on.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// Gone after the listener: whoever gets the lock finds a socket that nobody serves.
    _place: Place,
}

impl Listener for Socket {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// The right to be at a path.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    lock_path: PathBuf,
    /// Device and inode of the socket, once it is at its path.
    socket: Option<(u64, u64)>,
    _lock: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody may have put something else there.
        let found = fs::symlink_metadata(&self.path);
        let is_ours = found.is_ok_and(|it| Some((it.dev(), it.ino())) == self.socket);
        let removed = match is_ours {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        };
        // While it is locked: who waits for it notices that it is not there any more.
        let unlocked = fs::remove_file(&self.lock_path);
        if let Err(error) = removed.and(unlocked) {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

impl Socket {
    /// Listens at a path.
    pub async fn bind(path: &Path) -> Result<Socket, ServeError> {
        let failed = |source| ServeError::Listen {
            address: Address::Unix(path.to_owned()),
            source,
        };
        let mut place = Place::take(path)?;
        let found = match fs::symlink_metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(found) = found {
            let path = path.to_owned();
            if !found.file_type().is_socket() {
                return Err(ServeError::NoSocket { path });
            }
            if is_live(&path).await {
                return Err(ServeError::InUse { path });
            }
        }
        let listener = place.bind().map_err(failed)?;
        Ok(Socket {
            listener,
            _place: place,
        })
    }
}

/// Whether somebody listens there, by whatever program.
async fn is_live(path: &Path) -> bool {
    match timeout(LIVE_TIME, UnixStream::connect(path)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() != io::ErrorKind::ConnectionRefused,
        Err(_) => true,
    }
}

impl Place {
    fn take(path: &Path) -> Result<Place, ServeError> {
        let failed = |source| ServeError::Listen {
            address: Address::Unix(path.to_owned()),
            source,
        };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        for _ in 0..TRIES {
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&lock_path);
            let lock = opened.map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let path = path.to_owned();
                    return Err(ServeError::InUse { path });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Whoever had it may have removed it before it was locked here.
            let (held, found) = (lock.metadata().map_err(failed)?, fs::metadata(&lock_path));
            if found.is_ok_and(|it| (it.dev(), it.ino()) == (held.dev(), held.ino())) {
                return Ok(Place {
                    path: path.to_owned(),
                    lock_path,
                    socket: None,
                    _lock: lock,
                });
            }
        }
        Err(failed(io::Error::other("its lock is removed all the time")))
    }

    fn bind(&mut self) -> io::Result<UnixListener> {
        let private = Private::beside(&self.path)?;
        let socket = private.0.join("s");
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        let found = fs::symlink_metadata(&socket)?;
        fs::rename(&socket, &self.path)?;
        self.socket = Some((found.dev(), found.ino()));
        Ok(listener)
    }
}

/// A directory that only this user may enter; gone when it is dropped.
struct Private(PathBuf);

impl Private {
    fn beside(path: &Path) -> io::Result<Private> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let random = getrandom::u32().map_err(io::Error::other)?;
        let made = parent.join(format!(".{random:08x}"));
        DirBuilder::new().mode(0o700).create(&made)?;
        Ok(Private(made))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a directory was left behind");
        }
    }
}
