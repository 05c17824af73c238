//! A directory that is held open. Names in it are used relative to it, wherever its path leads by
//! now.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

use crate::{
    error::OpenError,
    store::failpoints::{Safeguard, is_off},
};

/// What a file ends in while it is written that will take the place of another.
pub const NEW: &str = ".new";
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

#[derive(Debug)]
pub struct Folder {
    held: OwnedFd,
    /// For what is told, and for sled, which opens its files by their paths.
    path: PathBuf,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Folder, OpenError> {
        let held = openat(CWD, path, FOLDER, Mode::empty());
        Ok(Folder {
            held: held.map_err(|error| failed("open", path, error.into()))?,
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it.
    pub fn folder(&self, name: &str) -> Result<Folder, OpenError> {
        let held = openat(&self.held, name, FOLDER, Mode::empty());
        Ok(Folder {
            held: held.map_err(|error| self.failed("open", name, error))?,
            path: self.path.join(name),
        })
    }

    /// Opens a file in it; `mode` is that of a new one.
    pub fn file(&self, name: &str, how: OFlags, mode: Mode) -> Result<File, OpenError> {
        let opened = openat(&self.held, name, how | OFlags::CLOEXEC, mode);
        let opened = opened.map_err(|error| self.failed("open", name, error))?;
        Ok(File::from(opened))
    }

    /// What a file holds; `None` if it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, OpenError> {
        let how = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match openat(&self.held, name, how, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("read", name, error)),
        };
        let mut bytes = Vec::new();
        let read = (&file).read_to_end(&mut bytes);
        read.map_err(|error| self.failed("read", name, error))?;
        Ok(Some(bytes))
    }

    /// Writes a small file so that after a crash either the old or the new one is there, whole.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
        let new = format!("{name}{NEW}");
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = self.file(&new, how, Mode::from_raw_mode(0o666))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| self.failed("write", &new, error))?;
        self.rename("replace", &new, name)?;
        self.sync()
    }

    pub fn rename(&self, action: &'static str, from: &str, to: &str) -> Result<(), OpenError> {
        renameat(&self.held, from, &self.held, to).map_err(|error| self.failed(action, from, error))
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), OpenError> {
        match unlinkat(&self.held, name, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => Err(self.failed("remove", name, error)),
            _ => Ok(()),
        }
    }

    /// Removes a directory with all that is in it, if it is there.
    pub fn remove_all(&self, name: &str) -> Result<(), OpenError> {
        let removed = std::ffi::CString::new(name).map_err(io::Error::from);
        let removed = removed.and_then(|name| Ok(remove_tree(&self.held, &name)?));
        removed.map_err(|error| self.failed("remove", name, error))
    }

    /// The names of all that is in it.
    pub fn names(&self) -> Result<Vec<String>, OpenError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.held)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy();
                if name != "." && name != ".." {
                    names.push(name.into_owned());
                }
            }
            Ok(names)
        };
        list().map_err(|source| failed("list", &self.path, source))
    }

    /// Makes what became of the names in it durable.
    pub fn sync(&self) -> Result<(), OpenError> {
        if is_off(Safeguard::DirectoryFsync) {
            return Ok(());
        }
        rustix::fs::fsync(&self.held).map_err(|error| failed("fsync", &self.path, error.into()))
    }

    fn failed(&self, action: &'static str, name: &str, source: impl Into<io::Error>) -> OpenError {
        failed(action, &self.path.join(name), source.into())
    }
}

/// No link in it is followed.
fn remove_tree(within: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let folder = match openat(&within, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(&within, name, AtFlags::empty()),
        Err(error) => return Err(error),
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            remove_tree(&folder, entry.file_name())?;
        }
    }
    unlinkat(&within, name, AtFlags::REMOVEDIR)
}

pub fn failed(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn names_are_those_of_the_directory_held_wherever_it_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("here"), dir.path().join("there"));
        fs::create_dir(&path).unwrap();
        let folder = Folder::open(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        folder.replace("file", b"one").unwrap();
        folder.replace("file", b"two").unwrap();
        folder.rename("rename", "file", "other").unwrap();
        assert_eq!(folder.read("other").unwrap().unwrap(), b"two");
        assert_eq!(folder.read("file").unwrap(), None);
        assert_eq!(folder.names().unwrap(), ["other"]);
        assert_eq!(fs::read(moved.join("other")).unwrap(), b"two");
        folder.remove("other").unwrap();
        folder.remove("other").unwrap();
        assert_eq!(folder.names().unwrap(), [""; 0]);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_goes_with_all_that_is_in_it_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir_all(dir.path().join("gen/blobs/deep")).unwrap();
        fs::create_dir(&kept).unwrap();
        for file in ["kept/file", "gen/db", "gen/blobs/deep/file"] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        symlink(&kept, dir.path().join("gen/link")).unwrap();
        symlink(&kept, dir.path().join("link")).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for name in ["gen", "link", "missing"] {
            folder.remove_all(name).unwrap();
        }
        assert_eq!(folder.names().unwrap(), ["kept"]);
        assert_eq!(fs::read(kept.join("file")).unwrap(), b"x");
    }
}
