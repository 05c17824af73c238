//! A replica's database: the points, and with them what was applied of every stream of hints.
//!
//! It is sled, opened with the library's settings; `AppliedHints` knows which hints are new, and
//! makes each delivery durable before it is answered.

use std::path::Path;

use hinted_handoff::{
    AppliedHints, Batch, ShardWrite, database_config, open_database,
    sled::{
        self, Tree,
        transaction::{ConflictableTransactionError, TransactionError, TransactionalTree},
    },
};

use crate::{
    points::{Point, parse_lines},
    protocol::{Counters, Failure},
};

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
    /// One key, so that the counts are as durable as what they count.
    counters: Tree,
    applied: AppliedHints,
}

/// Why a write was not applied.
pub enum ApplyError {
    /// The lines are not what they should be. Nothing was changed.
    Malformed(Failure),
    /// The disk or sled. Whether it was applied is unknown: only a restart finds out.
    Storage(Failure),
}

type Aborted = ConflictableTransactionError<ApplyError>;

impl Table {
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let db = open_database(&database_config(dir))?;
        Ok(Table {
            points: db.open_tree("points")?,
            counters: db.open_tree("counters")?,
            applied: AppliedHints::open(&db)?,
            db,
        })
    }

    /// Applies the batches of one shard in order, all or none, and returns when they are on disk.
    ///
    /// A hint that was applied before is skipped. What is remembered of it is in the transaction
    /// that upserts the points, so there is no moment to crash in at which one is without the
    /// other.
    pub fn apply(&self, write: &ShardWrite<String>) -> Result<(), ApplyError> {
        let bytes: usize = write.batches.iter().map(|batch| batch.points.len()).sum();
        if bytes > WRITE_BYTES_MAX {
            let why = format!("a write of {bytes} bytes is over the maximum of {WRITE_BYTES_MAX}");
            return Err(ApplyError::Malformed(why.into()));
        }
        let trees = [&self.points, &self.counters];
        let applied = self
            .applied
            .apply_in_sled(&self.db, &trees, write, |trees, new| {
                let [points, counters] = trees else {
                    return Err(abort("two trees were named".into()));
                };
                let mut counts = read_counters(counters.get(COUNTERS)?).map_err(abort)?;
                counts.redelivered += (write.batches.len() - new.len()) as u64;
                for batch in new {
                    apply_batch(points, batch, &mut counts)?;
                }
                let counts = postcard::to_stdvec(&counts).map_err(|error| abort(error.into()))?;
                counters.insert(COUNTERS, counts)?;
                Ok(())
            });
        applied.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => ApplyError::Storage(error.into()),
        })
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

/// Applies the points of one client write, and counts what it was.
fn apply_batch(
    points: &TransactionalTree,
    batch: &Batch<String>,
    counts: &mut Counters,
) -> Result<(), Aborted> {
    let malformed = |why| ConflictableTransactionError::Abort(ApplyError::Malformed(why));
    let parsed = parse_lines(&batch.points).map_err(malformed)?;
    let is_too_long = |point: &Point| point.line().len() > POINT_BYTES_MAX;
    if parsed.is_empty() || parsed.iter().any(is_too_long) {
        let why = format!("a batch is empty or has a line of over {POINT_BYTES_MAX} bytes");
        return Err(malformed(why.into()));
    }
    let redundant = upsert(points, &parsed)?;
    match batch.hint {
        Some(_) => {
            counts.hints += 1;
            counts.hint_points += parsed.len() as u64;
            counts.redundant_hinted += redundant;
        }
        None => {
            counts.direct += 1;
            counts.redundant_direct += redundant;
        }
    }
    Ok(())
}

/// The last write of a (series, timestamp) wins. Returns how many points were there already, fields
/// and all.
fn upsert(points: &TransactionalTree, batch: &[Point]) -> Result<u64, Aborted> {
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

/// The counters do not read, so nothing can be said of what is stored.
fn abort(failure: Failure) -> Aborted {
    ConflictableTransactionError::Abort(ApplyError::Storage(failure))
}
