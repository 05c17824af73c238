//! The cursor of a queue: everything below it is gone, and so is what its ranges name above it.
//!
//! ```text
//! version u8 = 1 | reserved u8 = 0 | ranges u16
//! next sequence u64
//! delivered hints u64, bytes u64 | dead hints u64, bytes u64
//! lost hints u64, bytes u64 | withdrawn hints u64, bytes u64
//! a range: hints skipped since the end of the range before (or since next), hints in it, payload
//!     bytes in it, each as postcard's varint (LEB128) of a u64
//! CRC32C over key and all of the above u32
//! ```
//! All else big endian; 80 bytes and the ranges. The counts are of all that left, the ranges
//! included.

use std::sync::Arc;

use bytes::{Buf, BufMut};

use crate::{
    store::format::{
        checksum::{DecodeError, pack, unpack, with_checksum, without_checksum},
        keys::QueueRef,
        ranges::{Range, Ranges},
    },
    types::{Amount, Sequence},
};

const VERSION: u8 = 1;
/// Length of a stored cursor without ranges.
pub const CURSOR_BYTES: usize = 80;
/// Ranges that a stored cursor has, unless more than these left as anything but delivered. A value
/// of sled's may have 64 KiB (docs/sled.md rule 3), and the three numbers of a range have 10 bytes
/// each at most.
pub const RANGES_MAX: usize = 2048;
const _: () = assert!(CURSOR_BYTES + RANGES_MAX * 30 < 64 * 1024);

/// Progress of a queue, with where everything that left it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The lowest sequence that is not yet done with.
    pub next: Sequence,
    /// What left above `next`, but for `beyond`.
    pub above: Ranges,
    /// What the node took besides, for which a stored cursor has no room: after a restart it comes
    /// again. Shared, so that a copy costs nothing.
    beyond: Arc<Ranges>,
    /// Taken by the node.
    pub delivered: Amount,
    /// Moved to dead letters.
    pub dead: Amount,
    /// Gone undelivered.
    pub lost: Amount,
    /// Gone since their writes were refused.
    pub withdrawn: Amount,
}

/// How hints leave a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The node took them.
    Delivered,
    /// They are dead letters now.
    Dead,
    /// Nobody did.
    Lost,
    /// Their writes were refused, so they were never to be delivered.
    Withdrawn,
}

impl Cursor {
    /// The cursor of a queue that nothing has left.
    pub fn start() -> Self {
        Cursor {
            next: Sequence(1),
            above: Ranges::default(),
            beyond: Arc::default(),
            delivered: Amount::default(),
            dead: Amount::default(),
            lost: Amount::default(),
            withdrawn: Amount::default(),
        }
    }

    /// The cursor for a queue whose own is unreadable: all below `next` counts as delivered, as
    /// most of it was.
    pub fn rebuilt(next: Sequence, bytes_before: u64) -> Self {
        Cursor {
            next,
            delivered: Amount {
                hints: next.0.saturating_sub(1),
                bytes: bytes_before,
            },
            ..Cursor::start()
        }
    }

    /// All that left.
    pub fn gone(&self) -> Amount {
        let delivered_or_dead = self.delivered.plus(self.dead);
        delivered_or_dead.plus(self.lost).plus(self.withdrawn)
    }

    /// All that left above `next`.
    pub fn gone_above(&self) -> Amount {
        self.above.amount().plus(self.beyond.amount())
    }

    /// Payload bytes of all that is below the cursor.
    pub fn bytes_below(&self) -> u64 {
        self.gone().bytes.saturating_sub(self.gone_above().bytes)
    }

    /// Whether a hint left.
    pub fn is_gone(&self, sequence: Sequence) -> bool {
        sequence < self.next || self.gone_with(sequence).is_some()
    }

    /// The range above `next` that a hint left in.
    pub fn gone_with(&self, sequence: Sequence) -> Option<Range> {
        let first = self.gone_from(sequence).next();
        first.filter(|range| range.first <= sequence)
    }

    /// The ranges above `next` that end at or above a sequence, in order. None touches another.
    pub fn gone_from(&self, sequence: Sequence) -> impl Iterator<Item = Range> {
        let mut above = self.above.from(sequence).peekable();
        let mut beyond = self.beyond.from(sequence).peekable();
        let both = std::iter::from_fn(move || match (above.peek(), beyond.peek()) {
            (Some(one), Some(other)) if one.first > other.first => beyond.next(),
            (None, _) => beyond.next(),
            _ => above.next(),
        });
        let mut both = both.peekable();
        std::iter::from_fn(move || {
            let mut joined = both.next()?;
            while let Some(next) = both.next_if(|it| it.first.0 == joined.last.0 + 1) {
                joined.last = next.last;
                joined.bytes += next.bytes;
            }
            Some(joined)
        })
    }

    /// As it is stored: without what comes again after a restart.
    pub fn stored(&self) -> Self {
        Cursor {
            beyond: Arc::default(),
            above: self.above.clone(),
            delivered: self.delivered.less(self.beyond.amount()),
            ..*self
        }
    }

    /// Moves behind `through`, where the queue's payload up to and including it is `bytes_through`.
    ///
    /// Returns what left, nothing if all of it had left before.
    pub fn advance(&mut self, through: Sequence, bytes_through: u64, leave: Leave) -> Amount {
        let Some(hints) = (through.0.saturating_add(1)).checked_sub(self.next.0) else {
            return Amount::default();
        };
        if hints == 0 {
            return Amount::default();
        }
        let mut left = Amount {
            hints,
            bytes: bytes_through.saturating_sub(self.bytes_below()),
        };
        self.next = Sequence(through.0.saturating_add(1));
        while let Some(range) = self.take_lowest(self.next) {
            if range.first <= through {
                left = left.less(Amount {
                    hints: through.min(range.last).0 + 1 - range.first.0,
                    bytes: range.bytes,
                });
            }
            self.next = self.next.max(Sequence(range.last.0.saturating_add(1)));
        }
        self.count(left, leave);
        self.store_more();
        left
    }

    /// Whether a hint can leave as anything but delivered, so that the stored cursor has it.
    pub fn may_leave(&self, sequence: Sequence) -> bool {
        self.above.len() < RANGES_MAX
            || sequence <= self.next
            || self.above.touches(sequence)
            || self.is_gone(sequence)
    }

    /// One hint leaves, wherever it stands. Returns what left, nothing if it had left before.
    pub fn leave(&mut self, sequence: Sequence, bytes: u64, leave: Leave) -> Amount {
        let one = Amount { hints: 1, bytes };
        if self.is_gone(sequence) {
            return Amount::default();
        }
        if sequence == self.next {
            self.next = Sequence(sequence.0.saturating_add(1));
            while let Some(range) = self.take_lowest(self.next) {
                self.next = Sequence(range.last.0.saturating_add(1));
            }
        } else if leave == Leave::Delivered
            && self.above.len() >= RANGES_MAX
            && !self.above.touches(sequence)
        {
            Arc::make_mut(&mut self.beyond).insert(sequence, bytes);
        } else {
            self.above.insert(sequence, bytes);
        }
        self.count(one, leave);
        self.store_more();
        one
    }

    /// Takes out the lowest range if it begins at or below `through`.
    fn take_lowest(&mut self, through: Sequence) -> Option<Range> {
        let above = self.above.take_lowest(through);
        let is_there = |beyond: &Ranges| beyond.iter().next().is_some_and(|it| it.first <= through);
        above.or_else(|| match is_there(&self.beyond) {
            true => Arc::make_mut(&mut self.beyond).take_lowest(through),
            false => None,
        })
    }

    /// Moves to what is stored as much as has room there.
    fn store_more(&mut self) {
        while self.above.len() < RANGES_MAX && !self.beyond.is_empty() {
            let lowest = Arc::make_mut(&mut self.beyond).take_lowest(Sequence(u64::MAX));
            lowest.map(|range| self.above.insert_range(range));
        }
    }

    fn count(&mut self, left: Amount, leave: Leave) {
        let account = match leave {
            Leave::Delivered => &mut self.delivered,
            Leave::Dead => &mut self.dead,
            Leave::Lost => &mut self.lost,
            Leave::Withdrawn => &mut self.withdrawn,
        };
        *account = account.plus(left);
    }

    /// The value to store under the queue's cursor key.
    pub fn encode(&self, queue: QueueRef) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CURSOR_BYTES + self.above.len() * 6);
        bytes.put_u8(VERSION);
        bytes.put_u8(0);
        // What would not fit at all would only come again.
        let ranges = u16::try_from(self.above.len()).unwrap_or(u16::MAX);
        bytes.put_u16(ranges);
        bytes.put_u64(self.next.0);
        let delivered = self.delivered.less(self.beyond.amount());
        for amount in [delivered, self.dead, self.lost, self.withdrawn] {
            bytes.put_u64(amount.hints);
            bytes.put_u64(amount.bytes);
        }
        let mut end = self.next;
        for range in self.above.iter().take(usize::from(ranges)) {
            let amount = range.amount();
            bytes = pack(bytes, &(range.first.0 - end.0, amount.hints, amount.bytes));
            end = Sequence(range.last.0 + 1);
        }
        with_checksum(&queue.cursor_key(), bytes)
    }

    /// Reads a stored value.
    pub fn decode(queue: QueueRef, value: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = without_checksum(&queue.cursor_key(), value)?;
        let version = bytes.try_get_u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let reserved = bytes.try_get_u8()?;
        let ranges = bytes.try_get_u16()?;
        if reserved != 0 {
            return Err(DecodeError::Invalid("a reserved field is not 0"));
        }
        let next = Sequence(bytes.try_get_u64()?);
        let mut amount = || -> Result<Amount, DecodeError> {
            Ok(Amount {
                hints: bytes.try_get_u64()?,
                bytes: bytes.try_get_u64()?,
            })
        };
        let (delivered, dead, lost, withdrawn) = (amount()?, amount()?, amount()?, amount()?);
        let above = decode_ranges(&mut bytes, next, ranges)?;
        if next.0 == 0 || !bytes.is_empty() {
            return Err(DecodeError::Invalid("a field is out of range"));
        }
        Ok(Cursor {
            next,
            above,
            beyond: Arc::default(),
            delivered,
            dead,
            lost,
            withdrawn,
        })
    }
}

fn decode_ranges(bytes: &mut &[u8], next: Sequence, count: u16) -> Result<Ranges, DecodeError> {
    let overflow = DecodeError::Invalid("its ranges overflow");
    let mut ranges = Ranges::default();
    let mut end = next.0;
    for _ in 0..count {
        let (skipped, hints, payload): (u64, u64, u64) = unpack(bytes)?;
        if skipped == 0 || hints == 0 {
            return Err(DecodeError::Invalid("a range touches the one before"));
        }
        let first = end.checked_add(skipped).ok_or(overflow.clone())?;
        end = first.checked_add(hints).ok_or(overflow.clone())?;
        ranges.insert_range(Range {
            first: Sequence(first),
            last: Sequence(end - 1),
            bytes: payload,
        });
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests;
