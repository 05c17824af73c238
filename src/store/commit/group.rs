//! One commit group: blocks, cursors, trims; one flush and fsync; watermarks and answers.
//!
//! But for transactions nothing in a group needs several keys to change as one, so all are plain
//! inserts in an order whose every prefix is sound, and sled recovers a prefix: the queue id
//! counter before the record that lists the new queue, the record before the queue's first block, a
//! block's chunk 0 after its other chunks, a cursor before what it lets be trimmed.
//!
//! The rows of all transactions of a group, the cursors they move and the blocks with their hints
//! are one transaction of sled's: one a group (docs/sled.md rule 4), so that it costs little more
//! than the group itself.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use crate::{
    error::StorageError,
    store::{
        bounds::GROUP_BYTES,
        commit::{
            accepted::Accepted,
            committer::{Committer, closed},
            encode_pool::Job,
            plan::Plan,
            publish::{Moved, NewHints, Stored},
            write_batch::AcceptedGroup,
        },
        engine::meta,
        failpoints::{Safeguard, is_off, point},
        format::{
            cursor::Leave, encoder::EncodedBlock, keys::CHUNK_KEY_BYTES, node_record::NodeRecord,
            node_status::Status, peeked::PeekedHint,
        },
        pipeline::{
            batch::WriteBatch,
            ticket::{Entry, Refusal},
        },
        state::queue::Queue,
    },
    types::{NodeId, Sequence},
};

/// Cursors beyond this wait for the next group.
const CURSORS_PER_GROUP: usize = 500;
/// Statuses beyond this wait for the next group; each may take some kilobytes.
const STATUS_BYTES_PER_GROUP: usize = 128 * 1024;
/// A full group trims so many times what it brings: what waits to be trimmed becomes less however
/// fast hints come. Removing writes little, and what it does write counts like all else (see
/// `growth.rs`).
const TRIMS_PER_BROUGHT: usize = 2;
/// Left free by trims, for the records that go with them.
const TRIM_MARGIN_BYTES: usize = 32 * 1024;

impl Committer {
    /// Commits `entries` with whatever cursors and trims wait.
    pub fn group(&mut self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let began = Instant::now();
        let entries = entries.into_iter().map(|it| (it.batch, it.ticket));
        let (batches, tickets): (Vec<_>, Vec<_>) = entries.unzip();
        // From here on the watchdog can answer whoever waits.
        self.shared.tickets.begin(tickets);
        let batches = self.refuse_below_reserve(batches);
        let AcceptedGroup {
            hints,
            mut accepted,
        } = self.accept(batches)?;
        // These may use the disk reserve.
        let not_stored = self.shared.not_stored.take();
        for loss in not_stored.losses() {
            self.journal.record(loss, &mut accepted.losses);
        }
        let span = tracing::debug_span!(
            "commit_group",
            hints = hints.len(),
            transactions = accepted.several,
            written_bytes = tracing::field::Empty
        );
        let _entered = span.enter();
        let plan = self.plan(hints, &mut accepted)?;
        if !plan.blocks.is_empty() {
            point("append: planned")?;
        }
        let brought = plan.blocks.iter().map(|(_, block)| block.bytes()).sum();
        let new = NewHints {
            not_stored,
            ..self.write(plan, accepted)?
        };
        let reserved = self.shared.tickets.answer_early();
        let moved = self.write_cursors(&new.stillborn)?;
        self.end_pass()?;
        self.write_statuses()?;
        self.trim(brought)?;
        let writer = self.writer()?;
        span.record("written_bytes", writer.handed_bytes());
        if writer.handed_bytes() > 0 && !is_off(Safeguard::GroupCommits) {
            writer.commit()?;
        }
        self.publish(new, moved, reserved);
        self.shared.counters.group_times.note(began.elapsed());
        point("commit: published")
    }

    /// Refuses what the disk has no room for, but for hints whose callers were told that they are
    /// in, and for what makes room. Transactions that take hints by hand may use half of the
    /// reserve for what they make of them, lest draining comes to a stand.
    fn refuse_below_reserve(&self, batches: Vec<WriteBatch>) -> Vec<(usize, WriteBatch)> {
        let mut places: Vec<_> = batches.into_iter().enumerate().collect();
        let makes_room = |batch: &WriteBatch| batch.is_promised || batch.only_removes();
        if places.iter().all(|(_, batch)| makes_room(batch)) {
            return places;
        }
        let Some(shortage) = self.shared.space.shortage() else {
            return places;
        };
        let goes_on =
            |batch: &WriteBatch| makes_room(batch) || (shortage.is_half() && batch.drains());
        let counter = &self.shared.counters.refused_for_space;
        for (place, batch) in places.extract_if(.., |(_, batch)| !goes_on(batch)) {
            counter.fetch_add(batch.hints.len() as u64, Relaxed);
            let refusal = Refusal::Enqueue(shortage.refusal());
            self.shared.tickets.refuse(place, refusal);
        }
        places
    }

    fn write(&mut self, plan: Plan, mut accepted: Accepted) -> Result<NewHints, StorageError> {
        self.write_new_queues(&plan.new_queues)?;
        self.note_lifetimes(&plan)?;
        self.write_padding(&plan.padding)?;
        let is_plain = accepted.is_plain();
        let mut new = NewHints {
            stillborn: std::mem::take(&mut accepted.stillborn),
            evicted: std::mem::take(&mut accepted.evicted),
            ended: plan.ended,
            ..NewHints::default()
        };
        let mut as_one = Vec::new();
        for (job, mut block) in plan.blocks {
            match job {
                Job::Block(draft) => {
                    new.written.push(Stored::of_block(&draft, &mut block));
                    match is_plain {
                        true => self.write_block(block)?,
                        false => as_one.push(block),
                    }
                }
                Job::Wal(draft) => {
                    tracing::debug!(
                        runs = draft.runs.len(),
                        hints = draft.hints(),
                        written_bytes = block.bytes(),
                        "WAL record"
                    );
                    self.write_block(block)?;
                    point("append: WAL record written")?;
                    let written = draft.runs.iter().map(|run| Stored::of(run, None));
                    new.written.extend(written);
                    new.for_memtable.extend(draft.runs);
                }
                Job::Flush(draft) => {
                    self.write_block(block)?;
                    point("flush: block written")?;
                    self.shared.memtable.forget(draft.queue, draft.last());
                }
            }
        }
        if !is_plain {
            self.write_as_one(as_one, accepted)?;
        }
        Ok(new)
    }

    /// A queue that is listed and has no block is sound, so these need not be part of any
    /// transaction.
    fn write_new_queues(&mut self, nodes: &[NodeId]) -> Result<(), StorageError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let next = self.next_queue;
        meta::set_next_queue(self.writer()?, next)?;
        for node in nodes {
            point("append: queue counter written")?;
            self.write_record(*node)?;
            point("append: node record written")?;
        }
        Ok(())
    }

    /// The first hint with a lifetime of its own: whoever opens the store is to look for such
    /// hints. Before the hint, so it stands in the log wherever that does.
    fn note_lifetimes(&mut self, plan: &Plan) -> Result<(), StorageError> {
        let has_any = || plan.blocks.iter().any(|(job, _)| job.has_lifetimes());
        if self.lifetimes_are_noted || !has_any() {
            return Ok(());
        }
        let noted = meta::has_lifetimes(&*self.engine()?);
        if !noted.map_err(|error| StorageError::new("read whether hints have lifetimes", error))? {
            meta::set_lifetimes(self.writer()?)?;
        }
        self.lifetimes_are_noted = true;
        Ok(())
    }

    /// Chunks of no block, so these need not be part of any transaction either.
    fn write_padding(&mut self, keys: &[[u8; CHUNK_KEY_BYTES]]) -> Result<(), StorageError> {
        if keys.is_empty() {
            return Ok(());
        }
        let engine = self.engine()?;
        for key in keys {
            self.writer()?.put(&engine.hints, key, Vec::new())?;
        }
        point("append: padding written")
    }

    pub fn write_block(&mut self, block: EncodedBlock) -> Result<(), StorageError> {
        let engine = self.engine()?;
        // One larger than a group commits alone: `Writer::put` fsyncs its chunks in sub-groups, and
        // they are durable before chunk 0 makes the block valid.
        let alone = block.bytes() > GROUP_BYTES;
        let mut writes = block.into_writes().peekable();
        while let Some((key, value)) = writes.next() {
            if alone && writes.peek().is_none() {
                self.writer()?.commit()?;
            }
            self.writer()?.put(&engine.hints, &key, value)?;
            point("append: chunk written")?;
        }
        point("append: block written")
    }

    pub fn write_record(&mut self, node: NodeId) -> Result<(), StorageError> {
        let Some(value) = self.records.get(&node).map(|record| record.encode(node)) else {
            return Ok(());
        };
        let engine = self.engine()?;
        self.writer()?
            .put(&engine.nodes, &NodeRecord::key(node), value)
    }

    fn write_statuses(&mut self) -> Result<(), StorageError> {
        let engine = self.engine()?;
        let mut written = 0;
        while written < STATUS_BYTES_PER_GROUP {
            let Some(node) = self.statuses.pop_first() else {
                break;
            };
            let status = {
                let registry = self.shared.registry.lock();
                registry.nodes.get(&node).map(|it| it.status.encode(node))
            };
            // A node that was removed has none.
            if let Some(status) = status {
                written += status.len();
                self.writer()?
                    .put(&engine.nodes, &Status::key(node), status)?;
            }
        }
        Ok(())
    }

    /// Writes the cursors that moved, and retires queues that are drained and take no new hints.
    /// `stillborn` are gone from their queues on disk, and the registry does not know them yet.
    fn write_cursors(
        &mut self,
        stillborn: &[(NodeId, PeekedHint, Leave)],
    ) -> Result<Vec<Moved>, StorageError> {
        let engine = self.engine()?;
        let mut moved = Vec::new();
        while moved.len() < CURSORS_PER_GROUP {
            let Some((node, at)) = self.dirty.pop_first() else {
                break;
            };
            // Bound first, so that the lock is not held while sled works.
            let queue = self.shared.registry.lock().stored(node, at);
            let mut left = stillborn
                .iter()
                .filter(|(_, it, _)| it.mark.queue == at)
                .peekable();
            // A queue that begins with this group is not there yet.
            let begun = || left.peek().map(|_| Queue::new(at, Sequence(0), 0));
            let Some(mut queue) = queue.or_else(begun) else {
                continue;
            };
            for (_, hint, leave) in left {
                let bytes = hint.hint.payload_bytes();
                queue.cursor.leave(hint.mark.sequence, bytes, *leave);
            }
            self.writer()?
                .put(&engine.hints, &at.cursor_key(), queue.cursor.encode(at))?;
            point("ack: cursor written")?;
            self.forget_redriven(&queue)?;
            let retired = queue.closed && queue.is_drained();
            if retired && let Some(record) = self.records.get_mut(&node) {
                record.live.retain(|live| *live != at);
                record.retired.push(at);
                self.write_record(node)?;
                point("ack: queue retired")?;
            }
            moved.push(Moved {
                node,
                queue: at,
                next: queue.cursor.next,
                retired,
            });
        }
        Ok(moved)
    }

    /// Removes what the rest of the group allows, or a multiple of what it brought.
    fn trim(&mut self, brought: usize) -> Result<(), StorageError> {
        if !self.trimmer.has_work() {
            return Ok(());
        }
        let writer = self.writer.as_mut().ok_or_else(closed)?;
        let rest = GROUP_BYTES.saturating_sub(writer.handed_bytes() + TRIM_MARGIN_BYTES);
        let budget = rest.max(TRIMS_PER_BROUGHT * brought);
        let queues = self.trimmer.queues_of_group(brought > GROUP_BYTES / 2);
        let trimmed = self.trimmer.step(writer, budget, queues, &self.records)?;
        if trimmed.bytes > 0 {
            point("trim: removed")?;
        }
        self.strike(trimmed.gone)
    }
}
