//! What sled may write over when it opens a log that it takes for torn, and how it is put back.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    error::{OpenError, UnopenableReason},
    store::{
        bounds::{LINGERING_LOCK, SEGMENT_BYTES},
        engine::{
            folder::failed,
            log_scan::{SEGMENT_HEADER_BYTES, message_at, messages, read_segment, segments},
        },
    },
};

/// Bounds the memory that keeping them takes.
const SEGMENTS_KEPT_MAX: usize = 8;

/// What sled may write over when it opens a log that it takes for torn: the segments in which it
/// looks for the end, and those whose header is damaged, which it takes for free.
pub struct LogTail {
    /// Whether all of it reads. Never so after damage there, nor, mostly, after a power cut.
    pub is_whole: bool,
    offsets: Vec<u64>,
    length: u64,
}

/// The bytes of what sled may write over, to be put back if the log does not open.
pub struct Kept {
    segments: Vec<(u64, Vec<u8>)>,
    length: u64,
}

impl LogTail {
    /// Finds out from the segments' headers, and reads what stands there.
    pub fn find(log: &Path) -> io::Result<LogTail> {
        let file = File::open(log)?;
        let found = segments(&file)?;
        // As sled does it: what its snapshot tells of it does not read, and may have been given up.
        let snapshot = snapshot_lsn(log)? / SEGMENT_BYTES as u64;
        let read = found.iter().filter(|it| it.number >= Some(snapshot));
        let stable = read.map(|it| it.highest_stable).max().unwrap_or(0);
        let lowest = snapshot.max(stable / SEGMENT_BYTES as u64);
        let mut tail = LogTail {
            is_whole: true,
            offsets: Vec::new(),
            length: file.metadata()?.len(),
        };
        let mut last: Vec<_> = found
            .iter()
            .filter(|it| it.number.is_some_and(|number| number >= lowest))
            .collect();
        last.sort_by_key(|it| it.number);
        let mut buffer = Vec::new();
        for (expected, segment) in (lowest..).zip(last) {
            read_segment(&file, segment.offset, &mut buffer)?;
            tail.offsets.push(segment.offset);
            tail.is_whole &= segment.number == Some(expected) && is_whole(&buffer, expected);
        }
        // Of what was never used, or wiped, there is nothing to keep.
        for segment in found.iter().filter(|it| it.number.is_none()) {
            read_segment(&file, segment.offset, &mut buffer)?;
            if message_at(&buffer, SEGMENT_HEADER_BYTES, None).is_some() {
                tail.offsets.push(segment.offset);
                tail.is_whole = false;
            }
        }
        Ok(tail)
    }

    /// Opens the log by `open`. If that fails, what it wrote over is put back, unless somebody else
    /// has the log by then.
    pub fn while_opening<T>(
        &self,
        log: &Path,
        open: impl FnOnce() -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        let kept = self.keep(log);
        let opened = open();
        let was_touched = matches!(&opened, Err(OpenError::Unopenable { reason, .. })
            if !matches!(reason, UnopenableReason::Settings(_)));
        if let (true, Ok(kept)) = (was_touched, kept) {
            let file = File::open(log).map_err(|source| failed("open", log, source))?;
            // sled's own lock, which lingers for a moment after a failed open.
            let started = Instant::now();
            while file.try_lock().is_err() {
                if started.elapsed() > LINGERING_LOCK {
                    return opened;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let put_back = kept.put_back(log);
            put_back
                .map_err(|source| failed("put back what the engine changed of", log, source))?;
        }
        opened
    }

    /// Takes a copy into memory: mostly one segment or two.
    pub fn keep(&self, log: &Path) -> io::Result<Kept> {
        let file = File::open(log)?;
        let read = |offset: &u64| {
            let mut buffer = Vec::new();
            read_segment(&file, *offset, &mut buffer)?;
            Ok((*offset, buffer))
        };
        let segments = self.offsets.iter().take(SEGMENTS_KEPT_MAX).map(read);
        Ok(Kept {
            segments: segments.collect::<io::Result<_>>()?,
            length: self.length,
        })
    }
}

impl Kept {
    /// Makes the log what it was.
    pub fn put_back(&self, log: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(log)?;
        for (offset, bytes) in &self.segments {
            file.write_all_at(bytes, *offset)?;
        }
        file.set_len(self.length)?;
        file.sync_all()
    }
}

/// Where sled begins to read a log: up to there a snapshot beside it tells, without which, or with
/// one that does not read, it opens nothing.
pub(super) fn snapshot_lsn(log: &Path) -> io::Result<u64> {
    let Some(dir) = log.parent() else {
        return Ok(0);
    };
    let mut highest = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("snap."));
        let lsn = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        highest = highest.max(lsn.unwrap_or(0));
    }
    Ok(highest)
}

/// Whether no message is behind one that does not read.
fn is_whole(segment: &[u8], number: u64) -> bool {
    let mut end = SEGMENT_HEADER_BYTES;
    messages(segment, Some(number)).all(|message| {
        let follows = message.at == end;
        end = message.end;
        follows
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::engine::generation::Engine;

    /// sled wipes a segment that was given up, also the last but one, in which the header of the
    /// last one says that the log is durable.
    #[test]
    fn a_log_is_whole_after_each_close_whatever_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Engine::open(&dir.path().join("db-dir"), Arc::default()).unwrap();
        let log = dir.path().join("db-dir/db");
        let mut wiped = 0;
        for life in 0..12_u8 {
            let engine = open();
            for number in 0..200_u64 {
                let value = vec![life; 12_000];
                engine.hints.0.insert(number.to_be_bytes(), value).unwrap();
            }
            engine.close().unwrap();
            // What is free is wiped by the next open.
            open().close().unwrap();
            let found = segments(&File::open(&log).unwrap()).unwrap();
            let last = found.iter().filter_map(|it| it.number).max().unwrap();
            let is_there = |it| found.iter().any(|segment| segment.number == Some(it));
            wiped += u32::from(last > 0 && !is_there(last - 1));
            assert!(LogTail::find(&log).unwrap().is_whole, "life {life}");
        }
        assert!(wiped > 0, "no segment was wiped");
    }
}
