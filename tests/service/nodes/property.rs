//! Random writes, acknowledgements, renames, removals and restarts of a store, against a model: for
//! each node a list of what is pending, in order. `HH_SEED` runs a seed again, `HH_CYCLES` is the
//! number of seeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::common;
use hinted_handoff::{
    HandoffError, HintId, NodeId,
    internals::{Leave, Peek, PeekLimits, PeekedHint, Reader, Store},
};

const NODES: u64 = 4;
const STEPS: usize = 120;

type Model = BTreeMap<u64, Vec<(HintId, String)>>;

struct Run {
    dir: tempfile::TempDir,
    store: Option<Store>,
    model: Model,
    /// Nodes that were hinted and not given up since.
    known: BTreeSet<u64>,
    ids: BTreeSet<HintId>,
    written: u64,
}

impl Run {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// All that is pending for a node, over all its queues, as replay reads it.
    fn pending(&self, node: u64) -> Vec<PeekedHint> {
        let (mut reader, mut from, mut all) = (Reader::default(), None, Vec::new());
        let limits = PeekLimits {
            hints: 3,
            payload_bytes: u64::MAX,
        };
        loop {
            let peeked = self
                .store()
                .peek_from(&mut reader, NodeId(node), from, limits);
            match peeked.unwrap() {
                Peek::Empty => return all,
                Peek::Hints(hints) => all.extend(hints),
                Peek::Damaged(place) => panic!("{place:?} is damaged"),
            }
            from = all.last().map(|it: &PeekedHint| it.mark.place().next());
        }
    }

    fn write(&mut self, node: u64, hints: usize) {
        let texts: Vec<_> = (0..hints as u64)
            .map(|it| (self.written + it).to_string())
            .collect();
        self.written += hints as u64;
        let new = texts.iter().map(|text| common::hint(1, text.clone()));
        let ids = common::try_append(self.store(), node, new.collect());
        self.known.insert(node);
        for (id, text) in ids.into_iter().zip(texts) {
            let id = id.unwrap();
            assert!(self.ids.insert(id), "{id} was used twice");
            self.model.entry(node).or_default().push((id, text));
        }
    }

    /// Some of the first hints leave, or one anywhere.
    fn ack(&mut self, node: u64, random: &mut fastrand::Rng) {
        let pending = self.pending(node);
        if pending.is_empty() {
            return;
        }
        let model = self.model.get_mut(&node).unwrap();
        let place = random.usize(..pending.len());
        let store = self.store.as_ref().unwrap();
        if random.bool() {
            let left = store
                .deliver(NodeId(node), &pending[place..=place])
                .unwrap();
            assert_eq!(left.hints, 1);
            model.remove(place);
        } else {
            let left = store.deliver(NodeId(node), &pending[..=place]).unwrap();
            assert_eq!(left.hints as usize, place + 1);
            model.drain(..=place);
        }
    }

    fn rename(&mut self, from: u64, to: u64) {
        let renamed = common::told(|done| self.store().rename_node(NodeId(from), NodeId(to), done));
        if from == to {
            return assert!(matches!(renamed, Err(HandoffError::SameNode { .. })));
        }
        if !self.known.remove(&from) {
            return assert!(matches!(renamed, Err(HandoffError::UnknownNode { .. })));
        }
        let mut moved = self.model.remove(&from).unwrap_or_default();
        assert_eq!(renamed.unwrap().hints, moved.len() as u64);
        let all = self.model.entry(to).or_default();
        all.append(&mut moved);
        all.sort_by_key(|(id, _)| (id.queue, id.sequence));
        self.known.insert(to);
    }

    fn remove(&mut self, node: u64) {
        let removed = common::told(|done| self.store().remove_node(NodeId(node), done));
        let pending = self.model.remove(&node).unwrap_or_default();
        match self.known.remove(&node) {
            true => assert_eq!(removed.unwrap().hints, pending.len() as u64),
            false => assert!(matches!(removed, Err(HandoffError::UnknownNode { .. }))),
        }
    }

    fn reopen(&mut self, cleanly: bool) {
        common::sync(self.store());
        self.store().close().unwrap();
        self.store = None;
        if !cleanly {
            fs::remove_file(common::generation(self.dir.path()).join("CLEAN")).unwrap();
        }
        self.store = Some(common::open(self.dir.path()));
    }

    fn check(&self) {
        assert_eq!(self.store().stats().damage, []);
        let known: BTreeSet<u64> = self.store().nodes().iter().map(|(it, _)| it.0).collect();
        assert_eq!(known, self.known);
        for node in 0..NODES {
            let pending = self.pending(node).into_iter().map(|it| {
                let text = String::from_utf8(it.hint.payload.to_vec()).unwrap();
                (it.mark.queue.queue, it.mark.sequence, text)
            });
            let model = self.model.get(&node).into_iter().flatten();
            let model = model.map(|(id, text)| (id.queue, id.sequence, text.clone()));
            assert!(pending.eq(model), "node {node} shows something else");
        }
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run {
        store: Some(common::open(dir.path())),
        dir,
        model: Model::new(),
        known: BTreeSet::new(),
        ids: BTreeSet::new(),
        written: 0,
    };
    for _ in 0..STEPS {
        let node = random.u64(..NODES);
        match random.u8(..20) {
            0..8 => run.write(node, random.usize(1..5)),
            8..13 => run.ack(node, &mut random),
            13..17 => run.rename(node, random.u64(..NODES)),
            17 => run.remove(node),
            _ => run.reopen(random.bool()),
        }
        run.check();
    }
    // All leaves, and then hardly anything of it is left on disk.
    for node in 0..NODES {
        let pending = run.pending(node);
        run.store().deliver(NodeId(node), &pending).unwrap();
        run.model.remove(&node);
    }
    run.reopen(false);
    run.check();
    run.reopen(true);
    for (node, queues) in run.store().nodes() {
        let queues = queues.queues.len();
        assert!(
            queues <= 1,
            "node {node} has {queues} queues with nothing in them"
        );
    }
}

#[test]
fn random_renames_keep_every_hint_its_id_and_its_place() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|it| it.parse::<u64>().unwrap())
    };
    let first = number("HH_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    for seed in first..first + number("HH_CYCLES").unwrap_or(3) {
        println!("HH_SEED={seed}");
        run(seed);
    }
}

/// An acknowledgement of one that stands behind another is kept in the cursor that moves along.
#[test]
fn what_left_out_of_order_stays_gone_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    common::try_append(
        &store,
        1,
        (0..5).map(|it| common::hint(1, it.to_string())).collect(),
    );
    let hints = common::hints(&store, 1);
    store.deliver(NodeId(1), &hints[1..3]).unwrap();
    let moved = common::told(|done| store.rename_node(NodeId(1), NodeId(2), done)).unwrap();
    assert_eq!(moved.hints, 3);
    // One who has not heard of it yet lets nothing leave.
    assert_eq!(store.deliver(NodeId(1), &hints[3..]).unwrap().hints, 0);
    let mark = hints[0].mark;
    assert_eq!(
        store.ack(NodeId(1), mark, Leave::Delivered).unwrap().hints,
        0
    );
    store.close().unwrap();
    fs::remove_file(common::generation(dir.path()).join("CLEAN")).unwrap();
    let store = common::open(dir.path());
    assert_eq!(store.stats().damage, []);
    assert_eq!(common::payloads(&store, 2), ["0", "3", "4"]);
}
