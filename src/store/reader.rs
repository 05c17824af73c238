//! Peeking: a bounded range of durable hints from the head of a node's queue.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    block::StoredHint,
    blocks::{self, Block, ReadError},
    engine::{Engine, panic_text},
    keys::QueueRef,
    shared::Shared,
};
use crate::{
    error::{HandoffError, StorageError},
    stats::Health,
    types::{NodeId, Sequence},
};

/// How much a peek may return; at least one hint is, however large.
#[derive(Debug, Clone, Copy)]
pub struct PeekLimits {
    /// Hints.
    pub hints: usize,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
}

/// What is at the head of a node's queue.
#[derive(Debug)]
pub enum Peek {
    /// Nothing is pending.
    Empty,
    /// Consecutive hints of one queue.
    Hints(Vec<PeekedHint>),
    /// The hint at the cursor could not be read. Ask the commit thread to judge it, then peek again.
    Damaged(QueueRef),
}

/// A hint, and the place to acknowledge once it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekedHint {
    /// Its place.
    pub mark: Mark,
    /// The hint itself.
    pub hint: StoredHint,
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

/// Reads one node's queue; keeps the block it is in the middle of.
#[derive(Debug, Default)]
pub struct Reader {
    block: Option<Block>,
}

impl Reader {
    /// Reads from the cursor of the node's first queue with something pending, up to its watermark.
    pub fn peek(
        &mut self,
        shared: &Shared,
        node: NodeId,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let front = shared
            .registry
            .lock()
            .nodes
            .get(&node)
            .and_then(|it| it.front());
        let Some(front) = front else {
            self.forget();
            return Ok(Peek::Empty);
        };
        let engine = shared.engine()?;
        // SLED.md rule 10: a damaged file may make a read panic.
        let read = catch_unwind(AssertUnwindSafe(|| {
            self.read_from(
                &engine,
                front.at,
                front.cursor.next,
                front.watermark,
                limits,
            )
        }));
        match read {
            Ok(Ok(peeked)) => Ok(peeked),
            Ok(Err(error)) => {
                let cause = StorageError::new("read hints", error);
                shared.fail(Health::Failed(cause.clone()));
                Err(cause.into())
            }
            Err(panic) => {
                let cause = StorageError::new("read hints", panic_text(panic.as_ref()));
                shared.fail(Health::RestartRequired(cause.clone()));
                Err(cause.into())
            }
        }
    }

    /// Gives the kept block's memory back.
    pub fn forget(&mut self) {
        self.block = None;
    }

    fn read_from(
        &mut self,
        engine: &Engine,
        queue: QueueRef,
        from: Sequence,
        watermark: Sequence,
        limits: PeekLimits,
    ) -> Result<Peek, sled::Error> {
        let mut peeked: Vec<PeekedHint> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next <= watermark {
            let block = match self.block_at(engine, queue, next) {
                Ok(block) => block,
                Err(ReadError::Engine(error)) => return Err(error),
                Err(ReadError::Damaged(_)) if peeked.is_empty() => return Ok(Peek::Damaged(queue)),
                Err(ReadError::Damaged(_)) => break,
            };
            let skipped = (next.0 - block.header.first.0) as usize;
            let (before, rest) = block.hints.split_at(skipped.min(block.hints.len()));
            let mut bytes_through = block.header.bytes_before + payload_bytes(before);
            for hint in rest {
                let length = hint.payload.len() as u64;
                let over = bytes + length > limits.payload_bytes || peeked.len() >= limits.hints;
                if next > watermark || (over && !peeked.is_empty()) {
                    return Ok(Peek::Hints(peeked));
                }
                bytes += length;
                bytes_through += length;
                peeked.push(PeekedHint {
                    mark: Mark {
                        queue,
                        sequence: next,
                        bytes_through,
                    },
                    hint: hint.clone(),
                });
                next = Sequence(next.0 + 1);
            }
        }
        Ok(Peek::Hints(peeked))
    }

    fn block_at(
        &mut self,
        engine: &Engine,
        queue: QueueRef,
        sequence: Sequence,
    ) -> Result<&Block, ReadError> {
        let holds = |block: &Block| {
            let range = block.header.first..=block.header.last();
            block.queue == queue && range.contains(&sequence)
        };
        let block = match self.block.take() {
            Some(block) if holds(&block) => block,
            _ => blocks::read_covering(&engine.hints, queue, sequence)?,
        };
        Ok(self.block.insert(block))
    }
}

fn payload_bytes(hints: &[StoredHint]) -> u64 {
    hints.iter().map(|hint| hint.payload.len() as u64).sum()
}
