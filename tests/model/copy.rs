//! What a crash leaves: a copy of a store's files.
//!
//! A copy takes time, and what it finds must be what a crash may leave. Files other than the log do
//! not change while a store serves. The log does, but while a commit hangs before its flush
//! (`CommitFault::Hang`) our thread fsyncs nothing and answers nobody. sled's own flusher may still
//! write what it was handed, and a group that was past the hang may end. So the copy is what was
//! there when it began, and of what was written meanwhile any part: what a power cut may leave,
//! provided that nothing answered after the copy began is asked of it.
//!
//! That has all of the last group or nothing, so a crash may add the beginning of what the commit
//! then wrote behind the end of the log, up to any byte: sled writes its log in that order, and all
//! of it is of hints that nobody was told of.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
};

/// The log grows by segments that are mostly zeros.
const PAGE: usize = 4096;

/// The files of a store at one moment, but for the lock.
pub struct Copy {
    dirs: Vec<PathBuf>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Copy {
    pub fn of(store: &Path) -> io::Result<Copy> {
        let mut copy = Copy {
            dirs: vec![PathBuf::new()],
            files: Vec::new(),
        };
        let mut read = 0;
        while read < copy.dirs.len() {
            let dir = copy.dirs[read].clone();
            read += 1;
            for entry in fs::read_dir(store.join(&dir))? {
                let entry = entry?;
                let name = dir.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    copy.dirs.push(name);
                } else if name != Path::new("LOCK") {
                    copy.files.push((name, fs::read(entry.path())?));
                }
            }
        }
        Ok(copy)
    }

    /// Adds this much of what was written behind the end of the log since. False if it was written
    /// elsewhere: a segment that is used again is not written in any order with its neighbours.
    pub fn add_tail(&mut self, store: &Path, name: &Path, percent: u8) -> io::Result<bool> {
        let Some((_, log)) = self.files.iter_mut().find(|(it, _)| it == name) else {
            return Ok(false);
        };
        let later = fs::read(store.join(name))?;
        let Some((from, until)) = written_behind(log, &later) else {
            return Ok(false);
        };
        let end = from + (until - from) * usize::from(percent) / 100;
        log.resize(log.len().max(end), 0);
        log[from..end].copy_from_slice(&later[from..end]);
        Ok(true)
    }

    pub fn write_to(&self, store: &Path) -> io::Result<()> {
        let mut private = DirBuilder::new();
        private.mode(0o700);
        for dir in &self.dirs {
            private.create(store.join(dir))?;
        }
        for (name, bytes) in &self.files {
            let file = File::create_new(store.join(name))?;
            file.set_len(bytes.len() as u64)?;
            for (number, page) in bytes.chunks(PAGE).enumerate() {
                if *page != [0; PAGE][..page.len()] {
                    file.write_all_at(page, (number * PAGE) as u64)?;
                }
            }
        }
        Ok(())
    }
}

/// Where `later` differs, if all of that was never written before.
fn written_behind(log: &[u8], later: &[u8]) -> Option<(usize, usize)> {
    let both = log.len().min(later.len());
    let page = |number: usize| number * PAGE..((number + 1) * PAGE).min(both);
    let mut differing = (0..both.div_ceil(PAGE)).filter(|it| log[page(*it)] != later[page(*it)]);
    let from = differing.next().map_or(both, |first| {
        let same = log[page(first)].iter().zip(&later[page(first)]);
        first * PAGE + same.take_while(|(old, new)| old == new).count()
    });
    let unwritten = log
        .get(from..)?
        .chunks(PAGE)
        .all(|page| *page == [0; PAGE][..page.len()]);
    let last = later.iter().rposition(|byte| *byte != 0)?;
    (unwritten && from <= last).then_some((from, last + 1))
}
