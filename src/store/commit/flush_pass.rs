//! How far the hints of WAL records are flushed.

use std::collections::BTreeSet;

use crate::{
    store::{engine::leaf_padding::LeafPadding, format::keys::QueueRef},
    types::{NodeId, Sequence},
};

/// What the commit thread knows of WAL records.
pub struct Flushing {
    /// The number of the next hint in one.
    pub next: Sequence,
    /// Below it all are done with, durably.
    pub floor: Sequence,
    pub padding: LeafPadding,
    pub pass: Option<Pass>,
    /// Where a pass ended in this group.
    pub ended: Option<Sequence>,
    /// Queues of which nothing is left, but that WAL records below this may still have hints of.
    /// As long as a node lists them as retired an open knows that these are done with.
    pub gone: Vec<(Sequence, NodeId, QueueRef)>,
}

pub struct Pass {
    /// All WAL records below it are done with at the end.
    pub upto: Sequence,
    /// What is to be flushed still; taken from the end.
    pub shares: Vec<Share>,
    /// Queues in which something was passed over.
    pub passed_over: BTreeSet<QueueRef>,
}

/// What a pass flushes of a queue.
pub struct Share {
    pub queue: QueueRef,
    pub from: Sequence,
    pub through: Sequence,
}

impl Flushing {
    pub fn new(next: Sequence) -> Self {
        Flushing {
            next,
            floor: next,
            padding: LeafPadding::default(),
            pass: None,
            ended: None,
            gone: Vec::new(),
        }
    }

    /// Whether a pass is under way.
    pub fn has_work(&self) -> bool {
        self.pass.is_some()
    }
}
