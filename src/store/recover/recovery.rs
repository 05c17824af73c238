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
            blocks::{self, ReadError},
            generation::Engine,
            meta::{self, MetaError},
            table,
        },
        failpoints::{Safeguard, is_off},
        format::{
            cursor::{Cursor, Leave},
            keys::{Key, Place, QueueRef, WAL},
            node_record::NodeRecord,
            node_status::Status,
            shutdown_summary::{CleanQueue, Summary},
        },
        recover::{
            dead_letters::{self, Repaired},
            memtable::Found,
            ownership::list_as_named,
        },
        state::{
            forwarding::{self, Redriven},
            holds::SaidOfAll,
            queue::{NodeQueues, Queue},
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

/// Gives queues that no record lists back to the node that their hints were first meant for, oldest
/// first. Returns the nodes that got some.
fn adopt_unlisted(
    records: &mut HashMap<NodeId, NodeRecord>,
    found: &BTreeSet<QueueRef>,
    registry: &mut Registry,
) -> BTreeSet<NodeId> {
    let mut adopted = BTreeSet::new();
    let listed: BTreeSet<QueueRef> = records
        .values()
        .flat_map(|record| {
            record
                .live
                .iter()
                .chain(&record.retired)
                .chain(&record.dead)
        })
        .copied()
        .collect();
    for at in found.difference(&listed).copied() {
        registry.note_damage(Damage {
            node: at.node,
            queue: at.queue,
            what: "no node listed the queue; it was given back to the node it was meant for"
                .to_owned(),
            lost: None,
        });
        let record = records.entry(at.node).or_default();
        record.removed = false;
        // Before those that were begun later for the same node. What came by a rename has its own
        // order.
        let later = |other: &QueueRef| other.node == at.node && other.queue > at.queue;
        let place = record.live.iter().position(later);
        record.live.insert(place.unwrap_or(record.live.len()), at);
        // It may have dead letters; whether it does is looked up with those of the node.
        record.dead.push(at);
        adopted.insert(at.node);
    }
    adopted
}

/// A queue has one node. Records that a rename changed as one can only contradict each other where
/// the disk gave back an old one.
///
/// Then what one of them lists as retired is done with: that is never undone. Else the queue
/// belongs to the node that is not the one in its keys, since it was moved there at some time.
fn list_once(
    records: &mut HashMap<NodeId, NodeRecord>,
    registry: &mut Registry,
) -> BTreeSet<NodeId> {
    let retired: BTreeSet<QueueRef> = records
        .values()
        .flat_map(|it| &it.retired)
        .copied()
        .collect();
    let mut nodes: Vec<NodeId> = records.keys().copied().collect();
    nodes.sort_unstable();
    let mut owners: BTreeMap<QueueRef, NodeId> = BTreeMap::new();
    for node in &nodes {
        for at in records.get(node).into_iter().flat_map(|it| &it.live) {
            let owner = owners.entry(*at).or_insert(*node);
            if *owner == at.node {
                *owner = *node;
            }
        }
    }
    let mut rewritten = BTreeSet::new();
    for node in nodes {
        let Some(record) = records.get_mut(&node) else {
            continue;
        };
        let foreign = |at: &mut QueueRef| {
            retired.contains(at) || owners.get(at).is_some_and(|it| *it != node)
        };
        let gone: Vec<QueueRef> = record.live.extract_if(.., foreign).collect();
        for at in &gone {
            registry.note_damage(Damage {
                node,
                queue: at.queue,
                what: "two nodes listed the queue; it was left to the one that got it later"
                    .to_owned(),
                lost: None,
            });
        }
        if !gone.is_empty() {
            rewritten.insert(node);
        }
    }
    rewritten
}

/// A pause of all that does not read is none: what waits must not wait for ever, and it is told.
fn paused_all(engine: &Engine) -> Result<bool, MetaError> {
    match meta::paused(engine) {
        Err(MetaError::Damaged { record, detail }) => {
            tracing::error!(
                record,
                detail,
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

/// Where a queue's blocks end.
struct FoundTail {
    last: Sequence,
    bytes: u64,
    intact: bool,
}

fn load_queue(
    engine: &Engine,
    at: QueueRef,
    clean: Option<&CleanQueue>,
    registry: &mut Registry,
) -> Result<Queue, table::Error> {
    let mut note = |what: String| {
        registry.note_damage(Damage {
            node: at.node,
            queue: at.queue,
            what,
            lost: None,
        });
    };
    let mut closed = false;
    let tail = load_tail(engine, at)?;
    let mut cursor = match load_cursor(engine, at, clean)? {
        Ok(cursor) => cursor,
        Err((rebuilt, what)) => {
            note(what);
            closed = true;
            rebuilt
        }
    };
    if let Some(clean) = clean.filter(|clean| clean.cursor > cursor.next) {
        note(format!(
            "the cursor says {}, CLEAN says {}; going on with the latter",
            cursor.next, clean.cursor
        ));
        let through = Sequence(clean.cursor.0.saturating_sub(1));
        cursor.advance(through, clean.cursor_bytes, Leave::Delivered);
        closed = true;
    }
    // All blocks may be trimmed: then the cursor alone knows how far the queue got.
    let drained = Sequence(cursor.next.0.saturating_sub(1));
    let highest = cursor.above.iter().last().map_or(drained, |it| it.last);
    let (mut watermark, mut bytes) = (highest, cursor.gone().bytes);
    if let Some(tail) = tail {
        if tail.last >= watermark {
            (watermark, bytes) = (tail.last, tail.bytes.max(bytes));
        }
        closed |= !tail.intact;
    }
    if let Some(clean) = clean.filter(|clean| clean.next.0 > watermark.0 + 1) {
        note(format!(
            "its blocks end at {}, CLEAN says {}; replay will report what is missing",
            watermark,
            clean.next.0 - 1
        ));
        (watermark, bytes) = (Sequence(clean.next.0 - 1), clean.bytes);
        closed = true;
    }
    Ok(Queue {
        cursor,
        closed,
        ..Queue::new(at, watermark, bytes)
    })
}

/// The outer error is the engine's; the inner one is a cursor that had to be rebuilt, and why.
fn load_cursor(
    engine: &Engine,
    at: QueueRef,
    clean: Option<&CleanQueue>,
) -> Result<Result<Cursor, (Cursor, String)>, table::Error> {
    let stored = engine.hints.get(at.cursor_key())?;
    let why = match stored.as_deref().map(|value| Cursor::decode(at, value)) {
        Some(Ok(cursor)) => return Ok(Ok(cursor)),
        Some(Err(error)) => Some(format!("the cursor: {error}")),
        None => None,
    };
    let first = blocks::starts(&engine.hints, at, Sequence(1))
        .next()
        .transpose()?;
    let rebuilt = match (clean, first) {
        (Some(clean), _) => Cursor::rebuilt(clean.cursor, clean.cursor_bytes),
        (None, Some(first)) => {
            let bytes_before = match blocks::read(&engine.hints, at, first) {
                Ok(Some(block)) => block.header.bytes_before,
                Err(ReadError::Engine(error)) => return Err(error),
                _ => 0,
            };
            Cursor::rebuilt(first, bytes_before)
        }
        (None, None) => Cursor::start(),
    };
    match why {
        Some(what) => Ok(Err((rebuilt, what))),
        // Nothing was acknowledged yet: a queue has no cursor before its first ack.
        None if rebuilt.next == Sequence(1) => Ok(Ok(rebuilt)),
        None => Ok(Err((rebuilt, "the cursor is missing".to_owned()))),
    }
}

/// Finds the last block. One that does not read is counted by what its header claims: what is
/// claimed in excess is reported as lost, what is claimed too little is not there to be read.
fn load_tail(engine: &Engine, at: QueueRef) -> Result<Option<FoundTail>, table::Error> {
    let Some(first) = blocks::last_start(&engine.hints, at, Sequence(u64::MAX))? else {
        return Ok(None);
    };
    match blocks::read(&engine.hints, at, first) {
        Ok(Some(block)) => Ok(Some(FoundTail {
            last: block.header.last(),
            bytes: block.header.bytes_through(),
            intact: true,
        })),
        Err(ReadError::Engine(error)) => Err(error),
        Ok(None) | Err(ReadError::Damaged(_)) => {
            let claimed = engine
                .hints
                .get(at.chunk_key(first, 0))?
                .and_then(|chunk0| {
                    crate::store::format::block::Header::parse(at, first, &chunk0).ok()
                });
            Ok(Some(FoundTail {
                last: claimed.map_or(first, |header| header.last()),
                bytes: claimed.map_or(0, |header| header.bytes_through()),
                intact: false,
            }))
        }
    }
}
