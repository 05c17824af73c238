//! A transaction on its way to the commit thread: what its closure read, and what is to become of
//! that.

use std::collections::BTreeMap;

use crate::{
    error::{EnqueueError, StorageError, TransactionError, TreeProblem},
    store::{
        engine::{
            generation::{Engine, HINTS, LOSSES, META, NODES},
            table::IVec,
        },
        format::{block::Hint, peeked::Mark},
        pipeline::changes::{Budget, TreeChanges},
        state::lock::Reservation,
    },
    types::{Amount, HintId, NodeId, Sequence},
};

/// Told the outcome of a transaction: the ids of its hints, in the order of its hints. Dropped
/// untold, it is unknown.
pub type ProposalDone = Box<dyn FnOnce(Result<Vec<HintId>, Refusal>) + Send>;

/// A transaction, and who waits for it.
pub struct Proposal {
    pub draft: Draft,
    /// Answered when it is seen by all, rather than when it is durable.
    pub answer_early: bool,
    /// Room for its hints.
    pub reserved: Reservation,
    pub done: ProposalDone,
}

/// All or nothing of this.
///
/// With no writes, hints and acks it only asks whether all that was read is still so.
#[derive(Default)]
pub struct Draft {
    pub changes: Vec<TreeChanges>,
    pub hints: Vec<(NodeId, Hint)>,
    pub acks: Vec<Ack>,
    /// Bytes handed to the engine for it, at most.
    pub bytes: usize,
    /// Of these, bytes of values that are removed.
    pub removed_bytes: usize,
    /// Bytes of rows that were read, and are kept until it is answered.
    pub read_bytes: usize,
}

impl Draft {
    pub fn new(
        changes: Vec<TreeChanges>,
        hints: Vec<(NodeId, Hint)>,
        acks: Vec<Ack>,
        budget: &Budget,
    ) -> Self {
        Draft {
            changes,
            hints,
            acks,
            bytes: budget.bytes(),
            removed_bytes: budget.removed_bytes(),
            read_bytes: budget.read_bytes(),
        }
    }

    /// What is left of a run that gave up. It counts only if what it read fits together, so that
    /// alone is looked at.
    pub fn of_reads(mut changes: Vec<TreeChanges>, budget: &Budget) -> Self {
        changes.iter_mut().for_each(|it| it.writes.clear());
        Draft {
            changes,
            read_bytes: budget.read_bytes(),
            ..Draft::default()
        }
    }

    /// What its hints add, by node.
    pub fn amounts(&self) -> Vec<(NodeId, Amount)> {
        let mut by_node = BTreeMap::new();
        for (node, hint) in &self.hints {
            let amount: &mut Amount = by_node.entry(*node).or_default();
            *amount = amount.plus(Amount {
                hints: 1,
                bytes: hint.payload.len() as u64,
            });
        }
        by_node.into_iter().collect()
    }

    /// Whether it only makes room.
    pub fn only_removes(&self) -> bool {
        let rows = self
            .changes
            .iter()
            .flat_map(|changes| changes.writes.values());
        self.hints.is_empty() && rows.flatten().next().is_none()
    }

    /// Rows that were read.
    pub fn reads(&self) -> usize {
        self.changes.iter().map(|changes| changes.reads.len()).sum()
    }

    /// Rows that are written or removed.
    pub fn writes(&self) -> usize {
        self.changes
            .iter()
            .map(|changes| changes.writes.len())
            .sum()
    }

    pub fn changes_nothing(&self) -> bool {
        let writes_nothing = |changes: &TreeChanges| changes.writes.is_empty();
        self.hints.is_empty() && self.acks.is_empty() && self.changes.iter().all(writes_nothing)
    }
}

/// Hints that leave a queue together with the transaction: from `first` on through `last`.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// Who consumes them.
    pub node: NodeId,
    /// Where the cursor must stand.
    pub first: Sequence,
    /// The last of them.
    pub last: Mark,
}

/// Why nothing of a transaction came into effect, or is known to have.
#[derive(Debug)]
pub enum Refusal {
    /// A row that it read has changed since.
    Conflict,
    /// The queue does not stand at this hint any more: somebody has acknowledged it.
    NotNext(HintId),
    /// A row could not be read.
    Read(StorageError),
    /// What refuses a hint too.
    Enqueue(EnqueueError),
}

/// Checks that `trees` are the host's, in the database that holds our own.
pub fn check_trees(engine: &Engine, trees: &[sled::Tree]) -> Result<(), TransactionError> {
    let failed = |name: &IVec, problem: TreeProblem| {
        let tree = String::from_utf8_lossy(name).into_owned();
        Err(TransactionError::Tree { tree, problem })
    };
    let mut seen = Vec::with_capacity(trees.len());
    for tree in trees {
        let name = tree.name();
        if !engine.meta.is_beside(tree) {
            return failed(&name, TreeProblem::OtherDatabase);
        }
        if [META, NODES, HINTS, LOSSES]
            .iter()
            .any(|ours| name == ours.as_bytes())
        {
            return failed(&name, TreeProblem::Ours);
        }
        if seen.contains(&name) {
            return failed(&name, TreeProblem::Twice);
        }
        seen.push(name);
    }
    Ok(())
}
