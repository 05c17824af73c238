//! The pending hints of a queue in order, from wherever they stand: a block, a WAL record, or a
//! copy that the log has still.

use std::collections::BTreeMap;

use crate::{
    error::StorageError,
    store::{
        engine::log_tree::LogTree,
        format::{
            block::Hint,
            chunks::Chunks,
            keys::{Keyspace, QueueRef},
            run::Draft,
        },
        offline::{
            blocks::{BlockStream, Copies, copies, last_start},
            place::{ClosedPlace, unread},
        },
        state::queue::Queue,
    },
    types::Sequence,
};

/// Some hints of a queue that follow each other, or are missing.
#[derive(Debug)]
pub enum Piece {
    /// They read.
    Hints(Vec<(Sequence, Hint)>),
    /// They read only in a copy that sled does not find; what is wrong with the one that it does.
    Rescued(Vec<(Sequence, Hint)>, String),
    /// No copy reads of the first through the last, and why.
    Missing(Sequence, Sequence, String),
}

/// Where the hints of a queue come from.
#[derive(Debug)]
pub struct QueuePieces<'a> {
    place: &'a ClosedPlace,
    queue: &'a Queue,
    /// The lowest that was not given out.
    next: Sequence,
    blocks: BlockStream<'a>,
    ahead: Option<(Sequence, Chunks)>,
    runs: &'a [Draft],
    /// No block that is missing starts below.
    low: Sequence,
    /// What was wrong with the block that was read last.
    damaged: Option<String>,
    rescued: Option<Copies>,
}

impl<'a> QueuePieces<'a> {
    pub fn new(
        place: &'a ClosedPlace,
        tree: &'a LogTree,
        queue: &'a Queue,
        runs: &'a BTreeMap<QueueRef, Vec<Draft>>,
        from: Sequence,
    ) -> Result<QueuePieces<'a>, StorageError> {
        let next = queue.cursor.next.max(from);
        let behind = Sequence(next.0.saturating_add(1));
        let start = last_start(tree, queue.at, &queue.at.chunk_key(behind, 0)).map_err(unread)?;
        let start = start.unwrap_or(Sequence(0));
        Ok(QueuePieces {
            place,
            queue,
            next,
            blocks: BlockStream::new(tree, queue.at, start),
            ahead: None,
            runs: runs.get(&queue.at).map_or(&[], Vec::as_slice),
            low: start,
            damaged: None,
            rescued: None,
        })
    }

    /// What comes next; `None` behind the last hint.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, StorageError> {
        loop {
            if self.next > self.queue.watermark {
                return Ok(None);
            }
            if let Some(gone) = self.queue.cursor.gone_with(self.next) {
                self.next = Sequence(gone.last.0.saturating_add(1));
                continue;
            }
            if self.ahead.is_none() {
                self.ahead = self.blocks.next_block().map_err(unread)?;
            }
            let (first, chunks) = match self.ahead.take() {
                Some(block) if block.0 <= self.next => block,
                later => {
                    self.ahead = later;
                    return self.fill().map(Some);
                }
            };
            match chunks.block(self.queue.at, first) {
                Ok(block) => {
                    let behind = Sequence(block.header.last().0.saturating_add(1));
                    self.low = self.low.max(behind);
                    if behind > self.next {
                        return Ok(Some(Piece::Hints(self.take(first, block.hints))));
                    }
                }
                Err(error) => {
                    self.damaged = Some(format!("the block that begins at {first}: {error}"));
                }
            }
        }
    }

    /// What is pending of hints that follow each other from `first` on.
    fn take(&mut self, first: Sequence, hints: Vec<Hint>) -> Vec<(Sequence, Hint)> {
        let numbered = (first.0..).map(Sequence).zip(hints);
        let next = self.next;
        let is_pending = |(sequence, _): &(Sequence, Hint)| {
            *sequence >= next && !self.queue.cursor.is_gone(*sequence)
        };
        let (mut last, mut pending) = (next, Vec::new());
        for hint in numbered {
            last = last.max(hint.0);
            if is_pending(&hint) {
                pending.push(hint);
            }
        }
        self.next = Sequence(last.0.saturating_add(1));
        pending
    }

    /// What there is, from the next hint on, where no block has it.
    fn fill(&mut self) -> Result<Piece, StorageError> {
        let before = |sequence: Sequence| Sequence(sequence.0.saturating_sub(1));
        let mut upto = self.queue.watermark;
        if let Some((first, _)) = &self.ahead {
            upto = upto.min(before(*first));
        }
        if let Some(gone) = self.queue.cursor.gone_from(self.next).next() {
            upto = upto.min(before(gone.first));
        }
        let later = self.runs.partition_point(|run| run.first <= self.next);
        let (begun, later) = self.runs.split_at_checked(later).unwrap_or_default();
        if let Some(run) = begun.last().filter(|run| run.last() >= self.next) {
            let hints = run.hints.iter().cloned();
            let upto = (upto.0.saturating_add(1)).saturating_sub(run.first.0);
            let hints = hints.take(usize::try_from(upto).unwrap_or(usize::MAX));
            let hints = hints.collect();
            return Ok(Piece::Hints(self.take(run.first, hints)));
        }
        if let Some(run) = later.first() {
            upto = upto.min(before(run.first));
        }
        self.rescue(upto)
    }

    /// Looks for a copy of what no block and no WAL record has.
    fn rescue(&mut self, mut upto: Sequence) -> Result<Piece, StorageError> {
        let at = self.queue.at;
        if self
            .rescued
            .as_ref()
            .is_none_or(|it| it.through < self.next)
        {
            let log = self.place.log();
            // All at once, for the holes behind this one, too.
            let wanted = (self.low, self.next, self.queue.watermark);
            self.rescued = Some(copies(&log, Keyspace::Queue, at, wanted)?);
        }
        let why = self.damaged.clone();
        let why = why.unwrap_or_else(|| "no block holds them".to_owned());
        let Some(copies) = &mut self.rescued else {
            return Ok(Piece::Missing(self.next, upto, why));
        };
        upto = upto.min(copies.through);
        while let Some((first, chunks)) = copies.blocks.pop_first() {
            let Ok(block) = chunks.block(at, first) else {
                continue;
            };
            if block.header.last() < self.next {
                continue;
            }
            if first <= self.next {
                let hints = self.take(first, block.hints);
                self.low = self.next;
                return Ok(Piece::Rescued(hints, why));
            }
            upto = upto.min(Sequence(first.0 - 1));
            copies.blocks.insert(first, chunks);
            break;
        }
        let upto = upto.max(self.next);
        let missing = Piece::Missing(self.next, upto, why);
        self.next = Sequence(upto.0.saturating_add(1));
        self.low = self.next;
        Ok(missing)
    }
}

#[cfg(test)]
mod tests;
