//! sled by itself, to compare transactions with: a transaction an entry, in groups as those of the
//! raw file.

use std::{convert::Infallible, fs::File, io, path::Path};

use bytes::Bytes;
use hinted_handoff::{
    database_config, open_database,
    sled::{Transactional, transaction::TransactionResult},
};

use crate::common::{Outcome, raw::Grouped};

/// Changes two trees of a new database of sled's for each entry: a row of `row_bytes` in one of
/// `ranges` in turn, and the entry in a queue. A transaction an entry; one flush, and the fsync
/// that it lacks, for all that wait.
pub fn start(dir: &Path, ranges: u64, row_bytes: usize) -> Outcome<Grouped> {
    let db = open_database(&database_config(dir))?;
    let (rows, queue) = (db.open_tree("rows")?, db.open_tree("queue")?);
    let log = File::open(dir.join("db"))?;
    let mut turn = 0u64;
    let mut transact = move |entry: &Bytes| {
        let row = row_key(turn % ranges, turn / ranges);
        let value = entry.get(..row_bytes).unwrap_or(entry);
        let done: TransactionResult<(), Infallible> =
            (&rows, &queue).transaction(|(rows, queue)| {
                rows.insert(row.as_slice(), value)?;
                queue.insert(turn.to_be_bytes().as_slice(), &**entry)?;
                Ok(())
            });
        turn += 1;
        done.map_err(io::Error::other)
    };
    Ok(Grouped::start(move |entries| {
        for entry in entries {
            transact(entry)?;
        }
        db.flush()?;
        log.sync_data()
    })?)
}

/// The key of a row of the host's: the rows of a range are neighbours.
pub fn row_key(range: u64, number: u64) -> [u8; 16] {
    (u128::from(range) << 64 | u128::from(number)).to_be_bytes()
}
