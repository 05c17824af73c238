//! The store's directory: `LOCK`, `CURRENT`, `OPENING`, `COMPACTION`, the generations, and what is
//! moved aside.
//!
//! Names in it are changed relative to the directory that is held open, and only while its path
//! still leads there: a store whose directory was moved away changes nothing in the one that stands
//! there by now.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{DirectoryProblem, OpenError},
    store::{
        engine::{
            anchor::Anchor,
            folder::{Folder, NEW, failed},
        },
        failpoints::{Safeguard, is_off},
        format::{file_names::CLEAN, shutdown_summary},
        home::lock::{Lock, create_if_missing, take_lock},
    },
};

/// Says who has the store.
pub const LOCK: &str = "LOCK";
/// Names the generation in use.
pub const CURRENT: &str = "CURRENT";
/// Counts opens that died.
pub const OPENING: &str = "OPENING";
/// Names the generation that is compacted and the one that it is written into, while both may be
/// there.
pub const COMPACTION: &str = "COMPACTION";
const GENERATION: &str = "gen-";
const BUILDING: &str = "building";
/// A file of gigabytes is given back in steps of this: the file system holds up whoever fsyncs
/// while it frees one.
const FREED_AT_ONCE: u64 = 128 * 1024 * 1024;

/// A directory that we hold the lock of.
#[derive(Debug)]
pub struct Directory {
    folder: Folder,
    lock: Lock,
    changing: Mutex<()>,
}

impl Directory {
    /// Checks the directory, makes it if it is not there, and takes its lock.
    pub fn lock(path: &Path) -> Result<Directory, OpenError> {
        create_if_missing(path)?;
        check(path).map_err(|problem| OpenError::Directory {
            path: path.to_owned(),
            problem,
        })?;
        // The host may change its working directory.
        let path = std::path::absolute(path).map_err(|source| failed("resolve", path, source))?;
        let folder = Folder::open(&path)?;
        Ok(Directory {
            lock: take_lock(&folder, LOCK)?,
            folder,
            changing: Mutex::new(()),
        })
    }

    /// Where its lock must be found.
    pub fn anchor(&self) -> &Anchor {
        &self.lock.anchor
    }

    /// For a change of names: an error if the path leads to another directory by now, or to none.
    fn changed(&self) -> Result<&Folder, OpenError> {
        self.lock.anchor.check()?;
        Ok(&self.folder)
    }

    /// The right to put one generation in the place of another while the store is open: held for
    /// the whole of a compaction, or of a reopen. `None` if somebody has it for longer than this.
    pub fn change(&self, patience: Duration) -> Option<MutexGuard<'_, ()>> {
        self.changing.try_lock_for(patience)
    }

    /// Its path, for sled. The engine's own anchor tells whether it leads there still.
    pub fn generation(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The generation in use; see [`in_use`].
    pub fn current(&self) -> Result<Option<(String, bool)>, OpenError> {
        let found = self.generations()?;
        in_use(self.text(CURRENT)?, found).map_err(|problem| OpenError::Directory {
            path: self.folder.path().to_owned(),
            problem,
        })
    }

    /// Names the generation in use. Call it when that is durable: until then nothing in it was
    /// answered.
    pub fn set_current(&self, name: &str) -> Result<(), OpenError> {
        self.changed()?
            .replace(CURRENT, format!("{name}\n").as_bytes())
    }

    /// The name of a generation that is not there yet, above all that are or were.
    pub fn unused_generation(&self) -> Result<String, OpenError> {
        let number = |name: &String| {
            let (_, digits) = name.rsplit_once(GENERATION)?;
            digits.parse::<u64>().ok()
        };
        let highest = self.folder.names()?.iter().filter_map(number).max();
        Ok(format!("{GENERATION}{:06}", highest.unwrap_or(0) + 1))
    }

    /// Counts an attempt to open, durably, before it is made; returns how many died before it. With
    /// more deaths than `tolerated` no attempt will be made, so none is counted.
    pub fn begin_opening(&self, tolerated: u32) -> Result<u32, OpenError> {
        let died = opens_died(self.text(OPENING)?);
        if died <= tolerated && !is_off(Safeguard::OpeningCount) {
            let text = format!("{}\n", died + 1);
            self.changed()?.replace(OPENING, text.as_bytes())?;
        }
        Ok(died)
    }

    /// The attempt ended, well or with an error, and the process lives.
    pub fn end_opening(&self) -> Result<(), OpenError> {
        let folder = self.changed()?;
        folder.remove(OPENING)?;
        folder.sync()
    }

    /// The summary of a clean shutdown, or `None` after any other stop. A damaged one counts as
    /// none.
    pub fn clean_summary(
        &self,
        name: &str,
    ) -> Result<Option<shutdown_summary::Summary>, OpenError> {
        read_summary(&self.folder, &format!("{name}/{CLEAN}"))
    }

    /// Must be durable before the first write: a summary that is left would speak of an older
    /// state.
    pub fn remove_clean_summary(&self, name: &str) -> Result<(), OpenError> {
        let generation = self.changed()?.folder(name)?;
        generation.remove(CLEAN)?;
        generation.sync()
    }

    pub fn write_clean_summary(
        &self,
        name: &str,
        summary: &shutdown_summary::Summary,
    ) -> Result<(), OpenError> {
        let generation = self.changed()?.folder(name)?;
        generation.replace(CLEAN, &shutdown_summary::encode(summary))
    }

    /// An empty place to build a generation in, under a name that no open takes for one.
    pub fn start_building(&self) -> Result<PathBuf, OpenError> {
        self.changed()?.remove_all(BUILDING)?;
        Ok(self.generation(BUILDING))
    }

    /// Makes what was built a generation, which is not in use yet; returns its name.
    pub fn finish_building(
        &self,
        clean: Option<&shutdown_summary::Summary>,
    ) -> Result<String, OpenError> {
        if let Some(summary) = clean {
            self.write_clean_summary(BUILDING, summary)?;
        }
        let (folder, name) = (self.changed()?, self.unused_generation()?);
        folder.rename("rename", BUILDING, &name)?;
        folder.sync()?;
        Ok(name)
    }

    /// Says durably that the generation `of` is going to be compacted, and into which one;
    /// returns the name of that.
    pub fn begin_compaction(&self, of: &str) -> Result<String, OpenError> {
        let into = self.unused_generation()?;
        let text = format!("{of} {into}\n");
        self.changed()?.replace(COMPACTION, text.as_bytes())?;
        Ok(into)
    }

    /// Removes what a compaction leaves: the old generation once `CURRENT` names the new one, else
    /// the new one. Does nothing if there was no compaction. Not to be called while it is in doubt
    /// what `CURRENT` names.
    pub fn end_compaction(&self) -> Result<(), OpenError> {
        let Some(text) = self.text(COMPACTION)? else {
            return Ok(());
        };
        let Some(current) = self.text(CURRENT)? else {
            let path = self.folder.path().join(CURRENT);
            return Err(failed("read", &path, io::ErrorKind::NotFound.into()));
        };
        if let Some((of, into)) = text
            .trim_end()
            .split_once(' ')
            .filter(|(of, into)| ours(of) && ours(into))
        {
            let done_with = if current.trim_end() == into { of } else { into };
            self.remove_generation(done_with)?;
        }
        let folder = self.changed()?;
        folder.remove(COMPACTION)?;
        folder.sync()
    }

    /// Takes a compaction back: `of` is the one in use, as it was. If this fails it is in doubt
    /// which one `CURRENT` will name after a crash, and both are left.
    pub fn abandon_compaction(&self, of: &str) -> Result<(), OpenError> {
        self.set_current(of)?;
        self.end_compaction()
    }

    fn remove_generation(&self, name: &str) -> Result<(), OpenError> {
        let folder = self.changed()?;
        // What does not shrink is removed whole.
        if let Ok(log) = folder.file(&format!("{name}/db"), OFlags::WRONLY, Mode::empty()) {
            let mut length = log.metadata().map_or(0, |log| log.len());
            while length > FREED_AT_ONCE {
                length -= FREED_AT_ONCE;
                if log.set_len(length).is_err() {
                    break;
                }
            }
        }
        folder.remove_all(name)
    }

    /// Moves aside what a crash left while one generation took the place of a damaged one: the old
    /// one, or a new one that was never in use. Whatever else an operator keeps here is left alone.
    pub fn tidy(&self, current: &str) -> Result<(), OpenError> {
        for name in self.generations()?.iter().filter(|name| ours(name)) {
            if name != current {
                let aside = self.move_aside(name)?;
                tracing::warn!(moved_to = %aside.display(), "moved a generation aside that is not in use");
            }
        }
        Ok(())
    }

    /// Moves a generation aside whole, so that it can be looked into; returns where it is now.
    pub fn move_aside(&self, name: &str) -> Result<PathBuf, OpenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let stamp = now.map_or(0, |since| since.as_millis());
        let (folder, to) = (self.changed()?, format!("aside-{stamp}-{name}"));
        folder.rename("move aside", name, &to)?;
        folder.sync()?;
        Ok(folder.path().join(to))
    }

    fn generations(&self) -> Result<Vec<String>, OpenError> {
        let mut found = self.folder.names()?;
        found.retain(|name| ours(name));
        found.sort();
        Ok(found)
    }

    /// What a file of ours says; `None` if it is not there.
    fn text(&self, name: &str) -> Result<Option<String>, OpenError> {
        let bytes = self.folder.read(name)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The summary of a clean shutdown in a file, `None` if there is none. A damaged one counts as
/// none.
pub fn read_summary(
    folder: &Folder,
    name: &str,
) -> Result<Option<shutdown_summary::Summary>, OpenError> {
    if is_off(Safeguard::Clean) {
        return Ok(None);
    }
    let Some(bytes) = folder.read(name)? else {
        return Ok(None);
    };
    match shutdown_summary::decode(&bytes) {
        Ok(summary) => Ok(Some(summary)),
        Err(error) => {
            let path = folder.path().join(name);
            tracing::error!(path = %path.display(), %error, "the CLEAN summary is damaged; opening as after an unclean stop");
            Ok(None)
        }
    }
}

/// How many opens died in a row, by what `OPENING` says.
pub fn opens_died(opening: Option<String>) -> u32 {
    // A file that is not a number is one that a crash cut short: an attempt all the same.
    opening.map_or(0, |text| text.trim().parse().unwrap_or(1))
}

/// Of the generations that there are the one in use: the one that `CURRENT` names, or, if the first
/// open never got to write `CURRENT`, the only one. The flag says whether `CURRENT` names it.
/// `None` if there is none.
pub fn in_use(
    current: Option<String>,
    mut found: Vec<String>,
) -> Result<Option<(String, bool)>, DirectoryProblem> {
    match current {
        Some(text) => match found.iter().find(|name| **name == text.trim_end()) {
            Some(name) => Ok(Some((name.clone(), true))),
            None => Err(DirectoryProblem::BadCurrent { text }),
        },
        None => match found.len() {
            0 => Ok(None),
            1 => Ok(found.pop().map(|name| (name, false))),
            _ => Err(DirectoryProblem::NoCurrent {
                found: found.join(", "),
            }),
        },
    }
}

/// Whether this is the name of a generation that we gave.
pub fn ours(name: &str) -> bool {
    let digits = name.strip_prefix(GENERATION).unwrap_or_default();
    digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn check(path: &Path) -> Result<(), DirectoryProblem> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Err(DirectoryProblem::NotADirectory);
    };
    if metadata.is_symlink() {
        return Err(DirectoryProblem::Symlink);
    }
    if !metadata.is_dir() {
        return Err(DirectoryProblem::NotADirectory);
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(DirectoryProblem::WrongOwner {
            owner: metadata.uid(),
            us,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(DirectoryProblem::WritableByOthers { mode });
    }
    // Only a directory without a store is checked for strangers: an operator may keep notes beside
    // one.
    let found = entries(path).unwrap_or_default();
    if found.iter().any(|name| ours(name)) {
        return Ok(());
    }
    // What a first open leaves, the next one goes on with. Others have files of these names, too.
    let left = [LOCK, CURRENT, OPENING, COMPACTION, "lost+found"];
    let is_left = |name: &String| left.contains(&name.strip_suffix(NEW).unwrap_or(name));
    match found.into_iter().find(|name| !is_left(name)) {
        Some(entry) => Err(DirectoryProblem::Foreign { entry }),
        None => Ok(()),
    }
}

fn entries(path: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
