//! The raw file: for each entry its length, its CRC-32C and its bytes; and its reader.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{
    super::{Outcome, entries::Entries},
    GroupWriter, Grouped,
};

const HEADER_BYTES: usize = 8;
/// A reader takes so much at a time; an entry with its header must fit.
const CHUNK_BYTES: usize = 1 << 20;
/// A reader fsyncs its cursor after so many entries.
const ENTRIES_A_SYNC: u64 = 64;

const LOG: &str = "log";
const CURSOR: &str = "cursor";

/// A file that is appended to in groups.
pub struct Log {
    commits: Grouped,
    durable: Arc<Durable>,
}

/// What a reader waits for.
#[derive(Default)]
struct Durable {
    /// How much of the file is durable, and whether it stays so.
    end: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Log {
    /// Begins a new file in `dir`.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(dir.join(LOG))?;
        let durable = Arc::new(Durable::default());
        let durable_there = Arc::clone(&durable);
        let mut group = Vec::new();
        let commits = Grouped::start(move |entries| {
            group.clear();
            for entry in entries {
                encode(&mut group, entry);
            }
            file.write_all(&group)?;
            file.sync_data()?;
            durable_there.end.lock().0 += group.len() as u64;
            durable_there.changed.notify_one();
            Ok(())
        })?;
        Ok(Log { commits, durable })
    }

    pub fn writer(&self) -> GroupWriter {
        self.commits.writer()
    }

    /// Starts a thread that reads what becomes durable, as it does, until the log is closed.
    pub fn read_along(&self, dir: &Path) -> Outcome<JoinHandle<Outcome<Reader>>> {
        let mut reader = Reader::open(dir)?;
        let durable = Arc::clone(&self.durable);
        let read = move || {
            loop {
                let (end, is_last) = {
                    let mut end = durable.end.lock();
                    while *end == (reader.at, false) {
                        durable.changed.wait(&mut end);
                    }
                    *end
                };
                reader.read_to(end)?;
                if is_last {
                    reader.sync()?;
                    return Ok(reader);
                }
            }
        };
        Ok(std::thread::Builder::new()
            .name("raw-reader".to_owned())
            .spawn(read)?)
    }

    pub fn close(self) -> Outcome<()> {
        self.commits.close()?;
        self.durable.end.lock().1 = true;
        self.durable.changed.notify_one();
        Ok(())
    }
}

fn encode(to: &mut Vec<u8>, entry: &Bytes) {
    to.extend_from_slice(&(entry.len() as u32).to_be_bytes());
    to.extend_from_slice(&crc32c::crc32c(entry).to_be_bytes());
    to.extend_from_slice(entry);
}

/// Writes a log of `count` entries in `dir`, and tells their bytes.
pub fn write_log(dir: &Path, entries: &Entries, count: u64) -> io::Result<u64> {
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create_new(dir.join(LOG))?);
    let (mut bytes, mut encoded) = (0, Vec::new());
    for _ in 0..count {
        let entry = entries.next();
        bytes += entry.len() as u64;
        encoded.clear();
        encode(&mut encoded, &entry);
        file.write_all(&encoded)?;
    }
    file.into_inner()?.sync_all()?;
    Ok(bytes)
}

/// Reads a log from its beginning, checks each entry, and fsyncs how far it is after every 64.
pub struct Reader {
    log: File,
    cursor: File,
    chunk: Vec<u8>,
    at: u64,
    pub entries: u64,
    pub bytes: u64,
}

impl Reader {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let cursor = File::create(dir.join(CURSOR))?;
        // Afterwards an fdatasync of it has only the data to write.
        cursor.write_all_at(&0u64.to_be_bytes(), 0)?;
        cursor.sync_all()?;
        let log = File::open(dir.join(LOG))?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&log, 0, None, rustix::fs::Advice::Sequential)?;
        Ok(Reader {
            log,
            cursor,
            chunk: vec![0; CHUNK_BYTES],
            at: 0,
            entries: 0,
            bytes: 0,
        })
    }

    /// Reads on to the end of the file.
    pub fn read_all(&mut self) -> Outcome<()> {
        let end = self.log.metadata()?.len();
        self.read_to(end)?;
        Ok(self.sync()?)
    }

    /// Reads on to `end`, where an entry ends.
    fn read_to(&mut self, end: u64) -> Outcome<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        while self.at < end {
            let length = (end - self.at).min(CHUNK_BYTES as u64) as usize;
            let read = chunk.get_mut(..length).ok_or("a chunk is too long")?;
            self.log.read_exact_at(read, self.at)?;
            let mut rest: &[u8] = read;
            while let Some((entry, behind)) = next_entry(rest)? {
                self.at += (rest.len() - behind.len()) as u64;
                self.entries += 1;
                self.bytes += entry.len() as u64;
                rest = behind;
                if self.entries.is_multiple_of(ENTRIES_A_SYNC) {
                    self.sync()?;
                }
            }
            if rest.len() == length {
                return Err("an entry of the raw file is longer than a chunk".into());
            }
        }
        self.chunk = chunk;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.cursor.write_all_at(&self.at.to_be_bytes(), 0)?;
        self.cursor.sync_data()
    }
}

/// The entry at the beginning of `rest` and what is behind it, or `None` if it is not there as a
/// whole.
fn next_entry(rest: &[u8]) -> Outcome<Option<(&[u8], &[u8])>> {
    let Some((header, behind)) = rest.split_at_checked(HEADER_BYTES) else {
        return Ok(None);
    };
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|it| it.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    let Some((entry, behind)) = behind.split_at_checked(number(0) as usize) else {
        return Ok(None);
    };
    match crc32c::crc32c(entry) == number(4) {
        true => Ok(Some((entry, behind))),
        false => Err("LOST: an entry of the raw file has another checksum".into()),
    }
}
