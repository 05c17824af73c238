//! Whether a file that is held open is still the one that its path leads to. A directory that is
//! removed, moved or exchanged under an open store takes every write, and nobody will find them
//! there.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use crate::{
    error::{DirectoryGone, StorageError},
    store::failpoints::{Safeguard, is_off},
};

/// A file that is held open, and where it must be found. As long as it is held no other file has
/// its number.
#[derive(Debug, Clone)]
pub struct Anchor {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Anchor {
    pub fn of(file: &File, path: PathBuf) -> io::Result<Anchor> {
        let held = file.metadata()?;
        Ok(Anchor {
            path,
            device: held.dev(),
            inode: held.ino(),
        })
    }

    /// Looks for it: one system call.
    pub fn check(&self) -> Result<(), StorageError> {
        if is_off(Safeguard::Anchors) {
            return Ok(());
        }
        let action = "find its directory";
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => return Ok(()),
            Err(error) if !is_missing(&error) => return Err(StorageError::new(action, error)),
            _ => {}
        }
        let file = self.path.clone();
        Err(StorageError::new(action, DirectoryGone { file }))
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
