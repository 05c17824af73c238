//! A closed store, opened to be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    error::{DirectoryProblem, OpenError, StorageError, UnopenableReason},
    store::{
        commit::loss_journal,
        engine::{
            generation::unopenable,
            log_pages::Ending,
            log_tail::LogTail,
            log_tree::{Database, LogTree},
            unsynced,
        },
        format::{
            keys::QueueRef, loss::Losses, node_record::NodeRecord, node_status::Status,
            shutdown_summary::Summary,
        },
        offline::{
            end,
            findings::{Finding, Severity},
            known::Known,
            place::{ClosedPlace, unread},
            queues::{self, QueueFinder},
            wal::WalRuns,
        },
        state::queue::Queue,
    },
    types::{NodeId, StoreId},
};

/// What is known of a node.
#[derive(Debug)]
pub struct FoundNode {
    pub record: NodeRecord,
    pub status: Status,
    pub queues: Vec<Queue>,
}

/// A store that nobody has open, to be read.
///
/// Nothing in its directory is changed, `LOCK` included, and sled is not asked. As long as this is
/// held nobody opens the store: it shares the locks that an open needs for itself alone. So a host
/// that is started meanwhile is refused ([`OpenError::Locked`](crate::OpenError::Locked)), and the
/// process that the error names is the one that had the store before.
///
/// Memory: some 350 bytes for each leaf of sled's trees, of 16 values at most, and the hints that
/// are in WAL records only, 16 MiB or a little more. Payloads are read when they are asked for.
#[derive(Debug)]
pub struct ClosedStore {
    pub(super) place: ClosedPlace,
    pub(super) tree: LogTree,
    pub(super) clean: Option<Summary>,
    pub(super) known: Known,
    pub(super) nodes: BTreeMap<NodeId, FoundNode>,
    pub(super) wal: WalRuns,
    pub(super) findings: Vec<Finding>,
}

impl ClosedStore {
    /// Opens the store in `dir`, or in a folder with sled's files in it: one that was moved aside,
    /// or the database of a host that shares it.
    ///
    /// # Errors
    /// [`OpenError::Locked`](crate::OpenError::Locked) if somebody has it open;
    /// [`OpenError::Directory`](crate::OpenError::Directory) if it is no store;
    /// [`OpenError::NewerSchema`](crate::OpenError::NewerSchema);
    /// [`OpenError::Unopenable`](crate::OpenError::Unopenable) if the records that say which store
    /// it is are damaged; what the operating system says.
    pub fn open(dir: impl AsRef<Path>) -> Result<ClosedStore, OpenError> {
        ClosedStore::open_with(dir, |_, _| {})
    }

    /// The same; `progress` is called with bytes of the log that were read, and bytes in all.
    ///
    /// # Errors
    /// As [`open`](ClosedStore::open).
    pub fn open_with(
        dir: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<ClosedStore, OpenError> {
        let place = ClosedPlace::find(dir.as_ref())?;
        let (dir, is_named) = (place.dir.clone(), place.is_named);
        match ClosedStore::find_in(place, &mut progress) {
            // Its first open was cut short.
            Err(OpenError::Unopenable { .. }) if !is_named => Err(OpenError::Directory {
                path: dir,
                problem: DirectoryProblem::NoStore,
            }),
            found => found,
        }
    }

    fn find_in(
        place: ClosedPlace,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ClosedStore, OpenError> {
        let mut findings = Vec::new();
        let mut clean = match place.clean_summary()? {
            Some(Ok(summary)) => Some(summary),
            Some(Err(error)) => {
                let what = format!("CLEAN, the summary of a clean shutdown: {error}");
                findings.push(Finding::new(Severity::Damaged, what));
                None
            }
            None => None,
        };
        let log = place.log();
        if !log.is_file() {
            let (record, detail) = ("log", "it is missing".to_owned());
            let reason = UnopenableReason::Damaged { record, detail };
            return Err(unopenable(&place.generation, reason));
        }
        let database = match place.may_be_shared {
            true => Database::Shared,
            false => Database::Own,
        };
        let read = |clean: Option<&Summary>, progress: &mut dyn FnMut(u64, u64)| {
            let ending = clean.map_or(Ending::MayBeTorn, |_| Ending::Closed);
            LogTree::read(&log, (ending, database), progress).map_err(unread)
        };
        let mut tree = read(clean.as_ref(), progress)?;
        let mut known = Known::read(&place, &tree)?;
        if clean
            .as_ref()
            .is_some_and(|clean| clean.is_of_another(known.store))
        {
            let what = "CLEAN, the summary of a clean shutdown, is of another store";
            findings.push(Finding::new(Severity::Damaged, what));
            clean = None;
            tree = read(None, progress)?;
            known = Known::read(&place, &tree)?;
        }
        let mut wal = WalRuns::read(&place, &tree)?;
        findings.append(&mut wal.findings);
        let mut store = ClosedStore {
            place,
            tree,
            clean,
            known,
            nodes: BTreeMap::new(),
            wal,
            findings,
        };
        store.note_end_of_log()?;
        store.find_nodes()?;
        Ok(store)
    }

    fn note_end_of_log(&mut self) -> Result<(), StorageError> {
        if self.clean.is_some() {
            let torn = LogTail::find(&self.place.log()).map_err(unread)?;
            if !torn.is_whole {
                let what = "the end of the log does not read, although the store was closed";
                self.findings.push(Finding::new(Severity::Damaged, what));
            }
        } else if let Some(torn) = self.tree.torn_at() {
            self.findings.push(end::of_torn_log(&self.place, torn)?);
        }
        if self.place.generation.join(unsynced::MARKER).exists() {
            let what = "an fsync failed and the log was not copied since: what reads may not be on \
                        the disk";
            self.findings.push(Finding::new(Severity::Unknown, what));
        }
        if self.known.is_from_older_copies {
            let what = "the records that say which store it is; intact copies are in the log";
            self.findings.push(Finding::new(Severity::Damaged, what));
        }
        for (node, error) in std::mem::take(&mut self.known.damaged_records) {
            let what = format!("the node's record: {error}");
            let finding = Finding::new(Severity::Damaged, what);
            self.findings.push(Finding {
                node: Some(node),
                ..finding
            });
        }
        Ok(())
    }

    fn find_nodes(&mut self) -> Result<(), StorageError> {
        let mut records = std::mem::take(&mut self.known.records);
        queues::list(
            &self.tree,
            &mut records,
            &mut self.wal,
            self.clean.as_ref(),
            &mut self.findings,
        )
        .map_err(unread)?;
        let clean = self.clean.iter().flat_map(|clean| &clean.queues);
        let mut finder = QueueFinder {
            tree: &self.tree,
            wal: &self.wal,
            clean: clean.map(|it| (it.queue, *it)).collect(),
            findings: &mut self.findings,
        };
        for (node, record) in records {
            let mut queues = Vec::new();
            for at in &record.live {
                queues.push(finder.find(node, *at).map_err(unread)?);
            }
            let status = self.known.statuses.remove(&node).unwrap_or_default();
            let found = FoundNode {
                record,
                status,
                queues,
            };
            self.nodes.insert(node, found);
        }
        let named: BTreeSet<QueueRef> = self
            .nodes
            .values()
            .flat_map(|node| node.queues.iter().map(|queue| queue.at))
            .collect();
        self.wal.runs.retain(|queue, _| named.contains(queue));
        Ok(())
    }

    /// Copies its files into `dir`, which must not exist, as a store that may be opened.
    pub(crate) fn copy_to(&self, dir: &Path) -> Result<(), OpenError> {
        self.place.copy_to(dir)
    }

    /// Its identity.
    pub fn id(&self) -> StoreId {
        self.known.store
    }

    /// What the loss journal tells, from an index on: as
    /// [`HintedHandoff::losses`](crate::HintedHandoff::losses) does of an open store.
    pub fn losses(&self, since: u64) -> Losses {
        loss_journal::records::of_records(&self.known.losses, since)
    }
}
