//! Why a transaction does not come into effect.

use std::error::Error;

use super::{EnqueueError, FailedOutcome, StorageError};
use crate::types::HintId;

/// Why a transaction was not committed, or is not known to be. Nothing of it is there, unless its
/// outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The closure returned an error of the host's. Downcast it to the host's type.
    #[error("the transaction was aborted by its closure")]
    Aborted(#[source] Box<dyn Error + Send + Sync>),
    /// The closure panicked.
    #[error("the closure of the transaction panicked: {0}")]
    Panicked(String),
    /// No tree was named. For hints alone there is
    /// [`write_shard`](crate::HintedHandoff::write_shard).
    #[error("refused: a transaction needs at least one tree of the host's")]
    NoTrees,
    /// A tree that cannot take part.
    #[error("refused: the tree {tree:?} cannot take part: {problem}")]
    #[non_exhaustive]
    Tree {
        /// The tree's name.
        tree: String,
        /// What is wrong with it.
        problem: TreeProblem,
    },
    /// A key, a value, or all of it together is too large to be committed as one.
    #[error("refused: {what}: {size} is over the limit of {max}; split the transaction")]
    #[non_exhaustive]
    TransactionTooLarge {
        /// What is too large: a key, a value, all rows and hints (in bytes), or the rows that were
        /// read (in number).
        what: &'static str,
        /// How large it is.
        size: u64,
        /// How large it may be.
        max: u64,
    },
    /// A transaction was begun within the closure of another, which would wait for itself.
    #[error("refused: a transaction cannot be begun within the closure of another")]
    Nested,
    /// Rows that the transaction read changed again and again while it ran alone: somebody writes
    /// to them directly.
    #[error(
        "refused: rows that the transaction read were changed directly each of the {attempts} times it ran; change them by \
         transaction() or apply() only"
    )]
    #[non_exhaustive]
    Contended {
        /// How often the closure was run.
        attempts: u32,
    },
    /// A hint to be acknowledged is not the next one of its queue: it was acknowledged before, or
    /// others before it were not.
    #[error("refused: hint {hint} is not the next one of its queue; peek again")]
    #[non_exhaustive]
    NotNext {
        /// The first hint that was to be acknowledged.
        hint: HintId,
    },
    /// A row could not be read.
    #[error("refused: a row could not be read")]
    Read(#[source] StorageError),
    /// What refuses a hint, or leaves its outcome unknown, does so with the whole transaction.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
}

impl TransactionError {
    /// Whether the transaction may have come into effect all the same.
    pub fn outcome(&self) -> FailedOutcome {
        match self {
            TransactionError::Enqueue(error) => error.outcome(),
            _ => FailedOutcome::Refused,
        }
    }
}

/// Why a tree cannot take part in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeProblem {
    /// It is not in the database that the hints are in.
    #[error(
        "it is of another database than the hints; open the handoff with open_in() on the tree's database"
    )]
    OtherDatabase,
    /// It is one of the store's own.
    #[error("it is one of the handoff's own")]
    Ours,
    /// It was named before.
    #[error("it is named twice")]
    Twice,
}
