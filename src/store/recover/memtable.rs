//! Flushing what an open finds in WAL records: hints that a crash left in no block of their queue.
//!
//! It comes before all else that an open looks at, so that the rest of an open knows blocks of
//! queues only. Whatever is in a block already, has left its queue, or is of a queue that is done
//! with, is passed over; so it can die anywhere and be done again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
};

use crate::{
    error::{OpenError, StorageError},
    stats::Damage,
    store::{
        commit::flush::BLOCK_BYTES,
        engine::{
            blocks::{self, ReadError},
            generation::{Engine, classify},
            log_search,
            table::{self, IVec},
            writer::Writer,
        },
        failpoints::{Safeguard, is_off, point},
        format::{
            block::Hint,
            cursor::Cursor,
            encoder::Encoder,
            keys::{QueueRef, WAL},
            node_record::NodeRecord,
            node_status::Status,
            run::Draft,
        },
    },
    types::{NodeId, Sequence},
};

/// Numbers skipped after an unclean stop: those given out just before it may have left no trace
/// that is found, but may have in the log.
const NUMBERS_SKIPPED: u64 = 1 << 32;

/// What was found.
pub struct Found {
    /// The number of the next hint in a WAL record; all below are done with.
    pub next: Sequence,
    /// What did not read.
    pub damage: Vec<Damage>,
}

/// The WAL records that are not done with.
#[derive(Default)]
struct WalRecords {
    runs: BTreeMap<QueueRef, Vec<Draft>>,
    /// The number of the last hint.
    last: Option<Sequence>,
    /// Numbers of hints that are missing between those that are there.
    missing: Vec<RangeInclusive<u64>>,
}

/// Flushes all that WAL records hold, durably. `is_clean` says that the store was shut down, so
/// that nothing was lost.
pub fn flush_found(engine: &Arc<Engine>, path: &Path, is_clean: bool) -> Result<Found, OpenError> {
    let failed = |error| classify(path, error, "read or write");
    let mut damage = Vec::new();
    let stored = engine.hints.get(WAL.cursor_key()).map_err(failed)?;
    let floor = match stored.map(|value| Cursor::decode(WAL, &value)) {
        Some(Ok(cursor)) => Some(cursor.next),
        Some(Err(error)) => {
            damage.push(damage_of(format!("the cursor of the WAL records: {error}")));
            None
        }
        None => Some(Sequence(1)),
    };
    let mut records = WalRecords::read(engine, floor).map_err(failed)?;
    if !records.missing.is_empty() && !is_off(Safeguard::LogScan) {
        search_log(engine, path, floor)?;
        records = WalRecords::read(engine, floor).map_err(failed)?;
    }
    damage.extend(records.missing.iter().map(|missing| {
        let hints = missing.end() + 1 - missing.start();
        damage_of(format!("WAL records with {hints} hints do not read"))
    }));
    let floor = floor.unwrap_or(Sequence(1));
    let is_unused = records.last.is_none() && floor == Sequence(1);
    if is_unused || (is_clean && records.last.is_none()) {
        return Ok(Found {
            next: floor,
            damage,
        });
    }
    let mut writer = FlushWriter::new(engine);
    let retired = retired(engine).map_err(failed)?;
    for (queue, runs) in records.runs {
        if !retired.contains(&queue) {
            let stored = engine.hints.get(queue.cursor_key()).map_err(failed)?;
            // One that is damaged is rebuilt later, from blocks.
            let cursor = stored.and_then(|value| Cursor::decode(queue, &value).ok());
            let cursor = cursor.unwrap_or_else(Cursor::start);
            for draft in wanted(engine, queue, runs, &cursor).map_err(failed)? {
                writer.write(&draft)?;
            }
        }
    }
    point("open: WAL records flushed")?;
    let last = records.last.map_or(floor.0, |last| last.0 + 1);
    let next = Sequence(floor.0.max(last).saturating_add(NUMBERS_SKIPPED));
    let cursor = Cursor::rebuilt(next, 0).encode(WAL);
    writer.insert(&WAL.cursor_key(), cursor.into())?;
    writer.writer.commit()?;
    Ok(Found { next, damage })
}

/// Of no node that can be told.
pub fn damage_of(what: String) -> Damage {
    Damage {
        node: WAL.node,
        queue: WAL.queue,
        what,
        lost: None,
    }
}

impl WalRecords {
    /// Reads those from `floor` on; without one, all that are there.
    fn read(engine: &Engine, floor: Option<Sequence>) -> Result<WalRecords, table::Error> {
        let mut records = WalRecords::default();
        let mut expected = floor.map(|it| it.0);
        for first in blocks::starts(&engine.hints, WAL, floor.unwrap_or(Sequence(0))) {
            let first = first?;
            let (header, runs) = match blocks::read_wal_record(&engine.hints, first) {
                Ok(Some(record)) => record,
                // The next one tells how many there were; behind the last one nobody knows.
                Ok(None) | Err(ReadError::Damaged(_)) => {
                    expected.get_or_insert(first.0);
                    records.last = records.last.max(Some(first));
                    continue;
                }
                Err(ReadError::Engine(error)) => return Err(error),
            };
            if let Some(expected) = expected.filter(|expected| *expected < first.0) {
                records.missing.push(expected..=first.0 - 1);
            }
            expected = Some(header.last().0.saturating_add(1));
            records.last = Some(header.last());
            for run in runs {
                records.runs.entry(run.queue).or_default().push(run);
            }
        }
        if let (Some(expected), Some(last)) = (expected, records.last)
            && expected <= last.0
        {
            records.missing.push(expected..=last.0);
        }
        Ok(records)
    }
}

/// Stores again what is intact in the log of WAL records that do not read.
fn search_log(engine: &Arc<Engine>, path: &Path, floor: Option<Sequence>) -> Result<(), OpenError> {
    let is_wanted = |first, _chunk, _value: &[u8]| floor.is_none_or(|floor| first >= floor);
    let reads = |first| matches!(blocks::read_wal_record(&engine.hints, first), Ok(Some(_)));
    let mut writer = FlushWriter::new(engine);
    let log = path.join("db");
    log_search::find(&log, WAL, &|| {}, is_wanted, reads, |key, value| {
        writer.insert(key, value.into())
    })?;
    Ok(writer.writer.commit()?)
}

/// Queues of which all is done with.
fn retired(engine: &Engine) -> Result<BTreeSet<QueueRef>, table::Error> {
    let mut retired = BTreeSet::new();
    for entry in engine.nodes.iter() {
        let (key, value) = entry?;
        if Status::node_of(&key).is_some() {
            continue;
        }
        if let Ok(node) = key.as_ref().try_into().map(u64::from_be_bytes).map(NodeId)
            && let Ok(record) = NodeRecord::decode(node, &value)
        {
            retired.extend(record.retired);
        }
    }
    Ok(retired)
}

/// The hints of these runs that are pending and in no block.
fn wanted(
    engine: &Engine,
    queue: QueueRef,
    runs: Vec<Draft>,
    cursor: &Cursor,
) -> Result<Vec<Draft>, table::Error> {
    let mut blocks = InBlocks {
        engine,
        queue,
        known: None,
    };
    let mut drafts: Vec<Draft> = Vec::new();
    for run in runs {
        let mut bytes_before = run.bytes_before;
        for (sequence, hint) in (run.first.0..).map(Sequence).zip(run.hints) {
            let before = bytes_before;
            bytes_before += hint.payload.len() as u64;
            if cursor.is_gone(sequence) || blocks.hold(sequence)? {
                continue;
            }
            let fits = |draft: &&mut Draft| {
                draft.last().0 + 1 == sequence.0 && draft.bytes() + hint.raw_bytes() <= BLOCK_BYTES
            };
            match drafts.last_mut().filter(fits) {
                Some(draft) => draft.hints.push(hint),
                None => drafts.push(new_draft(queue, sequence, before, hint)),
            }
        }
    }
    Ok(drafts)
}

fn new_draft(queue: QueueRef, first: Sequence, bytes_before: u64, hint: Hint) -> Draft {
    Draft {
        node: queue.node,
        queue,
        first,
        bytes_before,
        hints: vec![hint],
        with_body: false,
    }
}

/// Which hints of a queue are in blocks that read.
struct InBlocks<'a> {
    engine: &'a Engine,
    queue: QueueRef,
    /// Sequences of which all are, or none is.
    known: Option<(RangeInclusive<u64>, bool)>,
}

impl InBlocks<'_> {
    fn hold(&mut self, sequence: Sequence) -> Result<bool, table::Error> {
        if let Some((range, holds)) = &self.known
            && range.contains(&sequence.0)
        {
            return Ok(*holds);
        }
        let (hints, queue) = (&self.engine.hints, self.queue);
        let known = match blocks::read_covering(hints, queue, sequence) {
            Ok(block) => (block.header.first.0..=block.header.last().0, true),
            Err(ReadError::Engine(error)) => return Err(error),
            Err(ReadError::Damaged(_)) => {
                let above = Sequence(sequence.0.saturating_add(1));
                let next = blocks::starts(hints, queue, above).next().transpose()?;
                let until = next.map_or(u64::MAX, |next| next.0 - 1);
                (sequence.0..=until, false)
            }
        };
        let (_, holds) = self.known.insert(known);
        Ok(*holds)
    }
}

struct FlushWriter {
    encoder: Encoder,
    writer: Writer,
}

impl FlushWriter {
    fn new(engine: &Arc<Engine>) -> Self {
        let engine = Arc::clone(engine);
        FlushWriter {
            encoder: Encoder::new(),
            writer: Writer::new(engine, "flush WAL records", Safeguard::GroupCommits),
        }
    }

    fn write(&mut self, draft: &Draft) -> Result<(), StorageError> {
        let block = self
            .encoder
            .encode(draft.queue, draft.first, draft.bytes_before, &draft.hints);
        block
            .into_writes()
            .try_for_each(|(key, value)| self.insert(&key, value.into()))
    }

    fn insert(&mut self, key: &[u8], value: IVec) -> Result<(), StorageError> {
        let engine = Arc::clone(self.writer.engine());
        self.writer.put(&engine.hints, key, value)
    }
}

#[cfg(test)]
mod tests;
