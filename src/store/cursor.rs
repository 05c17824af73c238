//! The cursor of a queue: everything below it is gone.
//!
//! ```text
//! version u8 = 1 | reserved u8 = 0 | acknowledged ranges u16 = 0
//! next sequence u64
//! delivered hints u64, bytes u64 | dead hints u64, bytes u64 | lost hints u64, bytes u64
//! CRC32C over key and all of the above u32
//! ```
//! All big endian, 64 bytes. Version 1 acknowledges in order only, so it holds no ranges; the count is there so that a
//! reader of version 1 refuses what it would not understand.

use bytes::{Buf, BufMut};

use super::{
    keys::QueueRef,
    sealed::{DecodeError, seal, unseal},
};
use crate::types::{Amount, Sequence};

const VERSION: u8 = 1;
/// Length of a stored cursor.
pub const CURSOR_BYTES: usize = 64;

/// Progress of a queue, with where everything below it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The lowest sequence that is not yet done with.
    pub next: Sequence,
    /// Taken by the node.
    pub delivered: Amount,
    /// Moved to dead letters.
    pub dead: Amount,
    /// Gone undelivered.
    pub lost: Amount,
}

/// How hints leave a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The node took them.
    Delivered,
    /// Nobody did.
    Lost,
}

impl Cursor {
    /// The cursor of a queue that nothing has left.
    pub fn start() -> Self {
        Cursor {
            next: Sequence(1),
            delivered: Amount::default(),
            dead: Amount::default(),
            lost: Amount::default(),
        }
    }

    /// The cursor for a queue whose own is unreadable: all below `next` counts as delivered, as most of it was.
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

    /// Payload bytes of all that is below the cursor.
    pub fn bytes_below(&self) -> u64 {
        self.delivered.plus(self.dead).plus(self.lost).bytes
    }

    /// Moves behind `through`, where the queue's payload up to and including it is `bytes_through`.
    ///
    /// Returns what left, nothing if the cursor was there already.
    pub fn advance(&mut self, through: Sequence, bytes_through: u64, leave: Leave) -> Amount {
        let Some(hints) = (through.0.saturating_add(1)).checked_sub(self.next.0) else {
            return Amount::default();
        };
        if hints == 0 {
            return Amount::default();
        }
        let left = Amount {
            hints,
            bytes: bytes_through.saturating_sub(self.bytes_below()),
        };
        self.next = Sequence(through.0.saturating_add(1));
        let account = match leave {
            Leave::Delivered => &mut self.delivered,
            Leave::Lost => &mut self.lost,
        };
        *account = account.plus(left);
        left
    }

    /// The value to store under the queue's cursor key.
    pub fn encode(&self, queue: QueueRef) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CURSOR_BYTES);
        bytes.put_u8(VERSION);
        bytes.put_u8(0);
        bytes.put_u16(0);
        bytes.put_u64(self.next.0);
        for amount in [self.delivered, self.dead, self.lost] {
            bytes.put_u64(amount.hints);
            bytes.put_u64(amount.bytes);
        }
        seal(&queue.cursor_key(), bytes)
    }

    /// Reads a stored value.
    pub fn decode(queue: QueueRef, value: &[u8]) -> Result<Self, DecodeError> {
        let mut bytes = unseal(&queue.cursor_key(), value)?;
        match bytes.try_get_u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        if bytes.try_get_u8()? != 0 || bytes.try_get_u16()? != 0 {
            return Err(DecodeError::Invalid("a reserved field is not 0"));
        }
        let next = Sequence(bytes.try_get_u64()?);
        let mut amount = || -> Result<Amount, DecodeError> {
            Ok(Amount {
                hints: bytes.try_get_u64()?,
                bytes: bytes.try_get_u64()?,
            })
        };
        let cursor = Cursor {
            next,
            delivered: amount()?,
            dead: amount()?,
            lost: amount()?,
        };
        if next.0 == 0 || !bytes.is_empty() {
            return Err(DecodeError::Invalid("a field is out of range"));
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, QueueId};

    const QUEUE: QueueRef = QueueRef {
        node: NodeId(2),
        queue: QueueId(3),
    };

    #[test]
    fn advancing_counts_what_leaves_and_is_idempotent() {
        let mut cursor = Cursor::start();
        let left = cursor.advance(Sequence(3), 300, Leave::Delivered);
        assert_eq!(
            left,
            Amount {
                hints: 3,
                bytes: 300
            }
        );
        assert_eq!(cursor.advance(Sequence(3), 300, Leave::Delivered).hints, 0);
        assert_eq!(cursor.advance(Sequence(1), 100, Leave::Lost).hints, 0);
        let lost = cursor.advance(Sequence(4), 350, Leave::Lost);
        assert_eq!(
            lost,
            Amount {
                hints: 1,
                bytes: 50
            }
        );
        assert_eq!((cursor.next, cursor.bytes_below()), (Sequence(5), 350));
    }

    #[test]
    fn any_flipped_bit_and_another_key_are_noticed() {
        let value = Cursor::rebuilt(Sequence(8), 99).encode(QUEUE);
        assert_eq!(value.len(), CURSOR_BYTES);
        assert_eq!(
            Cursor::decode(QUEUE, &value),
            Ok(Cursor::rebuilt(Sequence(8), 99))
        );
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Cursor::decode(QUEUE, &flipped).is_err(), "bit {bit}");
        }
        for cut in 0..value.len() {
            assert!(Cursor::decode(QUEUE, &value[..cut]).is_err(), "cut {cut}");
        }
        let other = QueueRef {
            queue: QueueId(4),
            ..QUEUE
        };
        assert!(Cursor::decode(other, &value).is_err());
    }
}
