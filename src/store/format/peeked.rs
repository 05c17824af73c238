//! Hints as they are read: each with its place in its queue.

use crate::{
    store::format::{
        block::Hint,
        keys::{Place, QueueRef},
    },
    types::Sequence,
};

/// A hint, and the place to acknowledge once it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekedHint {
    /// Its place.
    pub mark: Mark,
    /// The hint itself.
    pub hint: Hint,
}

/// A place in a queue, in sequences and in bytes, so that acknowledging up to it needs no read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The queue.
    pub queue: QueueRef,
    /// The hint's position there.
    pub sequence: Sequence,
    /// Payload bytes of the queue up to and including this hint.
    pub bytes_through: u64,
}

impl Mark {
    /// Without the bytes.
    pub fn place(self) -> Place {
        Place {
            queue: self.queue,
            sequence: self.sequence,
        }
    }
}
