//! What sled may write over when it opens a log that it takes for torn, and how it is put back.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    carve::{SEGMENT_HEADER_BYTES, message_at, messages, read_segment, segments},
    engine::{LINGERING_LOCK, SEGMENT_BYTES},
    folder::failed,
};
use crate::error::{OpenError, UnopenableReason};

/// Bounds the memory that keeping them takes.
const SEGMENTS_KEPT_MAX: usize = 8;

/// What sled may write over when it opens a log that it takes for torn: the segments in which it looks for the end, and those
/// whose header is damaged, which it takes for free.
pub struct Exposed {
    /// Whether all of it reads. Never so after damage there, nor, mostly, after a power cut.
    pub is_whole: bool,
    offsets: Vec<u64>,
    length: u64,
}

/// The bytes of what was exposed, to be put back if the log does not open.
pub struct Kept {
    segments: Vec<(u64, Vec<u8>)>,
    length: u64,
}

impl Exposed {
    /// Finds out from the segments' headers, and reads what is exposed.
    pub fn find(log: &Path) -> io::Result<Exposed> {
        let file = File::open(log)?;
        let found = segments(&file)?;
        let stable = found.iter().map(|it| it.highest_stable).max().unwrap_or(0);
        let lowest = stable / SEGMENT_BYTES as u64;
        let mut exposed = Exposed {
            is_whole: true,
            offsets: Vec::new(),
            length: file.metadata()?.len(),
        };
        let mut tail: Vec<_> = found
            .iter()
            .filter(|it| it.number.is_some_and(|number| number >= lowest))
            .collect();
        tail.sort_by_key(|it| it.number);
        let mut buffer = Vec::new();
        for (expected, segment) in (lowest..).zip(tail) {
            read_segment(&file, segment.offset, &mut buffer)?;
            exposed.offsets.push(segment.offset);
            exposed.is_whole &= segment.number == Some(expected) && is_whole(&buffer, expected);
        }
        // Of what was never used, or wiped, there is nothing to keep.
        for segment in found.iter().filter(|it| it.number.is_none()) {
            read_segment(&file, segment.offset, &mut buffer)?;
            if message_at(&buffer, SEGMENT_HEADER_BYTES, None).is_some() {
                exposed.offsets.push(segment.offset);
                exposed.is_whole = false;
            }
        }
        Ok(exposed)
    }

    /// Opens the log by `open`. If that fails, what it wrote over is put back, unless somebody else has the log by then.
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

/// Whether no message is behind one that does not read.
fn is_whole(segment: &[u8], number: u64) -> bool {
    let mut end = SEGMENT_HEADER_BYTES;
    messages(segment, Some(number)).all(|message| {
        let follows = message.at == end;
        end = message.end;
        follows
    })
}
