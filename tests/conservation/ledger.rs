//! Where every hint is, by the number in its payload.

use std::collections::{BTreeMap, BTreeSet};

use hinted_handoff::{
    Amount, HintId, LossReason, Losses, NodeId, WriteId,
    internals::{Peek, PeekLimits, PeekedHint, Reader, Store},
};

use crate::common::letters::id_of;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    Pending,
    Delivered,
    /// Its write was refused.
    Withdrawn,
    Dead,
    Journalled(LossReason),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub node: u64,
    pub shard: u64,
    pub id: HintId,
    pub bytes: u64,
    /// Where it was before it was a dead letter.
    pub origin: Option<HintId>,
    pub write: Option<WriteId>,
    pub at: Whereabouts,
    /// It left since the last sync, so an unclean stop may bring it back.
    pub fresh: bool,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub hints: BTreeMap<u64, Entry>,
    /// Copies that were neither sent nor stored, by the name that their node had.
    pub not_stored: BTreeMap<u64, Amount>,
}

/// A small part at a time, so that pages end within blocks.
const PAGE: PeekLimits = PeekLimits {
    hints: 7,
    payload_bytes: 100_000,
};

/// The number of a hint, which its payload begins with.
pub fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

pub fn number(hint: &PeekedHint) -> u64 {
    number_of(&hint.hint.payload)
}

/// All that is pending for a node, read as replay reads: from place to place.
pub fn pending(store: &Store, node: u64) -> Vec<PeekedHint> {
    let (mut all, mut from) = (Vec::new(), None);
    let mut reader = Reader::default();
    loop {
        match store
            .peek_from(&mut reader, NodeId(node), from, PAGE)
            .unwrap()
        {
            Peek::Empty => return all,
            Peek::Hints(hints) => {
                from = hints.last().map(|hint| hint.mark.place().next());
                all.extend(hints);
            }
            Peek::Damaged(place) => panic!("{place:?} is damaged"),
        }
    }
}

impl Ledger {
    /// The hints of one node became another's.
    pub fn renamed(&mut self, from: u64, to: u64) {
        let moves =
            |it: &&mut Entry| it.node == from && !matches!(it.at, Whereabouts::Journalled(_));
        let hints = self.hints.values_mut();
        hints.filter(moves).for_each(|it| it.node = to);
    }

    pub fn all(&self, node: u64, at: Whereabouts) -> Vec<u64> {
        let wanted = self
            .hints
            .iter()
            .filter(|(_, it)| it.node == node && it.at == at);
        wanted.map(|(number, _)| *number).collect()
    }

    /// Whatever an unclean stop may have undone is where the store says.
    pub fn reconcile(&mut self, store: &Store, nodes: &[u64]) {
        let back: BTreeSet<u64> = nodes
            .iter()
            .flat_map(|node| pending(store, *node))
            .map(|hint| number(&hint))
            .collect();
        for (number, entry) in &mut self.hints {
            if entry.fresh && back.contains(number) {
                let leaves = [Whereabouts::Delivered, Whereabouts::Withdrawn];
                assert!(leaves.contains(&entry.at), "{number} came back");
                entry.at = Whereabouts::Pending;
            }
            entry.fresh = false;
        }
    }

    /// Every hint is where it should be, and nowhere else.
    pub fn check(&self, store: &Store, nodes: &[u64]) {
        for node in nodes {
            self.check_pending(store, *node);
            self.check_letters(store, *node);
            self.check_cursors(store, *node);
        }
        self.check_journal(&store.losses(0).unwrap());
    }

    fn check_pending(&self, store: &Store, node: u64) {
        let hints = pending(store, node);
        let found: Vec<u64> = hints.iter().map(number).collect();
        let mut places = Vec::new();
        for hint in &hints {
            let entry = &self.hints[&number(hint)];
            assert_eq!(entry.id.sequence, hint.mark.sequence);
            assert_eq!(entry.id.queue, hint.mark.queue.queue);
            let origin = entry.origin.map(|id| (id.queue, id.sequence));
            assert_eq!((hint.hint.origin, hint.hint.write), (origin, entry.write));
            places.push((entry.id.queue, entry.id.sequence));
        }
        // Of all that a node has the queue that was begun first comes first, whoever it was begun
        // for.
        assert!(places.is_sorted(), "{places:?}");
        let mut sorted = found.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            self.all(node, Whereabouts::Pending),
            "pending for {node}"
        );
        let shown = store.nodes().into_iter().find(|(it, _)| it.0 == node);
        let shown = shown.map_or_else(Amount::default, |(_, queues)| queues.pending());
        assert_eq!(shown, self.amount(&found), "pending for {node}");
    }

    /// What left for good is in the account of its queue. What became a dead letter has another id
    /// once it was sent on.
    fn check_cursors(&self, store: &Store, node: u64) {
        let shown = store.nodes().into_iter().find(|(it, _)| it.0 == node);
        for queue in shown.iter().flat_map(|(_, queues)| &queues.queues) {
            let sum = |at| {
                let hints = self
                    .hints
                    .iter()
                    .filter(|(_, it)| it.at == at && it.id.queue == queue.at.queue);
                self.amount(&hints.map(|(number, _)| *number).collect::<Vec<_>>())
            };
            let cursor = &queue.cursor;
            assert_eq!(
                (cursor.delivered, cursor.withdrawn),
                (sum(Whereabouts::Delivered), sum(Whereabouts::Withdrawn)),
                "{cursor:?}"
            );
        }
    }

    fn check_letters(&self, store: &Store, node: u64) {
        let wanted = self.all(node, Whereabouts::Dead);
        let letters = store
            .letters(NodeId(node), None, usize::MAX)
            .unwrap_or_default();
        let found: BTreeSet<HintId> = letters
            .iter()
            .map(|(place, _)| id_of(store, *place))
            .collect();
        let ids: BTreeSet<HintId> = wanted.iter().map(|it| self.hints[it].id).collect();
        assert_eq!(found, ids, "dead letters of {node}");
        for number in &wanted {
            let (_, dead, hint) = store
                .letter(NodeId(node), self.hints[number].id)
                .unwrap()
                .unwrap();
            assert_eq!(hint.payload[..8], number.to_be_bytes());
            assert_eq!(dead.payload_bytes, self.hints[number].bytes);
            let origin = self.hints[number].origin.map(|id| (id.queue, id.sequence));
            assert_eq!(
                (hint.origin, hint.write),
                (origin, self.hints[number].write)
            );
        }
        let shown = store.nodes().into_iter().find(|(it, _)| it.0 == node);
        let shown = shown.map_or_else(Amount::default, |(_, queues)| queues.letters());
        assert_eq!(shown, self.amount(&wanted), "dead letters of {node}");
    }

    fn check_journal(&self, losses: &Losses) {
        let mut by_reason: BTreeMap<LossReason, Amount> = BTreeMap::new();
        for entry in self.hints.values() {
            let Whereabouts::Journalled(reason) = entry.at else {
                continue;
            };
            let sum = by_reason.entry(reason).or_default();
            sum.hints += 1;
            sum.bytes += entry.bytes;
            let covers = |queue, first, last| {
                queue == entry.id.queue && first <= entry.id.sequence && entry.id.sequence <= last
            };
            let listed = losses.entries.iter().any(|(_, loss)| {
                loss.reason == reason
                    && loss.node.0 == entry.node
                    && loss.shard.is_none_or(|shard| shard.0 == entry.shard)
                    && loss
                        .place
                        .is_some_and(|it| covers(it.queue, it.first, it.last))
            });
            let folded = losses
                .folded
                .iter()
                .any(|it| covers(it.queue, it.first, it.last));
            assert!(listed || folded, "{entry:?} is not in the journal");
        }
        let mut not_stored = BTreeMap::new();
        for (_, loss) in losses.entries.iter().filter(|(_, it)| it.place.is_none()) {
            assert_eq!(loss.reason, LossReason::NotStored);
            let sum: &mut Amount = not_stored.entry(loss.node.0).or_default();
            *sum = plus(*sum, loss.amount);
        }
        assert_eq!(not_stored, self.not_stored);
        if !not_stored.is_empty() {
            let all = not_stored.into_values().fold(Amount::default(), plus);
            by_reason.insert(LossReason::NotStored, all);
        }
        assert_eq!(losses.by_reason, by_reason);
    }

    fn amount(&self, numbers: &[u64]) -> Amount {
        Amount {
            hints: numbers.len() as u64,
            bytes: numbers.iter().map(|it| self.hints[it].bytes).sum(),
        }
    }
}

pub fn plus(one: Amount, other: Amount) -> Amount {
    Amount {
        hints: one.hints + other.hints,
        bytes: one.bytes + other.bytes,
    }
}
