//! What the system tells: where the files are, what was written, how much memory and how many
//! threads are in use.
//!
//! All of it is Linux's `/proc`; elsewhere the figures are missing and the rest still runs.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::Outcome;

/// A disk to measure on.
pub struct Place {
    dir: PathBuf,
    /// Whether fresh directories outlive their use.
    keeps: bool,
}

impl Place {
    /// `HH_BENCH_DIR`, or else `otherwise`.
    pub fn find(otherwise: &str) -> Outcome<Self> {
        let dir = std::env::var_os("HH_BENCH_DIR")
            .map_or_else(|| PathBuf::from(otherwise), PathBuf::from);
        fs::create_dir_all(&dir)?;
        let place = Place {
            dir: dir.canonicalize()?,
            keeps: false,
        };
        if place
            .file_system()
            .is_some_and(|kind| kind == "tmpfs" || kind == "ramfs")
        {
            return Err(format!(
                "{} is in memory, where an fsync costs nothing; set HH_BENCH_DIR to a directory on a disk",
                place.dir.display()
            )
            .into());
        }
        Ok(place)
    }

    fn file_system(&self) -> Option<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mounts = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
            self.dir
                .starts_with(at)
                .then(|| (at.len(), kind.to_owned()))
        });
        // The later of two mounts at the same place hides the earlier.
        mounts.max_by_key(|(length, _)| *length).map(|it| it.1)
    }

    pub fn fresh_dir(&self) -> io::Result<TempDir> {
        tempfile::Builder::new()
            .prefix("hh-bench-")
            .disable_cleanup(self.keeps)
            .tempdir_in(&self.dir)
    }

    /// A place on the same disk whose fresh directories all stay until the guard is dropped: where
    /// a file system discards what is removed (ext4 mounted with `discard`), the disk is busy for
    /// about a millisecond a MiB with it, in what is measured next.
    pub fn keeping(&self) -> io::Result<(TempDir, Self)> {
        let guard = self.fresh_dir()?;
        let place = Place {
            dir: guard.path().to_owned(),
            keeps: true,
        };
        Ok((guard, place))
    }

    /// Has all that anybody wrote to this file system so far on the disk: the system would write it
    /// back in the middle of what is measured next, and an fdatasync waits behind it. The program
    /// that `cargo bench` has just linked is 50 MiB of that.
    pub fn settle(&self) -> Outcome<()> {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(fs::File::open(&self.dir)?)?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn free_bytes(&self) -> Outcome<u64> {
        let space = rustix::fs::statvfs(&self.dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.file_system();
        let kind = kind.as_deref().unwrap_or("file system unknown");
        write!(f, "{} ({kind})", self.dir.display())
    }
}

/// Bytes that the files below `dir` take on disk.
pub fn allocated_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += match meta.is_dir() {
            true => allocated_bytes(&entry.path())?,
            false => meta.blocks() * 512,
        };
    }
    Ok(bytes)
}

/// Asks the system to forget what it caches of the files below `dir`, so that the next open reads
/// from the disk.
pub fn drop_cache(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            drop_cache(&entry.path())?;
            continue;
        }
        let file = fs::File::open(entry.path())?;
        // Dirty pages would stay.
        file.sync_all()?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Bytes that this process has sent to the disk so far.
pub fn written_bytes() -> Option<u64> {
    proc_figure("/proc/self/io", "write_bytes:")
}

pub fn threads() -> Option<u64> {
    proc_figure("/proc/self/status", "Threads:")
}

pub fn resident_bytes() -> Option<u64> {
    Some(proc_figure("/proc/self/status", "VmRSS:")? * 1024)
}

/// The highest that resident memory has been.
pub fn resident_bytes_max() -> Option<u64> {
    Some(proc_figure("/proc/self/status", "VmHWM:")? * 1024)
}

fn proc_figure(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
