//! Judging a hint that could not be read. Only the commit thread does this, after reading it twice itself.

use super::{
    blocks::{self, ReadError},
    engine::Engine,
    registry::Queue,
};
use crate::types::Sequence;

/// What is lost from the cursor on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRange {
    pub last: Sequence,
    /// Payload bytes of the queue up to and including `last`.
    pub bytes_through: u64,
}

/// Reads what is at the cursor twice. `None` if it reads after all.
///
/// What does not read ends where the next block that does begins, or at the watermark: the range follows from its
/// neighbours, never from what is damaged.
pub fn judge(engine: &Engine, queue: &Queue) -> Result<Option<LostRange>, sled::Error> {
    for _ in 0..2 {
        match blocks::read_covering(&engine.hints, queue.at, queue.cursor.next) {
            Ok(_) => return Ok(None),
            Err(ReadError::Engine(error)) => return Err(error),
            Err(ReadError::Damaged(_)) => {}
        }
    }
    let above = Sequence(queue.cursor.next.0.saturating_add(1));
    for first in blocks::starts(&engine.hints, queue.at, above) {
        let first = first?;
        match blocks::read(&engine.hints, queue.at, first) {
            Ok(Some(next)) => {
                return Ok(Some(LostRange {
                    last: Sequence(first.0 - 1),
                    bytes_through: next.header.bytes_before,
                }));
            }
            Err(ReadError::Engine(error)) => return Err(error),
            Ok(None) | Err(ReadError::Damaged(_)) => {}
        }
    }
    Ok(Some(LostRange {
        last: queue.watermark,
        bytes_through: queue.bytes,
    }))
}
