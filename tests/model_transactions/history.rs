//! The order in which all that was handed in comes into effect, and what of it is certain to
//! survive.
//!
//! The store takes what is handed in one by one and in order, so that is the order in which the
//! model judges it: each as if it ran alone at its place. What is not known to be durable is kept
//! as a log of changes: after a stop that was not clean the store must show the world after some
//! number of them. A group is one with the transactions in it, so only hints behind the last
//! transaction that is there may be there or not by themselves, the first ones of each node.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use hinted_handoff::{HintId, QueueId, Sequence, StoreId, sled::IVec};

use crate::{
    operation::{Ending, Row},
    script::{Reads, Run},
    world::{Change, Hint, Left, QueueNumber, World},
};

/// What must come of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Applied,
    /// It read what is not so any more.
    Conflict,
    NotNext(HintId),
    /// By itself.
    GivesUp(Ending),
}

/// A run, and what must come of it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its place in the log.
    pub number: u64,
    pub verdict: Verdict,
    pub reads: Reads,
    pub hints: Vec<Hint>,
    pub changes_nothing: bool,
}

/// Hints of each node as the store shows them, in order.
pub type ShownHints = BTreeMap<u64, Vec<(QueueId, u64)>>;

/// What a stop that was not clean left.
#[derive(Debug)]
pub struct Shown {
    pub rows: BTreeMap<Row, IVec>,
    pub pending: ShownHints,
    pub letters: ShownHints,
}

/// What a stop that was not clean left open, and how it turned out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resolved {
    pub there: usize,
    pub gone: usize,
    pub undone: usize,
}

#[derive(Debug)]
pub struct History {
    store: StoreId,
    /// What will be there after any stop.
    base: World,
    log: Vec<(u64, Change)>,
    /// `base` with all of `log`.
    pub now: World,
    /// Hints that left a queue by replay, which a stop may undo.
    undoable: BTreeMap<u64, VecDeque<(Hint, Left)>>,
    hinted: HashSet<u64>,
    ids: BTreeMap<QueueNumber, QueueId>,
    /// Of all queues that ever were.
    used_ids: HashSet<QueueId>,
    numbers: u64,
}

impl History {
    pub fn new(store: StoreId) -> Self {
        History {
            store,
            base: World::default(),
            log: Vec::new(),
            now: World::default(),
            undoable: BTreeMap::new(),
            hinted: HashSet::new(),
            ids: BTreeMap::new(),
            used_ids: HashSet::new(),
            numbers: 0,
        }
    }

    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Judges what is handed in now.
    pub fn propose(&mut self, run: &Run) -> Judged {
        self.numbers += 1;
        let is_so = |(row, read): (&Row, &Option<IVec>)| self.now.row(*row) == read.as_ref();
        let verdict = if !run.reads.iter().all(is_so) {
            Verdict::Conflict
        } else if run.ending != Ending::Commit {
            Verdict::GivesUp(run.ending)
        } else {
            self.acks_not_next(run)
                .map_or(Verdict::Applied, Verdict::NotNext)
        };
        let mut judged = Judged {
            number: self.numbers,
            reads: run.reads.clone(),
            hints: Vec::new(),
            changes_nothing: true,
            verdict,
        };
        if judged.verdict == Verdict::Applied {
            let change = self.change(run);
            judged.hints = change.hints.iter().map(|(_, hint)| hint.clone()).collect();
            judged.changes_nothing = change.changes_nothing();
            self.now.apply(&change);
            if !judged.changes_nothing {
                self.log.push((judged.number, change));
            }
        }
        judged
    }

    /// The first hint that is to be acknowledged and is not the next one of its queue.
    fn acks_not_next(&self, run: &Run) -> Option<HintId> {
        let mut acked: BTreeMap<u64, usize> = BTreeMap::new();
        for (node, id) in &run.acks {
            let place = acked.entry(*node).or_default();
            let next = self
                .now
                .nodes
                .get(node)
                .and_then(|it| it.pending.get(*place));
            if next.and_then(|hint| self.id(hint)) != Some(*id) {
                return Some(*id);
            }
            *place += 1;
        }
        None
    }

    fn change(&mut self, run: &Run) -> Change {
        let mut change = Change {
            writes: run.writes.clone(),
            is_plain: run.is_plain_hint,
            ..Change::default()
        };
        for (node, _) in &run.acks {
            *change.acks.entry(*node).or_default() += 1;
        }
        let mut tails: BTreeMap<u64, (QueueNumber, u64)> = BTreeMap::new();
        for (node, shard, payload) in &run.hints {
            let known = self.now.nodes.get(node).and_then(|node| node.tail);
            let new = (self.numbers * 100 + *node, 1);
            let tail = tails.entry(*node).or_insert(known.unwrap_or(new));
            let hint = Hint {
                queue: tail.0,
                sequence: tail.1,
                shard: *shard,
                payload: payload.clone(),
            };
            tail.1 += 1;
            change.hints.push((*node, hint));
        }
        change
    }

    /// The store's id of a hint, if its queue's is known.
    pub fn id(&self, hint: &Hint) -> Option<HintId> {
        let queue = *self.ids.get(&hint.queue)?;
        Some(HintId {
            store: self.store,
            queue,
            sequence: Sequence(hint.sequence),
        })
    }

    /// The store says that this is the id of a hint.
    pub fn learn(&mut self, hint: &Hint, id: HintId) -> Result<(), String> {
        let expected = self.ids.get(&hint.queue).copied();
        let is_new = expected.is_none();
        let same_queue = expected.is_none_or(|expected| expected == id.queue);
        if id.store != self.store || id.sequence.0 != hint.sequence || !same_queue {
            let sequence = hint.sequence;
            return Err(format!(
                "{id} was given out, expected {expected:?}/{sequence}"
            ));
        }
        if is_new && !self.used_ids.insert(id.queue) {
            return Err(format!("{id} starts a queue although its id was in use"));
        }
        self.ids.insert(hint.queue, id.queue);
        Ok(())
    }

    /// A hint was shown: it is durable, and all that was handed in before it.
    pub fn shown(&mut self, hint: &Hint) {
        let holds = |(_, change): &(u64, Change)| change.hints.iter().any(|(_, it)| it == hint);
        if let Some(place) = self.log.iter().position(holds) {
            for (_, change) in self.log.drain(..=place) {
                self.base.apply(&change);
            }
        }
    }

    /// Whether it is a hint that is not known to be durable.
    pub fn is_uncertain(&self, payload: &Bytes) -> bool {
        let mut hints = self.log.iter().flat_map(|(_, change)| &change.hints);
        hints.any(|(_, hint)| hint.payload == *payload)
    }

    /// The first hints of a node, which were shown, left by replay.
    pub fn left(&mut self, node: u64, hints: usize, how: Left) {
        self.base.leave(node, hints, how);
        let left = self.now.leave(node, hints, how).into_iter();
        let undoable = self.undoable.entry(node).or_default();
        undoable.extend(left.map(|hint| (hint, how)));
    }

    /// This was refused, and so was all that was handed in behind it.
    pub fn refused(&mut self, number: u64) {
        self.log.retain(|(it, _)| *it < number);
        self.now = self.base.clone();
        self.log.iter().for_each(|(_, it)| self.now.apply(it));
    }

    /// All that was handed in is durable.
    pub fn settle(&mut self) {
        let nodes = self.now.nodes.iter();
        let hinted = nodes.filter(|(_, it)| it.tail.is_some() || !it.pending.is_empty());
        self.hinted.extend(hinted.map(|(number, _)| *number));
        self.base = self.now.clone();
        self.log.clear();
    }

    /// And what left by replay, too.
    pub fn synced(&mut self) {
        self.settle();
        self.undoable.clear();
    }

    /// Whether anything was durable for the node since it was last removed, when all that was
    /// handed in is.
    pub fn was_hinted(&self, node: u64) -> bool {
        self.hinted.contains(&node)
    }

    /// The node was removed, after a sync.
    pub fn removed(&mut self, node: u64) {
        self.now.remove(node);
        self.synced();
        self.hinted.remove(&node);
    }

    /// A stop that was not clean left this. Goes on from there, if it is one of the worlds that may
    /// be left.
    pub fn resolve(&mut self, shown: &Shown) -> Result<Resolved, String> {
        let ends = (1..=self.log.len()).filter(|end| !self.log[end - 1].1.is_plain);
        let ends: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let mut why = Vec::new();
        for end in ends.into_iter().rev() {
            match self.world_after(end, shown) {
                Ok((world, resolved)) => {
                    self.take_up(world, &shown.pending)?;
                    return Ok(resolved);
                }
                Err(different) => why.push(format!("after {end} changes: {different}")),
            }
        }
        Err(format!(
            "what is there is not the world after any number of changes:\n  {}",
            why.join("\n  ")
        ))
    }

    /// The world after so many changes, with what may be there besides.
    fn world_after(&self, end: usize, shown: &Shown) -> Result<(World, Resolved), String> {
        let mut world = self.base.clone();
        self.log[..end].iter().for_each(|(_, it)| world.apply(it));
        same_rows(&world.rows, &shown.rows)?;
        let mut resolved = Resolved {
            there: end,
            gone: self.log.len() - end,
            undone: 0,
        };
        let plain = self.log[end..].iter().take_while(|(_, it)| it.is_plain);
        let plain: Vec<&(u64, Hint)> = plain.flat_map(|(_, it)| &it.hints).collect();
        let nodes: HashSet<u64> = world
            .nodes
            .keys()
            .chain(shown.pending.keys())
            .chain(shown.letters.keys())
            .chain(plain.iter().map(|it| &it.0))
            .copied()
            .collect();
        for number in nodes {
            let undoable: Vec<&(Hint, Left)> =
                self.undoable.get(&number).into_iter().flatten().collect();
            let mut all: Vec<Hint> = undoable.iter().map(|(hint, _)| hint.clone()).collect();
            all.extend(world.node(number).pending.iter().cloned());
            let certain = all.len();
            let behind = plain.iter().filter(|it| it.0 == number);
            all.extend(behind.map(|(_, hint)| hint.clone()));
            let pending = shown.pending.get(&number).map_or(&[][..], Vec::as_slice);
            let Some(from) = self.place_of(pending, &all, undoable.len(), certain) else {
                return Err(format!(
                    "node {number} shows {pending:?}, where {certain} are expected"
                ));
            };
            for (hint, how) in undoable.iter().skip(from) {
                world.undo(number, hint, *how);
                resolved.undone += 1;
            }
            let moved = (from + pending.len()).saturating_sub(certain);
            resolved.there += moved;
            resolved.gone -= moved;
            world.node(number).pending = all[from..from + pending.len()].to_vec().into();
            self.same_letters(number, &world.node(number).letters, &shown.letters)?;
        }
        Ok((world, resolved))
    }

    /// A hint that left as a dead letter is one, whatever the stop undid, and one that is back is
    /// none.
    fn same_letters(&self, node: u64, expected: &[Hint], shown: &ShownHints) -> Result<(), String> {
        let ids = expected.iter().filter_map(|hint| self.id(hint));
        let expected: Vec<_> = ids.map(|id| (id.queue, id.sequence.0)).collect();
        let shown = shown.get(&node).map_or(&[][..], Vec::as_slice);
        match expected == shown {
            true => Ok(()),
            false => Err(format!(
                "node {node} has the dead letters {shown:?}, expected {expected:?}"
            )),
        }
    }

    /// Where in `all` what is shown begins: not behind `undoable`, and it reaches at least to
    /// `certain`.
    fn place_of(
        &self,
        shown: &[(QueueId, u64)],
        all: &[Hint],
        undoable: usize,
        certain: usize,
    ) -> Option<usize> {
        let is_it = |(shown, hint): (&(QueueId, u64), &Hint)| {
            let known = self.ids.get(&hint.queue);
            let same_queue = match known {
                Some(known) => *known == shown.0,
                None => !self.used_ids.contains(&shown.0),
            };
            same_queue && shown.1 == hint.sequence
        };
        let lasts = |from: &usize| {
            let end = from + shown.len();
            (certain..=all.len()).contains(&end) && shown.iter().zip(&all[*from..end]).all(is_it)
        };
        (0..=undoable).rev().find(lasts)
    }

    fn take_up(&mut self, mut world: World, shown: &ShownHints) -> Result<(), String> {
        for (number, node) in &mut world.nodes {
            // Queues are closed by such a stop.
            node.tail = None;
            let shown = shown.get(number).into_iter().flatten();
            for (hint, (queue, sequence)) in node.pending.iter().zip(shown) {
                let id = HintId {
                    store: self.store,
                    queue: *queue,
                    sequence: Sequence(*sequence),
                };
                self.learn(hint, id)?;
            }
        }
        self.now = world;
        self.synced();
        Ok(())
    }
}

fn same_rows(expected: &BTreeMap<Row, IVec>, shown: &BTreeMap<Row, IVec>) -> Result<(), String> {
    let all = expected.keys().chain(shown.keys());
    let differing: Vec<&Row> = all
        .filter(|row| expected.get(row) != shown.get(row))
        .collect();
    match differing.is_empty() {
        true => Ok(()),
        false => Err(format!("rows differ: {differing:?}")),
    }
}
