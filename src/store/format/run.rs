//! What is to be stored of a queue: consecutive hints that have their sequences and are no bytes
//! yet.

use crate::{
    store::format::{block::Hint, keys::QueueRef},
    types::{Amount, NodeId, Sequence},
};

/// Consecutive hints of a queue.
#[derive(Debug, Clone)]
pub struct Draft {
    pub node: NodeId,
    pub queue: QueueRef,
    pub first: Sequence,
    /// Payload bytes of the queue before it.
    pub bytes_before: u64,
    pub hints: Vec<Hint>,
    /// Its body is wanted, too: a reader waits for it.
    pub with_body: bool,
}

impl Draft {
    /// Bytes that it takes in a body, at most.
    pub fn bytes(&self) -> usize {
        self.hints.iter().map(Hint::raw_bytes).sum()
    }

    /// Its hints and the bytes of their payloads.
    pub fn amount(&self) -> Amount {
        let bytes = self.hints.iter().map(|hint| hint.payload.len() as u64);
        Amount {
            hints: self.hints.len() as u64,
            bytes: bytes.sum(),
        }
    }

    /// The last of its sequences.
    pub fn last(&self) -> Sequence {
        Sequence((self.first.0 + self.hints.len() as u64).saturating_sub(1))
    }

    /// Payload bytes of the queue up to and including it.
    pub fn bytes_through(&self) -> u64 {
        self.bytes_before + self.amount().bytes
    }

    /// The earliest enqueue time of its hints.
    pub fn oldest_unix_ms(&self) -> u64 {
        let times = self.hints.iter().map(|hint| hint.enqueued_unix_ms);
        times.min().unwrap_or(u64::MAX)
    }

    /// The earliest end of a lifetime of its hints, `u64::MAX` if none has one.
    pub fn due_unix_ms(&self) -> u64 {
        let dues = self.hints.iter().filter_map(Hint::due_unix_ms);
        dues.min().unwrap_or(u64::MAX)
    }

    /// Cuts off what is over so many bytes, but for one hint at least.
    pub fn split_off(&mut self, bytes: usize) -> Option<Draft> {
        let mut before = 0;
        let over = self.hints.iter().position(|hint| {
            before += hint.raw_bytes();
            before > bytes
        });
        let hints = self.hints.split_off(over?.max(1));
        if hints.is_empty() {
            return None;
        }
        Some(Draft {
            node: self.node,
            queue: self.queue,
            first: Sequence(self.last().0 + 1),
            bytes_before: self.bytes_through(),
            hints,
            with_body: self.with_body,
        })
    }
}
