//! Where a store lies that nobody has open, found and held without changing a byte.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{DirectoryProblem, LockKind, OpenError, StorageError},
    store::{
        engine::folder::failed,
        format::{
            file_names::{CLEAN, HOST_CLEAN, HOST_STORE},
            shutdown_summary::{self, Summary},
        },
        home::{
            directory::{self, COMPACTION, CURRENT, OPENING, in_use, opens_died, ours},
            host_database,
            lock::{holder, lock_within_a_moment},
        },
    },
};

const LOCKS: [&str; 2] = [directory::LOCK, host_database::LOCK];
const LOG: &str = "db";

/// Of reading the log.
pub fn unread(error: io::Error) -> StorageError {
    StorageError::new("read the log", error)
}

/// A store that is kept closed: as long as this is held nobody opens it.
///
/// It shares the locks that an open needs for itself alone, and looks at nothing else. So it holds
/// a store, too, that [`ClosedStore`](crate::offline::ClosedStore) does not open for its damage.
/// Nothing in the directory is changed.
#[derive(Debug)]
#[must_use = "a store is kept closed for as long as this is held"]
pub struct HeldStore {
    _held: Vec<File>,
}

impl HeldStore {
    /// Holds the store in `dir`, or a folder with sled's files in it: a generation, one that was
    /// moved aside, or the database of a host that shares it. Of a store its directory is to be
    /// named: a generation of it has no lock but that of sled.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if somebody has it open; [`OpenError::Directory`] if `dir` is no
    /// directory; what the operating system says.
    pub fn hold(dir: impl AsRef<Path>) -> Result<HeldStore, OpenError> {
        let dir = dir.as_ref();
        let mut held = hold(dir)?;
        held.extend(share_log(dir)?);
        Ok(HeldStore { _held: held })
    }
}

/// A place that is held: nobody opens it for as long.
#[derive(Debug)]
pub struct ClosedPlace {
    pub dir: PathBuf,
    /// The folder that sled's files are in.
    pub generation: PathBuf,
    /// Its name, where the directory has generations.
    pub name: Option<String>,
    /// Whether `CURRENT` names it: no open came so far that anything was answered, if it does not.
    pub is_named: bool,
    /// Whether the database may be a host's, too.
    pub may_be_shared: bool,
    /// Opens that died in a row.
    pub opens_died: u32,
    /// Whether a compaction was under way.
    pub is_compacting: bool,
    /// What was moved aside.
    pub aside: Vec<String>,
    /// Shared locks: an open takes them alone.
    _held: Vec<File>,
}

impl ClosedPlace {
    /// Finds the generation in use in a store's directory. A folder with sled's files in it, such
    /// as one that was moved aside, or a host's database, is taken as it is.
    pub fn find(dir: &Path) -> Result<ClosedPlace, OpenError> {
        let problem = |problem| OpenError::Directory {
            path: dir.to_owned(),
            problem,
        };
        let mut held = hold(dir)?;
        let names = names(dir)?;
        let is_bare = names.iter().any(|name| name == LOG);
        let (name, is_named) = match is_bare {
            true => (None, true),
            false => {
                let found = names.iter().filter(|name| ours(name)).cloned();
                let current = text(&dir.join(CURRENT))?;
                let in_use = in_use(current, found.collect()).map_err(problem)?;
                let in_use = in_use.ok_or_else(|| problem(DirectoryProblem::NoStore))?;
                (Some(in_use.0), in_use.1)
            }
        };
        let generation = name.as_ref().map_or(dir.to_owned(), |name| dir.join(name));
        held.extend(share_log(&generation)?);
        let aside = names.iter().filter(|name| name.starts_with("aside-"));
        Ok(ClosedPlace {
            dir: dir.to_owned(),
            generation,
            name,
            is_named,
            may_be_shared: is_bare && may_be_shared(dir, &names)?,
            opens_died: opens_died(text(&dir.join(OPENING))?),
            is_compacting: names.iter().any(|name| name == COMPACTION),
            aside: aside.cloned().collect(),
            _held: held,
        })
    }

    pub fn log(&self) -> PathBuf {
        self.generation.join(LOG)
    }

    /// Copies the files of the generation into a new store's directory, as its only one.
    pub fn copy_to(&self, dir: &Path) -> Result<(), OpenError> {
        let into = dir.join("gen-000001");
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        let create = |path: &Path| {
            private
                .create(path)
                .map_err(|it| failed("create", path, it))
        };
        create(dir)?;
        create(&into)?;
        for name in names(&self.generation)? {
            let from = self.generation.join(&name);
            let to = match name.as_str() {
                HOST_CLEAN => into.join(CLEAN),
                _ => into.join(&name),
            };
            if from.is_file() {
                fs::copy(&from, &to).map_err(|source| failed("copy", &from, source))?;
            }
        }
        let current = dir.join(CURRENT);
        let written = fs::write(&current, "gen-000001\n");
        written.map_err(|source| failed("write", &current, source))
    }

    /// The summary of a clean shutdown; `Ok(Err)` if there is one that does not read.
    pub fn clean_summary(&self) -> Result<Option<Result<Summary, String>>, OpenError> {
        for name in [CLEAN, HOST_CLEAN] {
            let path = self.generation.join(name);
            match fs::read(&path) {
                Ok(bytes) => {
                    let read = shutdown_summary::decode(&bytes);
                    return Ok(Some(read.map_err(|error| error.to_string())));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("read", &path, source)),
            }
        }
        Ok(None)
    }
}

/// Whether a folder with sled's files may be a host's database: all are but a generation that was
/// moved aside, which has trees of ours alone.
fn may_be_shared(dir: &Path, names: &[String]) -> Result<bool, OpenError> {
    let of_host = [host_database::LOCK, HOST_STORE];
    if names.iter().any(|name| of_host.contains(&name.as_str())) {
        return Ok(true);
    }
    // `dir` may be `.`, or a link.
    let dir = fs::canonicalize(dir).map_err(|source| failed("resolve", dir, source))?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    Ok(!(name.starts_with("aside-") && name.contains("-gen-")))
}

fn names(dir: &Path) -> Result<Vec<String>, OpenError> {
    let listed = |source| failed("list", dir, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(listed)? {
        let entry = entry.map_err(listed)?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn text(path: &Path) -> Result<Option<String>, OpenError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Shares the locks of a directory.
fn hold(dir: &Path) -> Result<Vec<File>, OpenError> {
    let kind = fs::metadata(dir).map_err(|source| failed("look at", dir, source))?;
    if !kind.is_dir() {
        return Err(OpenError::Directory {
            path: dir.to_owned(),
            problem: DirectoryProblem::NotADirectory,
        });
    }
    let mut held = Vec::new();
    for name in LOCKS {
        held.extend(share(&dir.join(name), holder)?);
    }
    Ok(held)
}

/// Shares the lock of whoever has the database open without our locks.
fn share_log(generation: &Path) -> Result<Option<File>, OpenError> {
    share(&generation.join(LOG), |_| LockKind::Sled)
}

/// Takes a lock that others may share, on a file opened to be read only: nothing of the file
/// changes, and no open of the store gets the lock that it needs for itself alone.
fn share(path: &Path, kind: impl Fn(&mut File) -> LockKind) -> Result<Option<File>, OpenError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("open", path, source)),
    };
    match lock_within_a_moment(path, || file.try_lock_shared())? {
        true => Ok(Some(file)),
        false => Err(OpenError::Locked {
            path: path.to_owned(),
            kind: kind(&mut file),
        }),
    }
}

#[cfg(test)]
mod tests;
