//! Hints that are in WAL records only: an open would flush them into blocks of their queues.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::StorageError,
    store::{
        engine::log_tree::LogTree,
        format::{
            cursor::Cursor,
            keys::{Keyspace, QueueRef, WAL},
            run::Draft,
        },
        offline::{
            blocks::{BlockStream, copies},
            findings::{Finding, Severity},
            place::{ClosedPlace, unread},
        },
    },
    types::Sequence,
};

/// The WAL records that are not done with. They are bounded: the store keeps them in memory, too.
#[derive(Debug, Default)]
pub struct WalRuns {
    /// Those of a queue, in order.
    pub runs: BTreeMap<QueueRef, Vec<Draft>>,
    pub findings: Vec<Finding>,
}

impl WalRuns {
    pub fn read(place: &ClosedPlace, tree: &LogTree) -> Result<WalRuns, StorageError> {
        let mut found = WalRuns::default();
        let stored = tree.get(&WAL.cursor_key()).map_err(unread)?;
        let floor = match stored.map(|value| Cursor::decode(WAL, &value)) {
            Some(Ok(cursor)) => Some(cursor.next),
            Some(Err(error)) => {
                let what = format!("the cursor of the WAL records: {error}");
                found.findings.push(Finding::new(Severity::Damaged, what));
                None
            }
            None => Some(Sequence(1)),
        };
        let mut expected = floor;
        let mut blocks = BlockStream::new(tree, WAL, floor.unwrap_or(Sequence(0)));
        let mut damaged: Option<Sequence> = None;
        while let Some((first, chunks)) = blocks.next_block().map_err(unread)? {
            // Without its chunk 0, which is written last, it is none: so a crash leaves one that
            // was under way.
            if chunks.header(WAL, first).is_err() {
                continue;
            }
            let Ok((header, runs)) = chunks.wal_record(first) else {
                expected.get_or_insert(first);
                damaged = Some(first);
                continue;
            };
            if let Some(expected) = expected.filter(|expected| *expected < first) {
                found.fill(place, expected, Sequence(first.0 - 1))?;
            }
            damaged = None;
            expected = Some(Sequence(header.last().0.saturating_add(1)));
            found.take(runs);
        }
        if let (Some(expected), Some(last)) = (expected, damaged) {
            found.fill(place, expected, last)?;
        }
        for runs in found.runs.values_mut() {
            runs.sort_by_key(|run| run.first);
        }
        Ok(found)
    }

    fn take(&mut self, runs: Vec<Draft>) {
        for run in runs {
            self.runs.entry(run.queue).or_default().push(run);
        }
    }

    /// Looks for records that do not read, between two numbers of hints.
    fn fill(
        &mut self,
        place: &ClosedPlace,
        mut next: Sequence,
        last: Sequence,
    ) -> Result<(), StorageError> {
        let copies = copies(&place.log(), Keyspace::Queue, WAL, (next, next, last))?;
        let missing = |upto: u64, next: Sequence| {
            let hints = upto.saturating_sub(next.0);
            let what = format!("WAL records with {hints} hints do not read");
            let finding = Finding::new(Severity::Lost, what);
            finding.from(next, Sequence(upto.saturating_sub(1)), hints)
        };
        for (first, chunks) in &copies.blocks {
            let Ok((header, runs)) = chunks.wal_record(*first) else {
                continue;
            };
            if *first > next {
                self.findings.push(missing(first.0, next));
            }
            let what = "a WAL record does not read where it should; an intact copy is in the log";
            let finding = Finding::new(Severity::Damaged, what);
            let hints = u64::from(header.hints);
            self.findings
                .push(finding.from(*first, header.last(), hints));
            self.take(runs);
            next = Sequence(header.last().0.saturating_add(1)).max(next);
        }
        if next <= last {
            self.findings.push(missing(last.0.saturating_add(1), next));
        }
        Ok(())
    }

    /// Forgets what is of queues that are done with.
    pub fn forget(&mut self, retired: &BTreeSet<QueueRef>) {
        self.runs.retain(|queue, _| !retired.contains(queue));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::{Arc, mpsc},
    };

    use crate::{
        config::Config,
        offline::{ClosedStore, Selection, Severity, verify},
        store::{
            Hint, Reservation, Store,
            engine::generation::Engine,
            format::keys::{Key, WAL},
        },
        types::{NodeId, ShardId},
    };

    const NODES: u64 = 50;
    const ROUNDS: u64 = 8;

    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let into = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &into),
                false => drop(fs::copy(entry.path(), into).unwrap()),
            }
        }
    }

    /// Groups of a hint for each of many nodes: none is in a block of its queue yet.
    fn fill(store: &Store) {
        for round in 0..ROUNDS {
            let (tell, told) = mpsc::channel();
            for node in 0..NODES {
                let hint = Hint {
                    shard: ShardId(round),
                    format: 0,
                    enqueued_unix_ms: 1_700_000_000_000,
                    payload: format!("hint {round} of {node}").into(),
                    origin: None,
                    write: None,
                    lifetime_ms: None,
                };
                let tell = tell.clone();
                let done = Box::new(move |it| tell.send(it).unwrap());
                store.append_within(Reservation::default(), NodeId(node), hint, done);
            }
            for _ in 0..NODES {
                told.recv().unwrap().unwrap();
            }
        }
    }

    /// The files of a store that is open, with hints in WAL records only.
    fn killed() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (open, killed) = (dir.path().join("open"), dir.path().join("killed"));
        let config = Config {
            min_free_disk: 0,
            ..Config::new(&open)
        };
        let store = Store::open(&config, Box::new(|_| {})).unwrap();
        fill(&store);
        copy(&open, &killed);
        store.close().unwrap();
        (dir, killed)
    }

    #[test]
    fn hints_that_are_in_wal_records_only_are_read_in_order() {
        let (_dir, killed) = killed();
        assert_eq!(verify(&killed, |_, _| {}).unwrap().findings, []);
        let closed = ClosedStore::open(&killed).unwrap();
        let in_wal: usize = closed
            .wal
            .runs
            .values()
            .flatten()
            .map(|it| it.hints.len())
            .sum();
        assert!(in_wal > 0);
        assert_eq!(closed.info().unwrap().pending.hints, NODES * ROUNDS);
        for node in 0..NODES {
            let hints = closed.hints(&Selection::of_node(NodeId(node)));
            let payloads: Vec<_> = hints.map(|hint| hint.unwrap().payload).collect();
            let expected = (0..ROUNDS).map(|round| format!("hint {round} of {node}"));
            assert_eq!(
                payloads,
                expected.collect::<Vec<_>>(),
                "{in_wal} in WAL records"
            );
        }
    }

    #[test]
    fn a_wal_record_that_does_not_read_where_it_should_is_told_of_the_store() {
        let (_dir, killed) = killed();
        let engine = Engine::open(&killed.join("gen-000001"), Arc::default()).unwrap();
        let keys = engine.hints.iter().map(|entry| entry.unwrap().0.to_vec());
        let of_wal = |key: &Vec<u8>| matches!(Key::parse(key), Some(Key::Chunk { queue: WAL, .. }));
        let keys: Vec<Vec<u8>> = keys.filter(of_wal).collect();
        assert!(keys.len() > 1, "one is left to tell of the one before");
        engine.hints.remove(&keys[0]);
        engine.close().unwrap();
        let closed = ClosedStore::open(&killed).unwrap();
        let told = closed.findings().iter();
        let told = told.filter(|it| it.severity == Severity::Damaged);
        assert_eq!(told.count(), 1, "{:?}", closed.findings());
        let verified = closed.verify(|_, _| {}).unwrap();
        assert_eq!(verified.findings, closed.findings(), "told once");
    }
}
