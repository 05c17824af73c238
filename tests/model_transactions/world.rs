//! What a shared database holds: the host's rows, and the hints of each node.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hinted_handoff::{Amount, LossReason, sled::IVec};

use crate::operation::{REPLAYED, Row};

/// A queue in the model. The store's own id of it may come later, or never.
pub type QueueNumber = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub queue: QueueNumber,
    pub sequence: u64,
    pub shard: u64,
    pub payload: Bytes,
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub pending: VecDeque<Hint>,
    /// Dead letters, in the order of their ids.
    pub letters: Vec<Hint>,
    /// Where the next hint goes; `None` if that starts a new queue.
    pub tail: Option<(QueueNumber, u64)>,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub rows: BTreeMap<Row, IVec>,
    pub nodes: BTreeMap<u64, Node>,
    /// All that ever left undelivered.
    pub lost: BTreeMap<LossReason, Amount>,
}

/// How a hint left by replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Delivered,
    /// Its shard is gone.
    Obsolete,
    /// It became a dead letter.
    Dead,
}

/// What comes into effect as one.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub writes: BTreeMap<Row, Option<IVec>>,
    pub hints: Vec<(u64, Hint)>,
    /// Hints that leave each node's queue.
    pub acks: BTreeMap<u64, usize>,
    /// A hint alone: in a group without transactions it is committed with the hints of its own node
    /// only.
    pub is_plain: bool,
}

impl World {
    pub fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.entry(node).or_default()
    }

    /// The first hints of a node leave.
    pub fn leave(&mut self, node: u64, hints: usize, how: Left) -> Vec<Hint> {
        let left: Vec<Hint> = self.node(node).pending.drain(..hints).collect();
        match how {
            Left::Delivered => {}
            Left::Obsolete => self.lose(LossReason::Obsolete, &left),
            Left::Dead => self.node(node).letters.extend(left.iter().cloned()),
        }
        left
    }

    /// One comes back.
    pub fn undo(&mut self, node: u64, hint: &Hint, how: Left) {
        match how {
            Left::Delivered => {}
            Left::Obsolete => {
                let lost = self.lost.entry(LossReason::Obsolete).or_default();
                lost.hints -= 1;
                lost.bytes -= hint.payload.len() as u64;
            }
            Left::Dead => self.node(node).letters.retain(|it| it != hint),
        }
    }

    /// The host discards all that a node has.
    pub fn remove(&mut self, node: u64) {
        let Node {
            pending, letters, ..
        } = self.nodes.remove(&node).unwrap_or_default();
        self.lose(LossReason::Discarded, pending.iter().chain(&letters));
    }

    fn lose<'a>(&mut self, why: LossReason, hints: impl IntoIterator<Item = &'a Hint>) {
        for hint in hints {
            let lost = self.lost.entry(why).or_default();
            lost.hints += 1;
            lost.bytes += hint.payload.len() as u64;
        }
    }

    /// The value of a row.
    pub fn row(&self, row: Row) -> Option<&IVec> {
        self.rows.get(&row)
    }

    pub fn apply(&mut self, change: &Change) {
        for (row, value) in &change.writes {
            match value {
                Some(value) => self.rows.insert(*row, value.clone()),
                None => self.rows.remove(row),
            };
        }
        for (node, hints) in &change.acks {
            self.node(*node).pending.drain(..hints);
        }
        for (node, hint) in &change.hints {
            let node = self.node(*node);
            node.tail = Some((hint.queue, hint.sequence + 1));
            node.pending.push_back(hint.clone());
        }
    }
}

impl Change {
    pub fn changes_nothing(&self) -> bool {
        self.writes.is_empty() && self.hints.is_empty() && self.acks.is_empty()
    }
}

/// Replay sends the shards of a node in any order, so one that is replayed has a single one here:
/// then what was taken is known by its number. What is taken by hand comes in order whatever its
/// shard.
pub fn shard_of(node: u64, bytes: u64) -> u64 {
    match REPLAYED.contains(&node) {
        true => node * 10,
        false => node * 10 + bytes % 2,
    }
}
