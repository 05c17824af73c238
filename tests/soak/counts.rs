//! What a run counts.

use std::{fmt, fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};

/// Eight segments, for a store that had small rounds only.
const DISK_BYTES_EMPTY: u64 = 64 << 20;

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub rounds: u64,
    pub stores: u64,
    pub opened: u64,
    pub answered: u64,
    pub answered_bytes: u64,
    pub delivered: u64,
    pub retries: u64,
    pub backlog_bytes_max: u64,
    pub disk_bytes_max: u64,
    pub pause_max: Duration,
}

impl Counts {
    /// What a store may take on disk: the most seen in 13 GiB was 6 times the largest backlog. With
    /// values that were let become blobs, of which some stayed, it was over this bound within a
    /// minute or two.
    pub fn disk_bytes_bound(&self) -> u64 {
        8 * self.backlog_bytes_max + DISK_BYTES_EMPTY
    }

    pub fn add(&mut self, other: &Counts) {
        self.rounds += other.rounds;
        self.stores += other.stores;
        self.opened += other.opened;
        self.answered += other.answered;
        self.answered_bytes += other.answered_bytes;
        self.delivered += other.delivered;
        self.retries += other.retries;
        self.backlog_bytes_max = self.backlog_bytes_max.max(other.backlog_bytes_max);
        self.disk_bytes_max = self.disk_bytes_max.max(other.disk_bytes_max);
        self.pause_max = self.pause_max.max(other.pause_max);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds, {} stores, {} reopens, {} hints, {} MiB, {} retries, {} MiB on disk at most for a backlog of \
             {} MiB, {:?} the longest pause",
            self.rounds,
            self.stores,
            self.opened - self.stores,
            self.delivered,
            mib(self.answered_bytes),
            self.retries,
            mib(self.disk_bytes_max),
            mib(self.backlog_bytes_max),
            self.pause_max
        )
    }
}

pub fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Values that sled put into files of their own.
pub fn blobs(store: &Path) -> usize {
    let blobs = fs::read_dir(store.join("gen-000001/blobs"));
    blobs.map_or(0, |blobs| blobs.count())
}

/// What is allocated below `path`.
pub fn disk_bytes(path: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += match disk_bytes(&entry?.path()) {
                // sled exchanges its snapshots whenever it likes.
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                other => other?,
            };
        }
    }
    Ok(bytes)
}
