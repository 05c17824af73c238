//! Flushing: hints of WAL records go into blocks of their queues.
//!
//! A pass begins when many are held, and takes what every queue has at that moment, some with each
//! group, twice as much as comes in at least; so it ends before half as much again has come, and a
//! block has what gathered for its queue since the last pass. What left its queue meanwhile is
//! passed over. Where a pass ends, the cursors of queues in which something was passed over are
//! written, and behind these the cursor of the WAL records: sled recovers a prefix of what it was
//! given, so whatever a crash leaves, a hint stands in a block, or its queue's cursor is past it,
//! or an open finds it in a WAL record and flushes it.

use std::collections::BTreeSet;

use crate::{
    error::StorageError,
    store::{
        commit::{
            committer::Committer,
            encode_pool::Job,
            flush_pass::{Pass, Share},
        },
        failpoints::point,
        format::{
            cursor::Cursor,
            keys::{QueueRef, WAL},
            run::Draft,
        },
    },
    types::{NodeId, Sequence},
};

/// Held when a pass begins. While it goes on half as much comes at most, since a group flushes
/// twice what it brings.
const PASS_FROM_BYTES: usize = 16 * 1024 * 1024;
/// What a group flushes in a pass, if that is more than twice what it brings.
const STEP_BYTES: usize = 512 * 1024;
/// Mostly compressed to one chunk, and little for a reader to hold. With half of it a log of 10 GiB
/// of payload is half as long again.
pub const BLOCK_BYTES: usize = 64 * 1024;

impl Committer {
    /// What a group flushes that brings so many bytes in WAL records.
    pub fn flush_some(&mut self, brought: usize) -> Vec<Job> {
        let from = self.shared.faults.flushes_from(PASS_FROM_BYTES);
        if self.flushing.pass.is_none() && self.shared.memtable.bytes() >= from {
            self.begin_pass();
        }
        let mut left = STEP_BYTES.max(2 * brought);
        let mut jobs = Vec::new();
        while left > 0
            && let Some(draft) = self.next_to_flush()
        {
            left = left.saturating_sub(draft.bytes());
            jobs.push(Job::Flush(draft));
        }
        jobs
    }

    fn begin_pass(&mut self) {
        let queues = self.shared.memtable.queues().into_iter().rev();
        let shares = queues.map(|(queue, through)| Share {
            queue,
            from: Sequence(1),
            through,
        });
        self.flushing.pass = Some(Pass {
            upto: self.flushing.next,
            shares: shares.collect(),
            passed_over: BTreeSet::new(),
        });
    }

    /// The next block of the pass; `None` at its end.
    fn next_to_flush(&mut self) -> Option<Draft> {
        let memtable = &self.shared.memtable;
        let pass = self.flushing.pass.as_mut()?;
        while let Some(share) = pass.shares.last_mut() {
            let known = self.shared.registry.lock().find(share.queue);
            // A queue that is not there is done with.
            let pending = known.map_or(u64::MAX, |queue| queue.cursor.next.0);
            let below = Sequence(pending.saturating_sub(1));
            if memtable.forget(share.queue, share.through.min(below)) {
                pass.passed_over.insert(share.queue);
            }
            let next = memtable.next(share.queue, share.from, share.through, BLOCK_BYTES);
            if let Some(draft) = next {
                share.from = Sequence(draft.last().0 + 1);
                return Some(draft);
            }
            pass.shares.pop();
        }
        None
    }

    /// Where a pass has come to its end, says so on disk. Comes behind the blocks of the group.
    pub fn end_pass(&mut self) -> Result<(), StorageError> {
        let is_over = |pass: &mut Pass| pass.shares.is_empty();
        let Some(pass) = self.flushing.pass.take_if(is_over) else {
            return Ok(());
        };
        let engine = self.engine()?;
        for at in pass.passed_over {
            // Bound first, so that the lock is not held while sled works.
            let known = self.shared.registry.lock().find(at);
            if let Some(queue) = known {
                self.writer()?
                    .put(&engine.hints, &at.cursor_key(), queue.cursor.encode(at))?;
            }
        }
        point("flush: blocks written")?;
        let cursor = Cursor::rebuilt(pass.upto, 0);
        self.writer()?
            .put(&engine.hints, &WAL.cursor_key(), cursor.encode(WAL))?;
        self.flushing.ended = Some(pass.upto);
        point("flush: cursor written")
    }

    /// The group is durable: what is flushed can be trimmed.
    pub fn give_flushed_back(&mut self) {
        if let Some(upto) = self.flushing.ended.take() {
            self.flushing.floor = upto;
            self.trimmer.below(WAL, upto);
        }
    }

    /// Flushes all that is held.
    pub fn flush_memtable(&mut self) -> Result<(), StorageError> {
        while self.flushing.has_work() || !self.shared.memtable.is_empty() {
            if !self.flushing.has_work() {
                self.begin_pass();
            }
            self.group(Vec::new())?;
        }
        Ok(())
    }

    /// A queue of which nothing is left is struck from the list of its node, once no WAL record
    /// can have any hint of it.
    pub fn strike(&mut self, gone: Vec<(NodeId, QueueRef)>) -> Result<(), StorageError> {
        let next = self.flushing.next;
        let gone = gone.into_iter().map(|(node, queue)| (next, node, queue));
        self.flushing.gone.extend(gone);
        let floor = self.flushing.floor;
        let struck: Vec<_> = self
            .flushing
            .gone
            .extract_if(.., |(at, ..)| *at <= floor)
            .collect();
        for (_, node, queue) in struck {
            if let Some(record) = self.records.get_mut(&node) {
                record.retired.retain(|retired| *retired != queue);
                self.write_record(node)?;
            }
        }
        Ok(())
    }
}
