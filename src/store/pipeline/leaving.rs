//! Hints on their way out of a queue undelivered: to the dead letters, or lost. And dead letters on
//! their way out.

use crate::{
    store::{
        format::{block::Hint, keys::Place, peeked::PeekedHint, reasons::Fate},
        pipeline::done::{AppendDone, ControlDone},
    },
    types::{Amount, HintId, NodeId},
};

/// A hint that leaves undelivered in the step in which it is stored.
pub struct Stillborn {
    pub node: NodeId,
    pub hint: Hint,
    pub fate: Fate,
    /// Told its id once that is durable.
    pub done: AppendDone,
}

/// Claimed hints of a node that leave undelivered, in one step with the record of it.
pub struct Departure {
    pub node: NodeId,
    pub hints: Vec<PeekedHint>,
    pub fate: Fate,
    /// Told what left, once that is durable.
    pub done: ControlDone<Amount>,
}

/// Dead letters of a node that are discarded, in one step with the record of it.
pub struct Discard {
    pub node: NodeId,
    pub letters: Vec<Place>,
    /// Told how much was still there, once that is durable.
    pub done: ControlDone<Amount>,
}

/// A dead letter that goes to the end of its node's queue.
pub struct Redrive {
    pub node: NodeId,
    pub letter: Place,
    pub hint: Hint,
    /// Told its new id once that is durable; nothing if it was no dead letter any more.
    pub done: ControlDone<Option<HintId>>,
}
