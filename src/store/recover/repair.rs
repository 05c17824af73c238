//! Writing a generation anew from what is intact in the log of a damaged one.
//!
//! The damaged one is only read, and moved aside whole once the new one has taken its place; a
//! crash before that leaves it in use. What is written comes from the log record by record (see
//! `log_scan.rs`); what is done with, and stands in the log still, is told by `CLEAN`, or else by
//! the node records and cursors that are found.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{OpenError, StorageError, UnopenableReason},
    store::{
        commit::loss_journal,
        engine::{
            generation::{Engine, unopenable},
            log_scan::scan,
            meta,
            table::Table,
            writer::Writer,
        },
        failpoints::{Safeguard, point},
        format::{
            block::Header,
            cursor::Cursor,
            dead_letter::Letter,
            gone_letters::GoneLetters,
            keys::{Key, Place, QueueRef, WAL},
            node_record::NodeRecord,
            shutdown_summary::Summary,
        },
        home::directory::Directory,
    },
    types::{NodeId, QueueId, Sequence, StoreId},
};

/// What took a damaged generation's place.
pub struct Rebuilt {
    /// The new generation's name.
    pub generation: String,
    /// Where the damaged one is now.
    pub moved_aside: PathBuf,
}

/// Puts a generation of what is intact in the place of a damaged one. `alive` is called now and
/// then.
pub fn replace(
    directory: &Directory,
    damaged: &str,
    clean: Option<&Summary>,
    alive: &dyn Fn(),
) -> Result<Rebuilt, OpenError> {
    let building = directory.start_building()?;
    write(&directory.generation(damaged), clean, &building, alive)?;
    point("rebuild: written")?;
    let generation = directory.finish_building(clean)?;
    point("rebuild: complete")?;
    directory.set_current(&generation)?;
    point("rebuild: named")?;
    let moved_aside = directory.move_aside(damaged)?;
    tracing::error!(
        %generation, moved_to = %moved_aside.display(),
        "the store was damaged and was rebuilt from what is intact; the damaged one was moved aside whole"
    );
    Ok(Rebuilt {
        generation,
        moved_aside,
    })
}

/// What the log says of the store, but for the hints.
#[derive(Default)]
struct Known {
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    records: BTreeMap<NodeId, (NodeRecord, Vec<u8>)>,
    /// Queues that any record lists as retired, also one that was written over since: that is never
    /// undone.
    retired: BTreeSet<QueueRef>,
    cursors: HashMap<QueueRef, (Cursor, Vec<u8>)>,
    /// What is known of dead letters, and of those that are none any more. The log of the new
    /// generation has only those that are, so what is gone is forgotten there.
    letters: BTreeMap<Place, (Letter, Vec<u8>)>,
    gone_letters: HashMap<QueueId, GoneLetters>,
    /// The loss journal, likewise.
    losses: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Writes what is intact in the generation `from` into a new database in `into`, durably.
pub fn write(
    from: &Path,
    clean: Option<&Summary>,
    into: &Path,
    alive: &dyn Fn(),
) -> Result<(), OpenError> {
    let log = from.join("db");
    let mut known = Known::read(&log)?;
    alive();
    for record in [meta::SCHEMA, meta::STORE] {
        if !known.meta.contains_key(record.as_bytes()) {
            let detail = "no copy of it is intact in the log".to_owned();
            return Err(unopenable(
                from,
                UnopenableReason::Damaged { record, detail },
            ));
        }
    }
    if clean.is_some_and(|clean| {
        known
            .store()
            .is_some_and(|store| clean.is_of_another(store))
    }) {
        let detail = "it is of another store".to_owned();
        let record = "CLEAN";
        return Err(unopenable(
            from,
            UnopenableReason::Damaged { record, detail },
        ));
    }
    let wanted = known.wanted(clean);
    known.forget_letters(clean, &wanted);
    let engine = Arc::new(Engine::open(into, Arc::default())?);
    let mut repair = RepairWriter {
        writer: Writer::new(Arc::clone(&engine), "rebuild", Safeguard::GroupCommits),
        engine: &engine,
        alive,
    };
    let written = repair.write(&log, &known, &wanted);
    let committed = written.and_then(|()| Ok(repair.writer.commit()?));
    drop(repair);
    Engine::close_shared(engine)?;
    committed
}

/// Whether a summary names another store than a log.
pub fn is_of_another(log: &Path, clean: &Summary) -> Result<bool, StorageError> {
    let known = Known::read(log)?;
    Ok(known
        .store()
        .is_some_and(|store| clean.is_of_another(store)))
}

impl Known {
    /// Whose it is.
    fn store(&self) -> Option<StoreId> {
        let value = self.meta.get(meta::STORE.as_bytes())?;
        meta::decode(meta::STORE, value).ok().map(StoreId)
    }

    fn read(log: &Path) -> Result<Known, StorageError> {
        let mut known = Known::default();
        scan(log, |key, value| {
            known.see(key, value);
            Ok(())
        })?;
        Ok(known)
    }

    fn see(&mut self, key: &[u8], value: &[u8]) {
        if meta::is_record(key, value) {
            self.meta.insert(key.to_vec(), value.to_vec());
        } else if let Ok(node) = key.try_into().map(u64::from_be_bytes).map(NodeId) {
            if let Ok(record) = NodeRecord::decode(node, value) {
                self.retired.extend(&record.retired);
                self.records.insert(node, (record, value.to_vec()));
            }
        } else if let Some(queue) = GoneLetters::queue_of(key) {
            if let Ok(gone) = GoneLetters::decode(queue, value) {
                self.gone_letters.insert(queue, gone);
            }
        } else if loss_journal::is_record(key, value) {
            self.losses.insert(key.to_vec(), value.to_vec());
        } else if let Some(Key::Letter(place)) = Key::parse(key) {
            if let Ok(letter) = Letter::decode(place, value) {
                self.letters.insert(place, (letter, value.to_vec()));
            }
        } else if let Some(Key::Cursor(queue)) = Key::parse(key)
            && let Ok(cursor) = Cursor::decode(queue, value)
            && self
                .cursors
                .get(&queue)
                .is_none_or(|(known, _)| known.gone().hints <= cursor.gone().hints)
        {
            self.cursors.insert(queue, (cursor, value.to_vec()));
        }
    }

    /// Letters of a node that was removed stand in the log still. `CLEAN` names all queues that
    /// have any; without it, a record that is older than what it is asked about lists a queue as
    /// live at least.
    fn forget_letters(&mut self, clean: Option<&Summary>, wanted: &WantedBlocks) {
        let gone = &self.gone_letters;
        self.letters.retain(|place, (letter, _)| match letter {
            Letter::Dead(dead) => {
                let gone = gone.get(&place.queue.queue);
                !gone.is_some_and(|gone| gone.holds(dead.number))
            }
            // What points to where it was sent on stays.
            Letter::Redriven { .. } => true,
        });
        if let Some(clean) = clean {
            let named: BTreeSet<QueueRef> = clean.letters.iter().map(|it| it.queue).collect();
            return self.letters.retain(|place, _| named.contains(&place.queue));
        }
        let records = self.records.values();
        let listed: BTreeSet<QueueRef> = records
            .flat_map(|(record, _)| record.live.iter().chain(&record.dead))
            .copied()
            .collect();
        let records = &self.records;
        self.letters.retain(|Place { queue, .. }, _| {
            let has_record = records.contains_key(&queue.node);
            listed.contains(queue) || !has_record || wanted.from(*queue).is_some()
        });
    }

    fn is_dead(&self, place: Place) -> bool {
        let letter = self.letters.get(&place);
        letter.is_some_and(|(letter, _)| matches!(letter, Letter::Dead(_)))
    }

    /// Which queues are not done with, and where their cursors stand.
    fn wanted(&self, clean: Option<&Summary>) -> WantedBlocks {
        let cursor = |queue: &QueueRef| {
            let cursor = self.cursors.get(queue);
            cursor.map_or(Sequence(0), |(cursor, _)| cursor.next)
        };
        // No node lists these.
        let wal = (WAL, cursor(&WAL));
        if let Some(clean) = clean {
            let named = clean.queues.iter();
            let named = named.map(|it| (it.queue, it.cursor.max(cursor(&it.queue))));
            return WantedBlocks {
                queues: named.chain([wal]).collect(),
                without_clean: None,
            };
        }
        let live = self.records.values().flat_map(|(record, _)| &record.live);
        // A node that went by another name is a tombstone, and does not say who got its queues:
        // that record may be damaged.
        let known = self.records.iter().filter(|(_, (it, _))| !it.removed);
        WantedBlocks {
            queues: live
                .map(|queue| (*queue, cursor(queue)))
                .chain([wal])
                .collect(),
            without_clean: Some(Doubt {
                nodes_that_know: known.map(|(node, _)| *node).collect(),
                retired: self.retired.clone(),
            }),
        }
    }
}

struct WantedBlocks {
    /// With the sequence below which all is done with.
    queues: HashMap<QueueRef, Sequence>,
    without_clean: Option<Doubt>,
}

/// What tells which queues are done with where there is no `CLEAN`.
struct Doubt {
    /// Nodes whose record says which queues there are. A queue of any other node is wanted.
    nodes_that_know: BTreeSet<NodeId>,
    /// But these are not.
    retired: BTreeSet<QueueRef>,
}

impl WantedBlocks {
    /// The sequence from which on the queue's hints are wanted, `None` if none is.
    fn from(&self, queue: QueueRef) -> Option<Sequence> {
        let unknown = self.without_clean.as_ref().is_some_and(|doubt| {
            !doubt.nodes_that_know.contains(&queue.node) && !doubt.retired.contains(&queue)
        });
        self.queues
            .get(&queue)
            .copied()
            .or(unknown.then_some(Sequence(0)))
    }
}

struct RepairWriter<'a> {
    engine: &'a Engine,
    writer: Writer,
    alive: &'a dyn Fn(),
}

impl RepairWriter<'_> {
    fn write(&mut self, log: &Path, known: &Known, wanted: &WantedBlocks) -> Result<(), OpenError> {
        for (key, value) in &known.meta {
            self.insert(&self.engine.meta, key, value)?;
        }
        for (node, (_, value)) in &known.records {
            self.insert(&self.engine.nodes, &NodeRecord::key(*node), value)?;
        }
        for (queue, (_, value)) in &known.cursors {
            if wanted.from(*queue).is_some() {
                self.insert(&self.engine.hints, &queue.cursor_key(), value)?;
            }
        }
        for (place, (_, value)) in &known.letters {
            self.insert(&self.engine.hints, &place.letter_key(), value)?;
        }
        for (key, value) in &known.losses {
            self.insert(&self.engine.losses, key, value)?;
        }
        scan(log, |key, value| {
            // Padding keys are of use to the old log only, and a chunk's key may have been one.
            if value.is_empty() {
                return Ok(());
            }
            let (queue, first, chunk) = match Key::parse(key) {
                Some(Key::Chunk {
                    queue,
                    first,
                    chunk,
                }) => (queue, first, chunk),
                Some(Key::LetterChunk {
                    queue, sequence, ..
                }) if known.is_dead(Place { queue, sequence }) => {
                    return self.insert_new(key, value);
                }
                _ => return Ok(()),
            };
            let Some(from) = wanted.from(queue) else {
                return Ok(());
            };
            // Only the first chunk tells where its block ends; the others of a block that is done
            // with are trimmed later.
            let is_done = chunk == 0
                && Header::parse(queue, first, value).map_or(true, |header| header.last() < from);
            if is_done {
                return Ok(());
            }
            self.insert_new(key, value)
        })?;
        Ok(())
    }

    /// A block is written once and moved about by sled: all copies of a chunk are the same.
    fn insert_new(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let is_there = self.engine.hints.contains_key(key);
        if is_there.map_err(|error| StorageError::new("rebuild", error))? {
            return Ok(());
        }
        self.insert(&self.engine.hints, key, value)
    }

    fn insert(&mut self, table: &Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        (self.alive)();
        self.writer.put(table, key, value)
    }
}
