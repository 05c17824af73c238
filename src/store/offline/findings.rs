//! What is found wrong with a store.

use serde::Serialize;

use crate::types::{NodeId, QueueId, Sequence};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Something does not read that damage may explain and an unclean stop as well. The store was
    /// not closed, and what was written last and never answered may look like this. Where more
    /// stands behind the end of the log than one commit group leaves, that is [`Lost`](Self::Lost)
    /// or [`Damaged`](Self::Damaged) instead.
    Unknown,
    /// Something is damaged. No hint is known to be lost by it: there is another copy, or another
    /// record tells the same.
    Damaged,
    /// Hints or dead letters are gone that were to be kept, or stand intact behind damage where
    /// only a rebuild or [`salvage`](crate::salvage()) finds them, or nothing of the store can be
    /// read.
    Lost,
}

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The node that the hints are for, where it is known.
    pub node: Option<NodeId>,
    /// Their queue, where it is known.
    pub queue: Option<QueueId>,
    /// The first of the hints that it is about.
    pub first: Option<Sequence>,
    /// The last of them.
    pub last: Option<Sequence>,
    /// How many they are, as far as that is known.
    pub hints: u64,
    /// What was found.
    pub what: String,
}

impl Finding {
    pub(crate) fn new(severity: Severity, what: impl Into<String>) -> Finding {
        Finding {
            severity,
            node: None,
            queue: None,
            first: None,
            last: None,
            hints: 0,
            what: what.into(),
        }
    }

    pub(crate) fn of(self, node: NodeId, queue: QueueId) -> Finding {
        Finding {
            node: Some(node),
            queue: Some(queue),
            ..self
        }
    }

    pub(crate) fn from(self, first: Sequence, last: Sequence, hints: u64) -> Finding {
        Finding {
            first: Some(first),
            last: Some(last),
            hints,
            ..self
        }
    }
}
