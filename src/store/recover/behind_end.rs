//! Whether what stands behind the end of a log was durable once. Then damage ended the log, and no
//! crash.
//!
//! A store that was not closed has a log that may be torn: of what was handed over since the last
//! fsync some may be on the disk and what came before it not. That is one commit group, since each
//! is fsynced before the next one writes anything. So once there stand records of two groups behind
//! the end, all that is before the second of them was durable, the end included.
//!
//! What a group writes of a queue tells groups apart: new hints in a run of a WAL record, or else
//! in a block, which may be cut in two to be encoded. What may come in any number is left out:
//!
//! - a block that has hints of a WAL record: a pass flushes many of a queue with one group, and an
//!   open flushes all;
//! - a block or a record that stands before the end, too: it was stored again, since it did not
//!   read where it should;
//! - what stands in leaves that sled wrote as a whole: most of it was there before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::Path,
};

use bytes::Bytes;

use crate::{
    store::{
        commit::encode_pool::HALF_BYTES,
        engine::log_entries::{self, LogEntry, entries},
        format::{
            block::{self, HINT_OVERHEAD_BYTES_MAX, Header},
            chunks::Chunks,
            cursor::Cursor,
            keys::{Key, QueueRef, WAL},
            run::Draft,
        },
    },
    types::{QueueId, Sequence},
};

/// The same as [`find`], for an open, which is to be fast: where sled would end the log, if damage
/// ended it. All of the log is read only where more than one block of a queue stands behind that,
/// or a WAL record and a block.
pub fn damaged_at(log: &Path) -> io::Result<Option<u64>> {
    let end = log_entries::end(log)?;
    // sled finds no log at all there, and opens nothing: what becomes of that is the host's choice.
    if end == 0 {
        return Ok(None);
    }
    let mut blocks: HashMap<QueueId, HashSet<Sequence>> = HashMap::new();
    log_entries::new_values_behind(log, end, |value| {
        if let Some((queue, first)) = block::named_in(value) {
            blocks.entry(queue).or_default().insert(first);
        }
    })?;
    let is_with_wal = blocks.contains_key(&WAL.queue) && blocks.len() > 1;
    if !is_with_wal && blocks.values().all(|firsts| firsts.len() < 2) {
        return Ok(None);
    }
    Ok(find(log, end)?.map(|_| end))
}

/// How many hints are intact behind `end`, a log sequence number, of which nothing says that they
/// left: what damage has cut off. `None` if a crash may have left it so.
pub fn find(log: &Path, end: u64) -> io::Result<Option<u64>> {
    let mut found = Behind::default();
    entries(log, |entry| {
        if entry.lsn >= end {
            found.see(entry, true);
        }
    })?;
    if !found.tells_of_two_groups() {
        return Ok(None);
    }
    entries(log, |entry| {
        if entry.lsn < end {
            found.see(entry, false);
        }
    })?;
    Ok(found.tells_of_two_groups().then(|| found.hints()))
}

/// A block, as far as it stands behind the end.
#[derive(Debug, Default)]
struct FoundBlock {
    header: Option<Header>,
    chunks: BTreeSet<u16>,
    is_new: bool,
    is_before: bool,
}

/// Hints of a queue in a WAL record.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The number of the record.
    record: Sequence,
    first: Sequence,
    last: Sequence,
    is_new: bool,
}

#[derive(Debug, Default)]
struct Behind {
    blocks: HashMap<QueueRef, BTreeMap<Sequence, FoundBlock>>,
    runs: HashMap<QueueRef, Vec<Run>>,
    /// The same of WAL records before the end.
    runs_before: HashMap<QueueRef, Vec<Run>>,
    records: WalAssembly,
    records_before: WalAssembly,
    /// The furthest of each queue.
    cursors: HashMap<QueueRef, Cursor>,
}

impl Behind {
    fn see(&mut self, entry: LogEntry<'_>, is_behind: bool) {
        let (queue, first, chunk) = match Key::parse(entry.key) {
            Some(Key::Cursor(queue)) => return self.see_cursor(queue, entry.value),
            Some(Key::Chunk {
                queue,
                first,
                chunk,
            }) => (queue, first, chunk),
            _ => return,
        };
        // A padding key is no chunk.
        if entry.value.is_empty() {
            return;
        }
        match (queue, is_behind) {
            (WAL, true) => {
                for (queue, run) in self.records.add(first, chunk, entry) {
                    self.runs.entry(queue).or_default().push(run);
                }
            }
            (WAL, false) => {
                for (queue, run) in self.records_before.add(first, chunk, entry) {
                    // Only of these it is asked.
                    if self.blocks.contains_key(&queue) || self.runs.contains_key(&queue) {
                        self.runs_before.entry(queue).or_default().push(run);
                    }
                }
            }
            (_, true) => {
                let block = self.blocks.entry(queue).or_default();
                let block = block.entry(first).or_default();
                block.chunks.insert(chunk);
                if chunk == 0 {
                    block.header = Header::parse(queue, first, entry.value).ok();
                    block.is_new |= entry.is_new;
                }
            }
            (_, false) => {
                let blocks = self.blocks.get_mut(&queue);
                if let Some(block) = blocks.and_then(|it| it.get_mut(&first)) {
                    block.chunks.insert(chunk);
                    block.is_before |= chunk == 0;
                }
            }
        }
    }

    fn see_cursor(&mut self, queue: QueueRef, value: &[u8]) {
        let Ok(cursor) = Cursor::decode(queue, value) else {
            return;
        };
        let known = self.cursors.entry(queue).or_insert_with(Cursor::start);
        if known.gone().hints <= cursor.gone().hints {
            *known = cursor;
        }
    }

    fn tells_of_two_groups(&self) -> bool {
        let mut queues = self.blocks.keys().chain(self.runs.keys());
        queues.any(|queue| self.is_of_two_groups(*queue))
    }

    fn is_of_two_groups(&self, queue: QueueRef) -> bool {
        let runs = self.new_runs(queue).filter(|run| run.is_new).count();
        let blocks = self.new_blocks(queue).filter(|(block, _)| block.is_new);
        let blocks = blocks.filter(|(_, header)| !holds(&self.runs, queue, header.first));
        let blocks: Vec<&Header> = blocks.map(|(_, header)| header).collect();
        match (runs, blocks.as_slice()) {
            (0, [] | [_]) | (1, []) => false,
            (0, [one, other]) => !may_be_halves(one, other),
            _ => true,
        }
    }

    /// Runs that no record before the end has.
    fn new_runs(&self, queue: QueueRef) -> impl Iterator<Item = &Run> {
        let runs = self.runs.get(&queue).into_iter().flatten();
        runs.filter(|run| !self.records_before.has(run.record))
    }

    /// Blocks with hints that nothing before the end has.
    fn new_blocks(&self, queue: QueueRef) -> impl Iterator<Item = (&FoundBlock, &Header)> {
        let blocks = self.blocks.get(&queue).into_iter().flatten();
        let blocks = blocks.filter(|(_, block)| !block.is_before);
        blocks
            .filter_map(|(_, block)| Some((block, block.header.as_ref()?)))
            .filter(move |(_, header)| !holds(&self.runs_before, queue, header.first))
    }

    /// How many hints are intact behind the end only.
    fn hints(&self) -> u64 {
        let queues: HashSet<QueueRef> = self
            .blocks
            .keys()
            .chain(self.runs.keys())
            .copied()
            .collect();
        queues.into_iter().map(|queue| self.hints_of(queue)).sum()
    }

    fn hints_of(&self, queue: QueueRef) -> u64 {
        let is_whole = |(block, header): &(&FoundBlock, &Header)| {
            block.chunks.len() >= usize::from(header.chunks)
        };
        let blocks = self.new_blocks(queue).filter(is_whole);
        let mut ranges: Vec<(Sequence, Sequence)> = blocks
            .map(|(_, header)| (header.first, header.last()))
            .chain(self.new_runs(queue).map(|run| (run.first, run.last)))
            .collect();
        ranges.sort_unstable();
        let start = Cursor::start();
        let cursor = self.cursors.get(&queue).unwrap_or(&start);
        let (mut next, mut hints) = (cursor.next.0, 0);
        for (first, last) in ranges {
            let first = first.0.max(next);
            if first > last.0 {
                continue;
            }
            let gone = cursor.gone_from(Sequence(first));
            let gone = gone.take_while(|it| it.first <= last);
            let gone = gone.map(|it| it.last.0.min(last.0) + 1 - it.first.0.max(first));
            hints += (last.0 + 1 - first).saturating_sub(gone.sum());
            next = last.0.saturating_add(1);
        }
        hints
    }
}

/// Whether a run of the queue has the hint.
fn holds(runs: &HashMap<QueueRef, Vec<Run>>, queue: QueueRef, first: Sequence) -> bool {
    let mut runs = runs.get(&queue).into_iter().flatten();
    runs.any(|run| (run.first..=run.last).contains(&first))
}

/// Whether one group may have both blocks of a queue: what it has is cut in two if it is worth it.
fn may_be_halves(one: &Header, other: &Header) -> bool {
    let bytes = |it: &Header| it.raw_bytes as usize + it.hints as usize * HINT_OVERHEAD_BYTES_MAX;
    let follow = one.last().0.checked_add(1) == Some(other.first.0);
    follow && bytes(one) + bytes(other) > HALF_BYTES
}

/// WAL records, put together from their chunks.
#[derive(Debug, Default)]
struct WalAssembly {
    parts: BTreeMap<Sequence, Chunks>,
    whole: BTreeSet<Sequence>,
    /// Those whose chunk 0, which comes last, was written there.
    new: BTreeSet<Sequence>,
}

impl WalAssembly {
    fn has(&self, record: Sequence) -> bool {
        self.whole.contains(&record)
    }

    /// The runs of a record that this chunk makes whole.
    fn add(&mut self, record: Sequence, chunk: u16, entry: LogEntry<'_>) -> Vec<(QueueRef, Run)> {
        if self.whole.contains(&record) {
            return Vec::new();
        }
        if chunk == 0 && entry.is_new {
            self.new.insert(record);
        }
        let parts = self.parts.entry(record).or_default();
        parts.insert(chunk, Bytes::copy_from_slice(entry.value));
        let Ok((_, drafts)) = parts.wal_record(record) else {
            return Vec::new();
        };
        self.parts.remove(&record);
        self.whole.insert(record);
        let is_new = self.new.contains(&record);
        let run = |draft: Draft| {
            let run = Run {
                record,
                first: draft.first,
                last: draft.last(),
                is_new,
            };
            (draft.queue, run)
        };
        drafts.into_iter().map(run).collect()
    }
}
