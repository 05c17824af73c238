//! A replica's database: the points, and with them the highest sequence applied of every stream of
//! hints.
//!
//! sled is used by the rules that the library's own store follows: one transaction at a time, then
//! `flush`, then our own fsync, since sled's `flush` is none on Linux; values far below a blob's
//! size; few and fixed trees.

use std::{fs::File, io, path::Path};

use hinted_handoff::{HintId, ShardId};
use parking_lot::Mutex;
use sled::{
    Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree},
};

use crate::{
    points::{Point, parse_lines},
    protocol::{Batch, Counters, Failure},
};

const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Keys and values of one transaction; more must not be handed to sled between two fsyncs.
const WRITE_BYTES_MAX: usize = 512 * 1024;
/// Larger values leave sled's log and are never fsynced.
const POINT_BYTES_MAX: usize = 32 * 1024;

const COUNTERS: &str = "counters";
/// Between series and timestamp in the key of a point; `Point::parse` lets no series hold it.
const SEPARATOR: u8 = 0;

pub struct Table {
    db: sled::Db,
    /// `<series> 00 <timestamp, big endian, sign flipped>` to the fields.
    points: Tree,
    /// `<store> <queue> <shard>` to the highest sequence applied.
    applied: Tree,
    /// One key, so that the counts are as durable as what they count.
    counters: Tree,
    /// sled's log, for the fsync that sled leaves out. Held from a transaction to its fsync.
    log: Mutex<File>,
}

/// Why a write was not applied.
pub enum ApplyError {
    /// The lines are not what they should be. Nothing was changed.
    Malformed(Failure),
    /// The disk or sled. Whether it was applied is unknown: only a restart finds out.
    Storage(Failure),
}

impl Table {
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            // A torn one, left behind by a crash, would make the open fail for ever.
            if path
                .extension()
                .is_some_and(|extension| extension == "generating")
            {
                std::fs::remove_file(path)?;
            }
        }
        let db = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .open()?;
        let table = Table {
            points: db.open_tree("points")?,
            applied: db.open_tree("applied")?,
            counters: db.open_tree("counters")?,
            log: Mutex::new(File::open(dir.join("db"))?),
            db,
        };
        table.db.flush()?;
        // sled syncs neither its configuration nor the directories that its files are named in.
        for name in ["db", "conf", ".", ".."] {
            File::open(dir.join(name))?.sync_all()?;
        }
        Ok(table)
    }

    /// Applies the batches of one shard in order, all or none, and returns when they are on disk.
    ///
    /// A hint whose sequence is not above the highest one applied was delivered before and is
    /// skipped. The mark moves in the transaction that upserts the points, so there is no moment to
    /// crash in at which one is without the other.
    pub fn apply(&self, shard: ShardId, batches: &[Batch]) -> Result<(), ApplyError> {
        let mut parsed = Vec::new();
        let mut bytes = 0;
        for batch in batches {
            bytes += batch.lines.len();
            let points = parse_lines(&batch.lines).map_err(ApplyError::Malformed)?;
            if points.is_empty()
                || points
                    .iter()
                    .any(|point| point.line().len() > POINT_BYTES_MAX)
            {
                let why = format!("a batch is empty or has a line of over {POINT_BYTES_MAX} bytes");
                return Err(ApplyError::Malformed(why.into()));
            }
            parsed.push((batch.hint, points));
        }
        if bytes > WRITE_BYTES_MAX {
            let why = format!("a write of {bytes} bytes is over the maximum of {WRITE_BYTES_MAX}");
            return Err(ApplyError::Malformed(why.into()));
        }

        let log = self.log.lock();
        (&self.points, &self.applied, &self.counters)
            .transaction(|(points, applied, counters)| {
                let mut counts = read_counters(counters.get(COUNTERS)?).map_err(abort)?;
                for (hint, batch) in &parsed {
                    if let Some(hint) = hint {
                        if !advance(applied, shard, hint)? {
                            counts.redelivered += 1;
                            continue;
                        }
                        counts.hints += 1;
                        counts.hint_points += batch.len() as u64;
                    } else {
                        counts.direct += 1;
                    }
                    let redundant = upsert(points, batch)?;
                    match hint {
                        Some(_) => counts.redundant_hinted += redundant,
                        None => counts.redundant_direct += redundant,
                    }
                }
                let counts = postcard::to_stdvec(&counts).map_err(|error| abort(error.into()))?;
                counters.insert(COUNTERS, counts)?;
                Ok(())
            })
            .map_err(|error| ApplyError::Storage(into_failure(error)))?;
        self.sync(&log)
            .map_err(|error| ApplyError::Storage(error.into()))
    }

    fn sync(&self, log: &File) -> io::Result<()> {
        self.db.flush()?;
        log.sync_data()
    }

    pub fn counters(&self) -> Result<Counters, Failure> {
        read_counters(self.counters.get(COUNTERS)?)
    }

    /// All points, ordered by series and time.
    pub fn points(&self) -> Result<Vec<Point>, Failure> {
        let entries = self.points.iter();
        entries
            .map(|entry| {
                let (key, value) = entry?;
                decode(&key, &value).ok_or_else(|| format!("no point: {key:?}").into())
            })
            .collect()
    }
}

/// Moves the mark of a hint's stream up to it; `false` if it is there or above already.
fn advance(
    applied: &TransactionalTree,
    shard: ShardId,
    hint: &HintId,
) -> Result<bool, ConflictableTransactionError<Failure>> {
    let mut key = hint.store.0.to_vec();
    key.extend_from_slice(&hint.queue.0.to_be_bytes());
    key.extend_from_slice(&shard.0.to_be_bytes());
    // Big endian: the bytes compare as the numbers do.
    let sequence = hint.sequence.0.to_be_bytes();
    let highest = applied.get(&key)?;
    if highest.is_some_and(|highest| highest.as_ref() >= sequence.as_slice()) {
        return Ok(false);
    }
    applied.insert(key, sequence.as_slice())?;
    Ok(true)
}

/// The last write of a (series, timestamp) wins. Returns how many points were there already, fields
/// and all.
fn upsert(
    points: &TransactionalTree,
    batch: &[Point],
) -> Result<u64, ConflictableTransactionError<Failure>> {
    let mut redundant = 0;
    for point in batch {
        let before = points.insert(encode_key(point), point.fields.as_str())?;
        if before.is_some_and(|before| before.as_ref() == point.fields.as_bytes()) {
            redundant += 1;
        }
    }
    Ok(redundant)
}

fn encode_key(point: &Point) -> Vec<u8> {
    let mut key = point.series.as_bytes().to_vec();
    key.push(SEPARATOR);
    // With the sign flipped, times before 1970 sort before those after it.
    key.extend_from_slice(&(point.timestamp ^ i64::MIN).to_be_bytes());
    key
}

fn decode(key: &[u8], fields: &[u8]) -> Option<Point> {
    let (series, timestamp) = key.split_last_chunk()?;
    let series = series.strip_suffix(&[SEPARATOR])?;
    Some(Point {
        series: String::from_utf8(series.to_vec()).ok()?,
        timestamp: i64::from_be_bytes(*timestamp) ^ i64::MIN,
        fields: String::from_utf8(fields.to_vec()).ok()?,
    })
}

fn read_counters(bytes: Option<sled::IVec>) -> Result<Counters, Failure> {
    match bytes {
        Some(bytes) => Ok(postcard::from_bytes(&bytes)?),
        None => Ok(Counters::default()),
    }
}

fn abort(failure: Failure) -> ConflictableTransactionError<Failure> {
    ConflictableTransactionError::Abort(failure)
}

fn into_failure(error: TransactionError<Failure>) -> Failure {
    match error {
        TransactionError::Abort(failure) => failure,
        TransactionError::Storage(error) => error.into(),
    }
}
