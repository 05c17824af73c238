//! What callers hand in: entries of groups, and requests that are carried out between them.

use std::sync::Arc;

use crate::{
    error::EnqueueError,
    store::{
        bounds::{APPEND_OVERHEAD_BYTES, GROUP_BYTES},
        engine::{copy::Copy, generation::Engine},
        format::{
            block::Hint,
            keys::{Place, QueueRef},
            peeked::PeekedHint,
            reasons::Fate,
        },
        pipeline::{
            done::{AppendDone, ControlDone},
            leaving::{Departure, Discard, Redrive, Stillborn},
            node_request::Request as NodesRequest,
            tickets::{Done, Waiting},
            transaction::{Draft, Proposal, Refusal},
        },
        state::{held_hints::HoldId, lock::Reservation},
    },
    types::NodeId,
};

/// Bytes of entries that a group takes: what is left of [`GROUP_BYTES`] is for cursors and trims.
pub const APPEND_BYTES: usize = GROUP_BYTES - 192 * 1024;
/// Beside payloads that are moved: a cursor with all that left out of order, and records of the
/// loss journal.
const DEPARTURE_SHARE: usize = 64 * 1024;
/// The same of a hint that leaves with its group: the list of its queue is short (see `plan.rs`).
const STILLBORN_SHARE: usize = 10 * 1024;
/// A record of a dead letter that goes, with the error in it.
const LETTER_SHARE: usize = 4500;
/// So that a group looks at some 13,000 rows at most, unless one transaction alone has read more.
const READ_SHARE: usize = 64;
/// What the log is to grow by for the leaves of all rows of a group, at most.
const ROWS_LOG_BYTES: usize = 2 * 1024 * 1024;

/// A hint on its way to a node.
pub struct Append {
    pub node: NodeId,
    pub hint: Hint,
    /// Who holds it, if somebody does.
    pub held: Option<HoldId>,
    /// The caller was told already that it is in the pipeline, so it is not refused any more.
    pub answered: bool,
    /// Room for it.
    pub reserved: Reservation,
    pub done: AppendDone,
}

/// What a group is made of.
pub enum Entry {
    Append(Append),
    Proposal(Proposal),
    Stillborn(Stillborn),
    Departure(Departure),
    Discard(Discard),
    Redrive(Redrive),
}

impl Entry {
    /// What it takes of a group: bytes that it may hand to the engine, and something for each row
    /// that must be looked at.
    pub fn share(&self, row_log_bytes: usize) -> usize {
        match self {
            Entry::Append(append) => append.hint.raw_bytes() + APPEND_OVERHEAD_BYTES,
            Entry::Proposal(Proposal { draft, .. }) => {
                let row = row_log_bytes * APPEND_BYTES / ROWS_LOG_BYTES;
                draft.bytes + draft.reads() * READ_SHARE + draft.writes() * row
            }
            Entry::Stillborn(Stillborn { hint, .. }) => {
                // Its payload is in its queue, and in its dead letter.
                let block = hint.raw_bytes() + APPEND_OVERHEAD_BYTES;
                STILLBORN_SHARE + LETTER_SHARE + block + hint.payload.len()
            }
            Entry::Departure(Departure { hints, .. }) => {
                let payload: u64 = hints.iter().map(|hint| hint.hint.payload_bytes()).sum();
                DEPARTURE_SHARE + payload as usize
            }
            Entry::Discard(Discard { letters, .. }) => {
                DEPARTURE_SHARE + letters.len() * LETTER_SHARE
            }
            Entry::Redrive(Redrive { hint, .. }) => {
                hint.raw_bytes() + APPEND_OVERHEAD_BYTES + LETTER_SHARE
            }
        }
    }

    /// What is to be done, and who waits for it.
    pub fn split(self) -> (Part, Waiting) {
        match self {
            Entry::Append(Append {
                node,
                hint,
                held,
                answered,
                reserved,
                done,
            }) => {
                let part = Part::Hint {
                    node,
                    hint,
                    held,
                    answered,
                };
                (part, Waiting::new(1, reserved, Done::Append(done)))
            }
            Entry::Proposal(Proposal {
                draft,
                answer_early: early,
                reserved,
                done,
            }) => {
                let done = Done::Transaction {
                    done,
                    early,
                    only_asks: draft.changes_nothing(),
                };
                let waiting = Waiting::new(draft.hints.len(), reserved, done);
                (Part::Transaction(draft), waiting)
            }
            Entry::Stillborn(Stillborn {
                node,
                hint,
                fate,
                done,
            }) => {
                let part = Part::Stillborn { node, hint, fate };
                (
                    part,
                    Waiting::new(1, Reservation::default(), Done::Append(done)),
                )
            }
            Entry::Departure(Departure {
                node,
                hints,
                fate,
                done,
            }) => {
                let part = Part::Departure { node, hints, fate };
                (
                    part,
                    Waiting::new(0, Reservation::default(), Done::Left(done)),
                )
            }
            Entry::Discard(Discard {
                node,
                letters,
                done,
            }) => {
                let part = Part::Discard { node, letters };
                (
                    part,
                    Waiting::new(0, Reservation::default(), Done::Left(done)),
                )
            }
            Entry::Redrive(Redrive {
                node,
                letter,
                hint,
                done,
            }) => {
                let part = Part::Redrive { node, letter, hint };
                (
                    part,
                    Waiting::new(1, Reservation::default(), Done::Redriven(done)),
                )
            }
        }
    }

    /// Tells whoever waits that it will not be done.
    pub fn refuse(self, error: EnqueueError) {
        match self {
            Entry::Append(Append { reserved, done, .. }) => {
                drop(reserved);
                done(Err(error));
            }
            Entry::Proposal(Proposal { reserved, done, .. }) => {
                drop(reserved);
                done(Err(Refusal::Enqueue(error)));
            }
            Entry::Stillborn(stillborn) => (stillborn.done)(Err(error)),
            Entry::Departure(Departure { done, .. }) | Entry::Discard(Discard { done, .. }) => {
                done(Err(error.into()));
            }
            Entry::Redrive(redrive) => (redrive.done)(Err(error.into())),
        }
    }
}

/// What is to be done of an entry.
pub enum Part {
    Hint {
        node: NodeId,
        hint: Hint,
        held: Option<HoldId>,
        /// See [`Append::answered`].
        answered: bool,
    },
    Transaction(Draft),
    /// See [`Stillborn`].
    Stillborn {
        node: NodeId,
        hint: Hint,
        fate: Fate,
    },
    Departure {
        node: NodeId,
        hints: Vec<PeekedHint>,
        fate: Fate,
    },
    Discard {
        node: NodeId,
        letters: Vec<Place>,
    },
    Redrive {
        node: NodeId,
        letter: Place,
        hint: Hint,
    },
}

/// Requests that are carried out between groups, in order with the appends around them.
pub enum Control {
    /// Answered when all that came before is durable, acks too.
    Sync(ControlDone<()>),
    /// The same, and the entries of the loss journal are closed: answered with the index of the
    /// next one.
    CloseEntries(ControlDone<u64>),
    /// Pauses, renames, parks or removes nodes.
    Nodes(NodesRequest),
    /// Somebody could not read the hint at the cursor of this queue of this node.
    JudgeDamage(NodeId, QueueRef, ControlDone<()>),
    /// Sort all hints that stand in mixed groups into blocks of their queues.
    Sort(ControlDone<()>),
    /// Go on with this copy of the generation in use: answered with the old engine, or with none if
    /// the copy is too far behind.
    Switch(Arc<Copy>, ControlDone<Option<Arc<Engine>>>),
    /// The last request: commit all, leave `CLEAN`, drop the engine.
    Close(ControlDone<()>),
}

/// A queue whose cursor moved: the node it is drained for, and the queue.
pub type Dirty = (NodeId, QueueRef);
