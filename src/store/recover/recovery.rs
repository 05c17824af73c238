//! What an open finds on disk: nodes, queues, cursors, tails; checked against `CLEAN` where there
//! is one.
//!
//! sled may have lost records without a word (docs/sled.md rule 10), so nothing found is taken on
//! trust: a queue that no node lists is adopted, a cursor that does not read is rebuilt from the
//! blocks, a tail that `CLEAN` knows better is marked so that replay finds and reports what is
//! missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    stats::Damage,
    store::{
        commit::loss_journal::Journal,
        engine::{
            generation::Engine,
            meta::{self, MetaError},
            table,
        },
        failpoints::{Safeguard, is_off},
        format::{
            keys::{Key, Place, QueueRef, WAL},
            node_record::NodeRecord,
            node_status::Status,
            shutdown_summary::{CleanQueue, Summary},
        },
        recover::{
            dead_letters::{self, Repaired},
            found_queue::load_queue,
            memtable::Found,
            ownership::{adopt_unlisted, list_as_named, list_once},
        },
        state::{
            forwarding::{self, Redriven},
            holds::SaidOfAll,
            queue::NodeQueues,
            registry::Registry,
        },
    },
    types::{NodeId, QueueId, Sequence, StoreId},
};

/// Queue ids skipped after an unclean stop: ids given out just before it may have left no trace.
const QUEUE_IDS_SKIPPED: u64 = 1 << 20;

pub struct Recovered {
    pub store: StoreId,
    pub next_queue: u64,
    pub records: HashMap<NodeId, NodeRecord>,
    /// What the host said of all nodes.
    pub said: SaidOfAll,
    /// Nodes whose record is not what is on disk.
    pub rewritten: BTreeSet<NodeId>,
    pub registry: Registry,
    /// Every queue on disk that is listed as live, with the node that drains it.
    pub live: Vec<(NodeId, QueueRef)>,
    /// Queues whose keys wait to be trimmed whole.
    pub retired: Vec<(NodeId, QueueRef)>,
    /// The number of the next hint in a WAL record.
    pub wal_next: Sequence,
    pub journal: Journal,
    /// By where they are now, where hints stood that were dead letters and are not done with.
    pub redriven: Redriven,
    /// What points to hints that are done with.
    pub stale: Vec<Place>,
    /// Blocks of what is no dead letter.
    pub letter_blocks: Vec<Place>,
    pub repaired: Repaired,
}

/// Loads everything. `clean` is the summary of a clean shutdown, `None` after any other stop.
pub fn recover(
    engine: &Engine,
    clean: Option<&Summary>,
    wal: Found,
) -> Result<Recovered, MetaError> {
    let store = meta::store_id(engine)?.ok_or(MetaError::Damaged {
        record: "store",
        detail: "it is missing".to_owned(),
    })?;
    let mut registry = Registry::default();
    let note = |damage| registry.note_damage(damage);
    wal.damage.into_iter().for_each(note);
    let mut records = load_records(engine, &mut registry)?;
    let summary: BTreeMap<QueueRef, &CleanQueue> = clean
        .into_iter()
        .flat_map(|clean| &clean.queues)
        .map(|entry| (entry.queue, entry))
        .collect();

    let found = queues_on_disk(engine)?;
    let mut rewritten = match clean {
        Some(clean) => list_as_named(&mut records, &found, clean, &mut registry),
        None => {
            let mut rewritten = list_once(&mut records, &mut registry);
            rewritten.extend(adopt_unlisted(&mut records, &found, &mut registry));
            rewritten
        }
    };

    let (mut live, mut retired) = (Vec::new(), Vec::new());
    let (mut redriven, mut stale) = (Redriven::default(), Vec::new());
    let mut letter_blocks = Vec::new();
    let (mut journal, mut repaired) = (Journal::load(&engine.losses)?, Repaired::default());
    for (node, record) in &mut records {
        let found = dead_letters::find(engine, record)?;
        let named = clean.into_iter().flat_map(|clean| &clean.letters);
        for named in named.filter(|it| it.node == *node) {
            if let Some(missing) = found.missing(named) {
                repaired.note_missing(missing, &mut journal, &mut registry);
            }
        }
        if found.queues != record.dead {
            record.dead = found.queues;
            rewritten.insert(*node);
        }
        for (now, stood) in found.redriven {
            for place in stood {
                forwarding::found(&mut redriven, place, now);
            }
        }
        stale.extend(found.stale);
        letter_blocks.extend(found.blocks);
        for damaged in found.damaged {
            repaired.take(*node, damaged, &mut journal, &mut registry);
        }
        let mut queues = NodeQueues {
            letters: found.tallies,
            status: load_status(engine, *node)?,
            ..NodeQueues::default()
        };
        for at in &record.live {
            let mut queue = load_queue(engine, *at, summary.get(at).copied(), &mut registry)?;
            // Without a summary the disk may have lost the end of any queue.
            let numbers_may_be_lost = summary.get(at).is_none_or(|entry| entry.closed);
            queue.closed |= numbers_may_be_lost && !is_off(Safeguard::NewQueues);
            queues.queues.push_back(queue);
            live.push((*node, *at));
        }
        if !record.removed {
            registry.nodes.insert(*node, queues);
        }
        retired.extend(record.retired.iter().map(|at| (*node, *at)));
    }
    Ok(Recovered {
        store,
        next_queue: next_queue(engine, &records, &found, clean)?,
        records,
        said: SaidOfAll {
            paused: paused_all(engine)?,
            members: meta::members(engine)?,
        },
        rewritten,
        registry,
        live,
        retired,
        wal_next: wal.next,
        journal,
        redriven,
        stale,
        letter_blocks,
        repaired,
    })
}

fn load_records(
    engine: &Engine,
    registry: &mut Registry,
) -> Result<HashMap<NodeId, NodeRecord>, table::Error> {
    let mut records = HashMap::new();
    for entry in engine.nodes.iter() {
        let (key, value) = entry?;
        if Status::node_of(&key).is_some() {
            continue;
        }
        let Ok(node) = key.as_ref().try_into().map(u64::from_be_bytes).map(NodeId) else {
            tracing::error!(key = ?key, "a key of the nodes tree is not ours");
            continue;
        };
        match NodeRecord::decode(node, &value) {
            Ok(record) => {
                records.insert(node, record);
            }
            // Its queues are found by their keys and adopted.
            Err(error) => registry.note_damage(Damage {
                node,
                queue: QueueId(0),
                what: format!("the node's record: {error}"),
                lost: None,
            }),
        }
    }
    Ok(records)
}

/// What is damaged or missing was worth little.
fn load_status(engine: &Engine, node: NodeId) -> Result<Status, table::Error> {
    let value = engine.nodes.get(Status::key(node))?;
    let status = value.and_then(|value| Status::decode(node, &value).ok());
    Ok(status.unwrap_or_default())
}

/// Every queue that has a key: one seek a queue, no scan.
fn queues_on_disk(engine: &Engine) -> Result<BTreeSet<QueueRef>, table::Error> {
    let mut found = BTreeSet::new();
    let mut from = Vec::new();
    while let Some(entry) = engine.hints.range(from.as_slice()..).next() {
        let (key, _) = entry?;
        match Key::parse(&key) {
            Some(key) => {
                // All that WAL records hold was flushed before.
                if key.queue() != WAL {
                    found.insert(key.queue());
                }
                from = key.queue().end_key().to_vec();
                from.push(0);
            }
            None => {
                tracing::error!(key = ?key, "a key of the hints tree is not ours");
                from = [&key, [0].as_slice()].concat();
            }
        }
    }
    Ok(found)
}

/// A pause of all that does not read is none: what waits must not wait for ever, and it is told.
fn paused_all(engine: &Engine) -> Result<bool, MetaError> {
    match meta::paused(engine) {
        Err(MetaError::Damaged { record, detail }) => {
            tracing::error!(
                record,
                error = detail,
                "whether all replay is paused is not known; it is not"
            );
            Ok(false)
        }
        other => other,
    }
}

fn next_queue(
    engine: &Engine,
    records: &HashMap<NodeId, NodeRecord>,
    found: &BTreeSet<QueueRef>,
    clean: Option<&Summary>,
) -> Result<u64, MetaError> {
    let listed = records.values().flat_map(|record| {
        record
            .live
            .iter()
            .chain(&record.retired)
            .chain(&record.dead)
    });
    let highest = listed.chain(found).map(|at| at.queue.0).max().unwrap_or(0);
    let stored = meta::next_queue(engine)?;
    if stored.is_none() {
        tracing::error!(
            "the next_queue record is damaged; queue ids go on above all that are found"
        );
    }
    let next = stored.unwrap_or(1).max(highest.saturating_add(1));
    Ok(match clean {
        // Whatever sled lost, this is where the ids went on.
        Some(clean) => next.max(clean.next_queue),
        None => next.saturating_add(QUEUE_IDS_SKIPPED),
    })
}
