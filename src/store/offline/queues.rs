//! The queues of a store and whose they are, as an open would find them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use crate::{
    store::{
        engine::log_tree::LogTree,
        format::{
            block::Header,
            cursor::{Cursor, Leave},
            keys::{Key, QueueRef, WAL},
            node_record::NodeRecord,
            shutdown_summary::{CleanQueue, Summary},
        },
        offline::{
            blocks::{BlockStream, last_start},
            findings::{Finding, Severity},
            wal::WalRuns,
        },
        recover::ownership::{adopt_unlisted, list_as_named, list_once},
        state::{queue::Queue, registry::Registry},
    },
    types::{NodeId, Sequence},
};

/// Every queue that has a key, but for that of the WAL records.
fn queues_with_keys(tree: &LogTree) -> io::Result<BTreeSet<QueueRef>> {
    let mut found = BTreeSet::new();
    let mut from = Vec::new();
    while let Some(key) = tree.first_from(&from)? {
        from = match Key::parse(&key) {
            Some(key) => {
                if key.queue() != WAL {
                    found.insert(key.queue());
                }
                [key.queue().end_key().as_slice(), &[0]].concat()
            }
            None => [key.as_slice(), &[0]].concat(),
        };
    }
    Ok(found)
}

/// Makes the records list what is there.
pub fn list(
    tree: &LogTree,
    records: &mut HashMap<NodeId, NodeRecord>,
    wal: &mut WalRuns,
    clean: Option<&Summary>,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    let retired = records.values().flat_map(|it| it.retired.clone());
    wal.forget(&retired.collect());
    let mut found = queues_with_keys(tree)?;
    for (queue, runs) in &wal.runs {
        let cursor = cursor_of(tree, *queue)?.unwrap_or_else(Cursor::start);
        if runs.iter().any(|run| run.last() >= cursor.next) {
            found.insert(*queue);
        }
    }
    let mut registry = Registry::default();
    match clean {
        Some(clean) => drop(list_as_named(records, &found, clean, &mut registry)),
        None => {
            list_once(records, &mut registry);
            adopt_unlisted(records, &found, &mut registry);
        }
    }
    findings.extend(registry.damage.into_iter().map(|damage| {
        let finding = Finding::new(Severity::Damaged, damage.what);
        finding.of(damage.node, damage.queue)
    }));
    Ok(())
}

/// The stored cursor, if it reads.
fn cursor_of(tree: &LogTree, at: QueueRef) -> io::Result<Option<Cursor>> {
    let stored = tree.get(&at.cursor_key())?;
    Ok(stored.and_then(|value| Cursor::decode(at, &value).ok()))
}

/// What finding a queue takes.
pub struct QueueFinder<'a> {
    pub tree: &'a LogTree,
    pub wal: &'a WalRuns,
    pub clean: BTreeMap<QueueRef, CleanQueue>,
    pub findings: &'a mut Vec<Finding>,
}

impl QueueFinder<'_> {
    /// A queue with its cursor, and the last of its hints.
    pub fn find(&mut self, node: NodeId, at: QueueRef) -> io::Result<Queue> {
        let clean = self.clean.get(&at).copied();
        let mut cursor = self.cursor(node, at, clean.as_ref())?;
        if let Some(clean) = clean.filter(|clean| clean.cursor > cursor.next) {
            let what = format!(
                "the cursor says {}, CLEAN says {}; the latter counts",
                cursor.next, clean.cursor
            );
            self.note(node, at, what);
            let through = Sequence(clean.cursor.0.saturating_sub(1));
            cursor.advance(through, clean.cursor_bytes, Leave::Delivered);
        }
        let drained = Sequence(cursor.next.0.saturating_sub(1));
        let highest = cursor.above.iter().last().map_or(drained, |it| it.last);
        let (mut watermark, mut bytes) = (highest, cursor.gone().bytes);
        for (last, bytes_through) in self.tail(at)?.into_iter().chain(self.wal_tail(at)) {
            if last >= watermark {
                (watermark, bytes) = (last, bytes_through.max(bytes));
            }
        }
        // Behind the last hint is room for another, whatever a damaged key says.
        watermark = watermark.min(Sequence(u64::MAX - 1));
        if let Some(clean) = clean.filter(|clean| clean.next.0 > watermark.0 + 1) {
            let what = format!(
                "its blocks end at {watermark}, CLEAN says {}",
                clean.next.0 - 1
            );
            self.note(node, at, what);
            (watermark, bytes) = (Sequence(clean.next.0 - 1), clean.bytes);
        }
        Ok(Queue {
            cursor,
            ..Queue::new(at, watermark, bytes)
        })
    }

    fn note(&mut self, node: NodeId, at: QueueRef, what: String) {
        let finding = Finding::new(Severity::Damaged, what);
        self.findings.push(finding.of(node, at.queue));
    }

    fn cursor(
        &mut self,
        node: NodeId,
        at: QueueRef,
        clean: Option<&CleanQueue>,
    ) -> io::Result<Cursor> {
        let stored = self.tree.get(&at.cursor_key())?;
        let why = match stored.map(|value| Cursor::decode(at, &value)) {
            Some(Ok(cursor)) => return Ok(cursor),
            Some(Err(error)) => Some(format!("the cursor: {error}")),
            None => None,
        };
        let rebuilt = match clean {
            Some(clean) => Cursor::rebuilt(clean.cursor, clean.cursor_bytes),
            None => self.first_hint(at)?,
        };
        // A queue has no cursor before its first hint left.
        if why.is_some() || rebuilt.next != Sequence(1) {
            let what = why.unwrap_or_else(|| "the cursor is missing".to_owned());
            self.note(node, at, what);
        }
        Ok(rebuilt)
    }

    /// A cursor at the first hint that is there.
    fn first_hint(&self, at: QueueRef) -> io::Result<Cursor> {
        let first = BlockStream::new(self.tree, at, Sequence(1)).next_block()?;
        let block = first.map(|(first, chunks)| {
            let header = chunks.block(at, first).map(|block| block.header);
            (first, header.map_or(0, |header| header.bytes_before))
        });
        let runs = self.wal.runs.get(&at).and_then(|runs| runs.first());
        let run = runs.map(|run| (run.first, run.bytes_before));
        let lowest = block.into_iter().chain(run).min();
        Ok(lowest.map_or_else(Cursor::start, |(first, bytes_before)| {
            Cursor::rebuilt(first, bytes_before)
        }))
    }

    /// The last hint in a block, and the payload bytes up to it, by what its header claims if it
    /// does not read.
    fn tail(&self, at: QueueRef) -> io::Result<Option<(Sequence, u64)>> {
        let Some(first) = last_start(self.tree, at, &at.blocks_end_key())? else {
            return Ok(None);
        };
        let last = BlockStream::new(self.tree, at, first).next_block()?;
        let header = last.and_then(|(_, chunks)| chunks.header(at, first).ok());
        let through = |header: Header| (header.last(), header.bytes_through());
        Ok(Some(header.map_or((first, 0), through)))
    }

    fn wal_tail(&self, at: QueueRef) -> Option<(Sequence, u64)> {
        let run = self.wal.runs.get(&at)?.last()?;
        Some((run.last(), run.bytes_through()))
    }
}
