//! Peeking: a bounded range of durable hints from the head of a node's queue.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    error::{HandoffError, StorageError},
    stats::Health,
    store::{
        engine::{
            blocks::{NO_BLOCK, ReadError},
            generation::{Engine, panic_text},
            read_ahead, table,
        },
        format::{
            block::{Block, Hint},
            keys::{Place, QueueRef},
            peeked::{Mark, PeekedHint},
        },
        pipeline::shared::Shared,
        state::queue::Stretch,
    },
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
    /// The hint here could not be read. If it is at the queue's cursor, ask the commit thread to
    /// scrub it, then peek again.
    Damaged(Place),
}

/// Reads one node's queue; keeps the block it is in the middle of, and what was read with it.
#[derive(Debug, Default)]
pub struct Reader {
    block: Option<Block>,
    following: VecDeque<Block>,
}

impl Reader {
    /// Reads what the registry says is there to read for a node: hints of one queue, in order, up
    /// to the end of the stretch.
    pub fn peek(
        &mut self,
        shared: &Shared,
        node: NodeId,
        stretch: Option<Stretch>,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let Some(stretch) = stretch else {
            self.forget();
            shared.recent.wait_for(node);
            return Ok(Peek::Empty);
        };
        let engine = shared.engine()?;
        // docs/sled.md rule 10: a damaged file may make a read panic.
        let read = catch_unwind(AssertUnwindSafe(|| {
            self.read(shared, &engine, &stretch, limits)
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

    /// Gives the memory of what it keeps back.
    pub fn forget(&mut self) {
        *self = Reader::default();
    }

    fn read(
        &mut self,
        shared: &Shared,
        engine: &Engine,
        stretch: &Stretch,
        limits: PeekLimits,
    ) -> Result<Peek, table::Error> {
        let (queue, watermark) = (stretch.at, stretch.watermark);
        let mut gone = stretch.gone.iter().peekable();
        let mut peeked: Vec<PeekedHint> = Vec::new();
        let mut bytes = 0;
        let mut next = stretch.from;
        loop {
            while let Some(range) = gone.next_if(|range| range.first <= next) {
                next = next.max(Sequence(range.last.0 + 1));
            }
            if next > watermark {
                break;
            }
            // What left stands in between: its bytes count, and it is not peeked at.
            let until = gone.peek().map_or(watermark, |range| {
                watermark.min(Sequence(range.first.0 - 1))
            });
            let left = PeekLimits {
                hints: limits.hints.saturating_sub(peeked.len()),
                payload_bytes: limits.payload_bytes.saturating_sub(bytes),
            };
            let block = match self.block_at(shared, engine, queue, next..=until, left) {
                Ok(block) => block,
                Err(ReadError::Engine(error)) => return Err(error),
                Err(ReadError::Damaged(_)) if peeked.is_empty() => {
                    return Ok(Peek::Damaged(Place {
                        queue,
                        sequence: next,
                    }));
                }
                Err(ReadError::Damaged(_)) => break,
            };
            let skipped = (next.0 - block.header.first.0) as usize;
            let (before, rest) = block.hints.split_at(skipped.min(block.hints.len()));
            let mut bytes_through = block.header.bytes_before + payload_bytes(before);
            for hint in rest {
                // What has left is not measured either.
                if next > until {
                    break;
                }
                let length = hint.payload_bytes();
                let over = bytes + length > limits.payload_bytes || peeked.len() >= limits.hints;
                if over && !peeked.is_empty() {
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
        match peeked.is_empty() {
            true => Ok(Peek::Empty),
            false => Ok(Peek::Hints(peeked)),
        }
    }

    /// The block that the first of these sequences stands in; up to the last of them, and so much,
    /// is wanted.
    fn block_at(
        &mut self,
        shared: &Shared,
        engine: &Engine,
        queue: QueueRef,
        sequences: RangeInclusive<Sequence>,
        wanted: PeekLimits,
    ) -> Result<&Block, ReadError> {
        let sequence = *sequences.start();
        let holds = |block: &Block| {
            let range = block.header.first..=block.header.last();
            block.queue == queue && range.contains(&sequence)
        };
        let mut kept = self.block.take().filter(holds);
        while kept.is_none()
            && let Some(block) = self.following.pop_front()
        {
            kept = Some(block).filter(holds);
        }
        let held = kept.or_else(|| shared.recent.take(queue, sequence));
        let held = held.or_else(|| shared.memtable.read(queue, sequence));
        let block = match held {
            Some(block) => block,
            None => {
                let (hints, bytes) = (wanted.hints, wanted.payload_bytes);
                let read = read_ahead::read(&engine.hints, queue, sequences, hints, bytes)?;
                self.following = read;
                let first = self.following.pop_front();
                first.ok_or(ReadError::Damaged(NO_BLOCK))?
            }
        };
        Ok(self.block.insert(block))
    }
}

fn payload_bytes(hints: &[Hint]) -> u64 {
    hints.iter().map(Hint::payload_bytes).sum()
}
