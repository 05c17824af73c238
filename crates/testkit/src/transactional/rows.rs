//! The host's rows: their bytes, and telling of all that are there.

use super::failure::Failure;
use crate::{
    event::{Event, tell},
    row_event::RowEvent,
};
use hinted_handoff::sled::{Db, IVec, Tree};

pub const COUNTER: &str = "counter";
/// What a row needs beside its filling.
const OVERHEAD_BYTES: usize = 12;

/// The host's trees.
pub struct Tables {
    /// Rows by number; the first one holds the counter too.
    pub trees: [Tree; 2],
    /// By the hint's number, the id of the hint that was consumed.
    pub consumed: Tree,
    /// Rows that nobody looks at.
    pub direct: Tree,
}

/// The bit of each tree.
pub const BITS: [u8; 2] = [1, 2];

/// The key of a numbered row.
pub fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A value that says which row it is and notices damage.
pub fn value(number: u64, bytes: usize) -> IVec {
    let mut value = vec![number as u8; bytes.max(OVERHEAD_BYTES)];
    let end = value.len() - 4;
    if let Some(start) = value.first_chunk_mut::<8>() {
        *start = number.to_be_bytes();
    }
    let checksum = crc32c::crc32c(value.get(..end).unwrap_or_default());
    if let Some(tail) = value.last_chunk_mut::<4>() {
        *tail = checksum.to_be_bytes();
    }
    value.into()
}

fn is_whole(number: u64, found: &IVec) -> bool {
    *found == value(number, found.len())
}

pub fn counter(value: Option<&IVec>) -> Result<u64, Failure> {
    match value {
        None => Ok(0),
        Some(value) => Ok(u64::from_be_bytes(value.as_ref().try_into()?)),
    }
}

impl Tables {
    pub fn open(db: &Db) -> Result<Tables, Failure> {
        Ok(Tables {
            trees: [db.open_tree("rows/a")?, db.open_tree("rows/b")?],
            consumed: db.open_tree("consumed")?,
            direct: db.open_tree("direct")?,
        })
    }

    /// Reads every row and tells of it.
    pub fn tell_all(&self) -> Result<(), Failure> {
        for (bit, tree) in BITS.into_iter().zip(&self.trees) {
            for row in tree {
                let (key, value) = row?;
                if key == COUNTER {
                    let value = counter(Some(&value))?;
                    tell(&Event::Rows(RowEvent::Counter { value }))?;
                    continue;
                }
                let number = u64::from_be_bytes(key.as_ref().try_into()?);
                if !is_whole(number, &value) {
                    return Err(format!("row {number} is not what was written").into());
                }
                tell(&Event::Rows(RowEvent::Row { tree: bit, number }))?;
            }
        }
        for row in &self.consumed {
            let (key, value) = row?;
            let number = u64::from_be_bytes(key.as_ref().try_into()?);
            let id = std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok());
            let id = id.ok_or_else(|| format!("the consumed row of {number} does not read"))?;
            tell(&Event::Rows(RowEvent::ConsumedRow { id, number }))?;
        }
        Ok(tell(&Event::Rows(RowEvent::AllRead))?)
    }
}
