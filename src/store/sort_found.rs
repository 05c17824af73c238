//! Sorting what an open finds in mixed groups: hints that a crash left in no block of their queue.
//!
//! It comes before all else that an open looks at, so that only this file knows that hints may stand anywhere but in blocks. Whatever
//! is in a block already, has left its queue, or is of a queue that is done with, is passed over; so it can die anywhere and be done
//! again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
};

use super::{
    block::NewHint,
    blocks::{self, ReadError},
    carve::carve,
    cursor::Cursor,
    draft::Draft,
    encoder::Encoder,
    engine::{Engine, GROUP_BYTES, classify},
    faults::{Safeguard, is_off, point},
    keys::{Key, QueueRef},
    mixed::MIXED,
    node_record::NodeRecord,
    sorting::BLOCK_BYTES,
    status::Status,
};
use crate::{
    error::OpenError,
    stats::Damage,
    types::{NodeId, Sequence},
};

/// Numbers skipped after an unclean stop: those given out just before it may have left no trace that is found, but may have in the log.
const NUMBERS_SKIPPED: u64 = 1 << 32;

/// What was found.
pub struct Found {
    /// The number of the next hint in a mixed group; all below are done with.
    pub next: Sequence,
    /// What did not read.
    pub damage: Vec<Damage>,
}

/// The mixed groups that are not done with.
#[derive(Default)]
struct Groups {
    runs: BTreeMap<QueueRef, Vec<Draft>>,
    /// The number of the last hint.
    last: Option<Sequence>,
    /// Numbers of hints that are missing between those that are there.
    missing: Vec<RangeInclusive<u64>>,
}

/// Sorts all that mixed groups hold, durably. `is_clean` says that the store was shut down, so that nothing was lost.
pub fn sort_found(engine: &Engine, path: &Path, is_clean: bool) -> Result<Found, OpenError> {
    let failed = |error| classify(path, error, "read or write");
    let mut damage = Vec::new();
    let stored = engine.hints.get(MIXED.cursor_key()).map_err(failed)?;
    let floor = match stored.map(|value| Cursor::decode(MIXED, &value)) {
        Some(Ok(cursor)) => Some(cursor.next),
        Some(Err(error)) => {
            damage.push(damage_of(format!(
                "the cursor of the mixed groups: {error}"
            )));
            None
        }
        None => Some(Sequence(1)),
    };
    let mut groups = Groups::read(engine, floor).map_err(failed)?;
    if !groups.missing.is_empty() && !is_off(Safeguard::Carving) {
        search_log(engine, path, floor)?;
        groups = Groups::read(engine, floor).map_err(failed)?;
    }
    damage.extend(groups.missing.iter().map(|missing| {
        let hints = missing.end() + 1 - missing.start();
        damage_of(format!("mixed groups with {hints} hints do not read"))
    }));
    let floor = floor.unwrap_or(Sequence(1));
    let is_unused = groups.last.is_none() && floor == Sequence(1);
    if is_unused || (is_clean && groups.last.is_none()) {
        return Ok(Found {
            next: floor,
            damage,
        });
    }
    let mut writer = Writer {
        engine,
        encoder: Encoder::new(),
        handed_bytes: 0,
    };
    let retired = retired(engine).map_err(failed)?;
    for (queue, runs) in groups.runs {
        if !retired.contains(&queue) {
            let stored = engine.hints.get(queue.cursor_key()).map_err(failed)?;
            // One that is damaged is rebuilt later, from blocks.
            let cursor = stored.and_then(|value| Cursor::decode(queue, &value).ok());
            let cursor = cursor.unwrap_or_else(Cursor::start);
            for draft in wanted(engine, queue, runs, &cursor).map_err(failed)? {
                writer.write(path, &draft)?;
            }
        }
    }
    point("open: mixed groups sorted")?;
    let last = groups.last.map_or(floor.0, |last| last.0 + 1);
    let next = Sequence(floor.0.max(last).saturating_add(NUMBERS_SKIPPED));
    let cursor = Cursor::rebuilt(next, 0).encode(MIXED);
    let insert = engine.hints.insert(MIXED.cursor_key(), cursor);
    insert.map_err(failed)?;
    engine.commit()?;
    Ok(Found { next, damage })
}

/// Of no node that can be told.
fn damage_of(what: String) -> Damage {
    Damage {
        node: MIXED.node,
        queue: MIXED.queue,
        what,
        lost: None,
    }
}

impl Groups {
    /// Reads those from `floor` on; without one, all that are there.
    fn read(engine: &Engine, floor: Option<Sequence>) -> Result<Groups, sled::Error> {
        let mut groups = Groups::default();
        let mut expected = floor.map(|it| it.0);
        for first in blocks::starts(&engine.hints, MIXED, floor.unwrap_or(Sequence(0))) {
            let first = first?;
            let (header, runs) = match blocks::read_mixed(&engine.hints, first) {
                Ok(Some(group)) => group,
                // The next one tells how many there were; behind the last one nobody knows.
                Ok(None) | Err(ReadError::Damaged(_)) => {
                    expected.get_or_insert(first.0);
                    groups.last = groups.last.max(Some(first));
                    continue;
                }
                Err(ReadError::Engine(error)) => return Err(error),
            };
            if let Some(expected) = expected.filter(|expected| *expected < first.0) {
                groups.missing.push(expected..=first.0 - 1);
            }
            expected = Some(header.last().0.saturating_add(1));
            groups.last = Some(header.last());
            for run in runs {
                groups.runs.entry(run.queue).or_default().push(run);
            }
        }
        if let (Some(expected), Some(last)) = (expected, groups.last)
            && expected <= last.0
        {
            groups.missing.push(expected..=last.0);
        }
        Ok(groups)
    }
}

/// Stores again what is intact in the log of mixed groups that do not read: sled drops records at recovery that are still there
/// (SLED.md rule 10).
fn search_log(engine: &Engine, path: &Path, floor: Option<Sequence>) -> Result<(), OpenError> {
    let failed = |error| classify(path, error, "write");
    let mut found = Vec::new();
    carve(&path.join("db"), |key, value| {
        if let Some(Key::Chunk { queue, first, .. }) = Key::parse(key)
            && queue == MIXED
            && floor.is_none_or(|floor| first >= floor)
            && !value.is_empty()
        {
            found.push((key.to_vec(), value.to_vec()));
        }
        Ok(())
    })?;
    tracing::warn!(chunks = found.len(), "looked for mixed groups in the log");
    let mut handed_bytes = 0;
    for (key, value) in found {
        // One that is there may be a spacer's.
        let is_there = engine.hints.get(&key).map_err(failed)?;
        if is_there.is_some_and(|there| !there.is_empty()) {
            continue;
        }
        handed_bytes += key.len() + value.len();
        if handed_bytes > GROUP_BYTES {
            engine.commit()?;
            handed_bytes = key.len() + value.len();
        }
        engine.hints.insert(key, value).map_err(failed)?;
    }
    Ok(engine.commit()?)
}

/// Queues of which all is done with.
fn retired(engine: &Engine) -> Result<BTreeSet<QueueRef>, sled::Error> {
    let mut retired = BTreeSet::new();
    for entry in &engine.nodes {
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
) -> Result<Vec<Draft>, sled::Error> {
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

fn new_draft(queue: QueueRef, first: Sequence, bytes_before: u64, hint: NewHint) -> Draft {
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
    fn hold(&mut self, sequence: Sequence) -> Result<bool, sled::Error> {
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

struct Writer<'a> {
    engine: &'a Engine,
    encoder: Encoder,
    handed_bytes: usize,
}

impl Writer<'_> {
    /// SLED.md rules 2 and 4 hold here too.
    fn write(&mut self, path: &Path, draft: &Draft) -> Result<(), OpenError> {
        let Draft {
            queue,
            first,
            bytes_before,
            hints,
            ..
        } = draft;
        let block = self.encoder.encode(*queue, *first, *bytes_before, hints);
        if self.handed_bytes + block.bytes() > GROUP_BYTES {
            self.engine.commit()?;
            self.handed_bytes = 0;
        }
        self.handed_bytes += block.bytes();
        for (key, value) in block.into_writes() {
            let insert = self.engine.hints.insert(key, value);
            insert.map_err(|error| classify(path, error, "write"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::mixed::MixedDraft, *};
    use crate::types::{QueueId, ShardId};

    fn queue(node: u64) -> QueueRef {
        QueueRef {
            node: NodeId(node),
            queue: QueueId(node),
        }
    }

    /// Hints of 100 bytes, by their sequences.
    fn run(node: u64, sequences: RangeInclusive<u64>) -> Draft {
        let first = *sequences.start();
        let hint = |sequence: u64| NewHint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: vec![sequence as u8; 100].into(),
            origin: None,
        };
        Draft {
            node: NodeId(node),
            queue: queue(node),
            first: Sequence(first),
            bytes_before: (first - 1) * 100,
            hints: sequences.map(hint).collect(),
            with_body: false,
        }
    }

    fn put_group(engine: &Engine, first: u64, runs: Vec<Draft>) {
        let draft = MixedDraft {
            first: Sequence(first),
            runs,
        };
        for (key, value) in Encoder::new().encode_mixed(&draft).into_writes() {
            engine.hints.insert(key, value).unwrap();
        }
    }

    fn put_block(engine: &Engine, run: &Draft) {
        let mut encoder = Encoder::new();
        let block = encoder.encode(run.queue, run.first, run.bytes_before, &run.hints);
        for (key, value) in block.into_writes() {
            engine.hints.insert(key, value).unwrap();
        }
    }

    /// First and last of every block of a queue, each of which reads and has what it should.
    fn blocks_of(engine: &Engine, node: u64) -> Vec<(u64, u64)> {
        let starts = blocks::starts(&engine.hints, queue(node), Sequence(1));
        let block = |first: Result<Sequence, sled::Error>| {
            let read = blocks::read(&engine.hints, queue(node), first.unwrap());
            let block = read.unwrap().unwrap();
            let (first, last) = (block.header.first.0, block.header.last().0);
            assert_eq!(block.header.bytes_before, (first - 1) * 100);
            for (sequence, hint) in (first..).zip(&block.hints) {
                assert_eq!(hint.payload, vec![sequence as u8; 100]);
            }
            (first, last)
        };
        starts.map(block).collect()
    }

    fn open() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Default::default()).unwrap();
        (dir, engine)
    }

    #[test]
    fn what_is_pending_is_sorted_and_nothing_else_however_often_it_dies() {
        let (dir, engine) = open();
        put_group(
            &engine,
            1,
            vec![run(1, 1..=2), run(2, 1..=3), run(3, 4..=4)],
        );
        put_group(
            &engine,
            7,
            vec![run(1, 3..=3), run(2, 4..=8), run(4, 1..=1)],
        );
        // Some left node 2; some of it is in a block already, which came between; node 4 is done with.
        let mut cursor = Cursor::rebuilt(Sequence(3), 200);
        cursor.leave(Sequence(5), 100, super::super::cursor::Leave::Delivered);
        let value = cursor.encode(queue(2));
        engine.hints.insert(queue(2).cursor_key(), value).unwrap();
        put_block(&engine, &run(2, 6..=7));
        let mut record = NodeRecord::default();
        record.retired.push(queue(4));
        let (key, value) = (NodeRecord::key(NodeId(4)), record.encode(NodeId(4)));
        engine.nodes.insert(key, value).unwrap();
        engine.commit().unwrap();

        let sorted = || {
            let found = sort_found(&engine, dir.path(), false).unwrap();
            assert!(found.damage.is_empty(), "{:?}", found.damage);
            assert_eq!(blocks_of(&engine, 1), [(1, 3)]);
            assert_eq!(blocks_of(&engine, 2), [(3, 4), (6, 7), (8, 8)]);
            assert_eq!(blocks_of(&engine, 3), [(4, 4)]);
            assert_eq!(blocks_of(&engine, 4), []);
            found.next.0
        };
        let next = sorted();
        assert_eq!(next, 14 + NUMBERS_SKIPPED);
        // Died before the cursor was written: once more, and nothing changes.
        engine.hints.remove(MIXED.cursor_key()).unwrap();
        assert_eq!(sorted(), next);
        // Now all of it is done with.
        put_block(&engine, &run(5, 1..=1));
        engine
            .hints
            .remove(queue(1).chunk_key(Sequence(1), 0))
            .unwrap();
        let found = sort_found(&engine, dir.path(), true).unwrap();
        assert_eq!((found.next.0, blocks_of(&engine, 1)), (next, vec![]));
    }

    #[test]
    fn a_group_that_is_missing_is_looked_for_in_the_log() {
        let (dir, engine) = open();
        put_group(&engine, 1, vec![run(1, 1..=2), run(2, 1..=1)]);
        put_group(&engine, 4, vec![run(1, 3..=3)]);
        engine.commit().unwrap();
        engine
            .hints
            .remove(MIXED.chunk_key(Sequence(1), 0))
            .unwrap();
        engine.commit().unwrap();
        let found = sort_found(&engine, dir.path(), false).unwrap();
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert_eq!(blocks_of(&engine, 1), [(1, 3)]);
        assert_eq!(blocks_of(&engine, 2), [(1, 1)]);
    }

    #[test]
    fn what_does_not_read_is_told_and_the_rest_is_sorted() {
        let (dir, engine) = open();
        let garbage = |first| {
            let key = MIXED.chunk_key(Sequence(first), 0);
            engine.hints.insert(key, vec![9; 50]).unwrap();
        };
        garbage(1);
        put_group(&engine, 4, vec![run(1, 3..=3)]);
        garbage(5);
        engine.commit().unwrap();
        let found = sort_found(&engine, dir.path(), false).unwrap();
        let told: Vec<_> = found.damage.iter().map(|it| it.what.as_str()).collect();
        assert_eq!(
            told,
            [
                "mixed groups with 3 hints do not read",
                "mixed groups with 1 hints do not read"
            ]
        );
        assert_eq!(blocks_of(&engine, 1), [(3, 3)]);
    }

    #[test]
    fn a_store_that_never_had_any_is_left_as_it_is() {
        let (dir, engine) = open();
        for is_clean in [true, false] {
            let found = sort_found(&engine, dir.path(), is_clean).unwrap();
            assert_eq!(found.next, Sequence(1));
            assert!(engine.hints.is_empty());
        }
    }
}
