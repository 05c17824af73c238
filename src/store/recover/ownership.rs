//! Which node has which queue. Where `CLEAN` says so it has the last word, since sled may have lost
//! what was written last, or brought back what was done with; else what the records and the keys
//! say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    stats::Damage,
    store::{
        format::{keys::QueueRef, node_record::NodeRecord, shutdown_summary::Summary},
        state::registry::Registry,
    },
    types::NodeId,
};

/// Makes the records list what `CLEAN` names, and nothing else. Returns the nodes whose record is
/// another now.
pub fn list_as_named(
    records: &mut HashMap<NodeId, NodeRecord>,
    found: &BTreeSet<QueueRef>,
    clean: &Summary,
    registry: &mut Registry,
) -> BTreeSet<NodeId> {
    let mut live: BTreeMap<NodeId, Vec<QueueRef>> = BTreeMap::new();
    let mut dead: BTreeMap<NodeId, Vec<QueueRef>> = BTreeMap::new();
    for it in &clean.queues {
        live.entry(it.node).or_default().push(it.queue);
    }
    for it in &clean.letters {
        dead.entry(it.node).or_default().push(it.queue);
    }
    let mut rewritten = forget_the_rest(records, found, clean, registry);
    let known: BTreeSet<NodeId> = records.keys().chain(live.keys()).copied().collect();
    for node in known.into_iter().chain(dead.keys().copied()) {
        let live = live.get(&node).map_or(&[][..], Vec::as_slice);
        let dead = dead.get(&node).map_or(&[][..], Vec::as_slice);
        let record = records.entry(node).or_default();
        let lacks: BTreeSet<QueueRef> = missing(&record.live, live)
            .chain(missing(&record.dead, dead))
            .collect();
        if record.live == live && lacks.is_empty() {
            continue;
        }
        for at in lacks {
            registry.note_damage(Damage {
                node,
                queue: at.queue,
                what: "the node's record did not list the queue; CLEAN says that it has it"
                    .to_owned(),
                lost: None,
            });
            if !live.contains(&at) && !record.retired.contains(&at) {
                // But for the dead letters in it, it may not have been given back to the engine
                // yet.
                record.retired.push(at);
            }
        }
        for at in missing(live, &record.live) {
            registry.note_damage(Damage {
                node,
                queue: at.queue,
                what: "the node listed a queue that it had no more; CLEAN says whose it is"
                    .to_owned(),
                lost: None,
            });
        }
        record.live = live.to_vec();
        record.dead = dead.to_vec();
        record.removed = false;
        rewritten.insert(node);
    }
    rewritten
}

/// What is named and not listed.
fn missing(listed: &[QueueRef], named: &[QueueRef]) -> impl Iterator<Item = QueueRef> {
    named.iter().filter(|at| !listed.contains(at)).copied()
}

/// Has what no node has any more given back to the engine: sled lost the records that retired it,
/// or removed its node.
fn forget_the_rest(
    records: &mut HashMap<NodeId, NodeRecord>,
    found: &BTreeSet<QueueRef>,
    clean: &Summary,
    registry: &mut Registry,
) -> BTreeSet<NodeId> {
    let live: BTreeSet<QueueRef> = clean.queues.iter().map(|it| it.queue).collect();
    let dead: BTreeMap<QueueRef, NodeId> =
        clean.letters.iter().map(|it| (it.queue, it.node)).collect();
    let mut rewritten = BTreeSet::new();
    let mut retired: BTreeSet<QueueRef> = BTreeSet::new();
    let mut moved: Vec<(NodeId, QueueRef)> = Vec::new();
    for (node, record) in records.iter_mut() {
        let is_done = |at: &mut QueueRef| !live.contains(at);
        let done: Vec<QueueRef> = record.live.extract_if(.., is_done).collect();
        for at in done {
            registry.note_damage(Damage {
                node: *node,
                queue: at.queue,
                what: "the queue came back; CLEAN knows that it was done with".to_owned(),
                lost: None,
            });
            record.retired.push(at);
            rewritten.insert(*node);
        }
        let before = record.dead.len() + record.retired.len();
        record.dead.retain(|at| dead.get(at) == Some(node));
        record.retired.retain(|at| !live.contains(at));
        retired.extend(&record.retired);
        // Its dead letters are another's by now, so they must not go with it.
        let is_anothers = |at: &mut QueueRef| dead.get(at).is_some_and(|it| it != node);
        let theirs = record.retired.extract_if(.., is_anothers);
        moved.extend(theirs.filter_map(|at| Some((*dead.get(&at)?, at))));
        if record.dead.len() + record.retired.len() < before {
            rewritten.insert(*node);
        }
    }
    for (node, at) in moved {
        let record = records.entry(node).or_default();
        if !record.retired.contains(&at) {
            record.retired.push(at);
            rewritten.insert(node);
        }
    }
    let is_named = |at: &QueueRef| live.contains(at) || dead.contains_key(at);
    for at in found
        .iter()
        .filter(|at| !is_named(at) && !retired.contains(at))
    {
        let removed = NodeRecord {
            removed: true,
            ..NodeRecord::default()
        };
        records.entry(at.node).or_insert(removed).retired.push(*at);
        rewritten.insert(at.node);
    }
    rewritten
}

/// Gives queues that no record lists back to the node that their hints were first meant for, oldest
/// first. Returns the nodes that got some.
pub fn adopt_unlisted(
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
pub fn list_once(
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
