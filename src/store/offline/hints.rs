//! Hints and dead letters of a closed store, one by one.

use std::{collections::VecDeque, ops::RangeInclusive};

use bytes::Bytes;

use crate::{
    error::StorageError,
    store::{
        format::{
            block::Hint,
            keys::{Place, QueueRef},
            reasons::DeadCause,
        },
        offline::{
            closed::ClosedStore,
            findings::{Finding, Severity},
            letters::{self, LetterCopies},
            pieces::{Piece, QueuePieces},
        },
        state::queue::Queue,
    },
    types::{HintId, NodeId, Sequence, ShardId, WriteId},
};

/// Which hints are wanted: all, by default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Selection {
    /// Those of this node only.
    pub node: Option<NodeId>,
    /// Those of this shard only.
    pub shard: Option<ShardId>,
    /// Those that stand in their queues between these only.
    pub sequences: Option<RangeInclusive<u64>>,
}

/// A hint of a closed store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedHint {
    /// The node that it is for.
    pub node: NodeId,
    /// The node that it was first meant for: another one after a rename.
    pub meant_for: NodeId,
    /// Its id.
    pub id: HintId,
    /// Its shard.
    pub shard: ShardId,
    /// The host's version of the payload's encoding.
    pub format: u16,
    /// When it was enqueued, by its stamp, in milliseconds since 1970.
    pub enqueued_unix_ms: u64,
    /// After so long from its enqueue it is not to be delivered any more, in milliseconds.
    pub lifetime_ms: Option<u64>,
    /// The write of a [`PointsWriter`](crate::PointsWriter) that it is a copy of.
    pub write: Option<WriteId>,
    /// The id that it had before it was a dead letter the first time, if it was one and was sent
    /// on.
    pub redriven_from: Option<HintId>,
    /// The encoded points.
    pub payload: Bytes,
}

/// A dead letter of a closed store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedLetter {
    /// The hint that it was. Of one that does not read only the ids are right, and its payload is
    /// empty.
    pub hint: ClosedHint,
    /// Whether the hint reads.
    pub reads: bool,
    /// How it became one; `None` if that does not read.
    pub cause: Option<DeadCause>,
}

impl Selection {
    /// All hints of a node.
    pub fn of_node(node: NodeId) -> Selection {
        Selection {
            node: Some(node),
            ..Selection::default()
        }
    }

    fn from(&self) -> Sequence {
        self.sequences
            .as_ref()
            .map_or(Sequence(0), |it| Sequence(*it.start()))
    }

    fn is_past(&self, sequence: Sequence) -> bool {
        self.sequences
            .as_ref()
            .is_some_and(|it| sequence.0 > *it.end())
    }

    fn takes(&self, sequence: Sequence, shard: ShardId) -> bool {
        let sequences = self.sequences.as_ref();
        sequences.is_none_or(|it| it.contains(&sequence.0))
            && self.shard.is_none_or(|it| it == shard)
    }
}

impl ClosedStore {
    fn hint(&self, node: NodeId, at: QueueRef, sequence: Sequence, hint: Hint) -> ClosedHint {
        let store = self.known.store;
        ClosedHint {
            node,
            meant_for: at.node,
            id: HintId {
                store,
                queue: at.queue,
                sequence,
            },
            shard: hint.shard,
            format: hint.format,
            enqueued_unix_ms: hint.enqueued_unix_ms,
            lifetime_ms: hint.lifetime_ms,
            write: hint.write,
            redriven_from: hint.redriven_from(store),
            payload: hint.payload,
        }
    }

    /// The pending hints, node by node, each node's in the order of delivery. What does not read is
    /// passed over, and told by [`ClosedHints::findings`].
    pub fn hints(&self, selection: &Selection) -> ClosedHints<'_> {
        let nodes = self.nodes.iter();
        let wanted = nodes.filter(|(node, _)| selection.node.is_none_or(|it| it == **node));
        let queues = wanted.flat_map(|(node, found)| found.queues.iter().map(|it| (*node, it)));
        ClosedHints {
            store: self,
            selection: selection.clone(),
            queues: queues.collect(),
            now: None,
            ahead: VecDeque::new(),
            findings: Vec::new(),
        }
    }

    /// The dead letters, node by node, in the order of their queues. What does not read is told by
    /// [`ClosedLetters::findings`].
    ///
    /// # Errors
    /// The log does not read.
    pub fn letters(&self, selection: &Selection) -> Result<ClosedLetters<'_>, StorageError> {
        let mut places = VecDeque::new();
        for (node, found) in &self.nodes {
            if selection.node.is_some_and(|it| it != *node) {
                continue;
            }
            for queue in letters::queues(&found.record) {
                letters::records(self, queue, |place, dead| {
                    let shard = dead.as_ref().ok().map(|dead| dead.shard);
                    let shard = shard.or(selection.shard).unwrap_or(ShardId(0));
                    if selection.takes(place.sequence, shard) {
                        places.push_back((*node, place));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(ClosedLetters {
            store: self,
            places,
            copies: LetterCopies::default(),
            findings: Vec::new(),
        })
    }
}

/// The pending hints of a closed store.
#[derive(Debug)]
pub struct ClosedHints<'a> {
    store: &'a ClosedStore,
    selection: Selection,
    queues: VecDeque<(NodeId, &'a Queue)>,
    now: Option<(NodeId, QueueRef, QueuePieces<'a>)>,
    ahead: VecDeque<ClosedHint>,
    findings: Vec<Finding>,
}

impl ClosedHints<'_> {
    /// What was found so far that does not read where it should.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    fn fill(&mut self) -> Result<bool, StorageError> {
        let Some((node, at, pieces)) = &mut self.now else {
            let Some((node, queue)) = self.queues.pop_front() else {
                return Ok(false);
            };
            let ClosedStore {
                place, tree, wal, ..
            } = self.store;
            let from = self.selection.from();
            let pieces = QueuePieces::new(place, tree, queue, &wal.runs, from)?;
            self.now = Some((node, queue.at, pieces));
            return Ok(true);
        };
        let (node, at) = (*node, *at);
        let mut note = |severity, first: Sequence, last: Sequence, hints, what| {
            let finding = Finding::new(severity, what).of(node, at.queue);
            self.findings.push(finding.from(first, last, hints));
        };
        let hints = match pieces.next_piece()? {
            Some(Piece::Hints(hints)) => hints,
            Some(Piece::Rescued(hints, why)) => {
                if let (Some((first, _)), Some((last, _))) = (hints.first(), hints.last()) {
                    let what = format!("{why}; an intact copy is in the log");
                    note(Severity::Damaged, *first, *last, hints.len() as u64, what);
                }
                hints
            }
            Some(Piece::Missing(first, last, why)) => {
                let hints = last.0.saturating_sub(first.0).saturating_add(1);
                note(Severity::Lost, first, last, hints, why);
                return Ok(true);
            }
            None => {
                self.now = None;
                return Ok(true);
            }
        };
        for (sequence, hint) in hints {
            if self.selection.is_past(sequence) {
                self.now = None;
                break;
            }
            if self.selection.takes(sequence, hint.shard) {
                let hint = self.store.hint(node, at, sequence, hint);
                self.ahead.push_back(hint);
            }
        }
        Ok(true)
    }
}

impl Iterator for ClosedHints<'_> {
    type Item = Result<ClosedHint, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(hint) = self.ahead.pop_front() {
                return Some(Ok(hint));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    (self.now, self.queues) = (None, VecDeque::new());
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The dead letters of a closed store.
#[derive(Debug)]
pub struct ClosedLetters<'a> {
    store: &'a ClosedStore,
    places: VecDeque<(NodeId, Place)>,
    copies: LetterCopies,
    findings: Vec<Finding>,
}

impl ClosedLetters<'_> {
    /// What was found so far that does not read where it should.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    fn read(&mut self, node: NodeId, at: Place) -> Result<ClosedLetter, StorageError> {
        let ClosedStore { place, tree, .. } = self.store;
        let mut record = Err("it is not there".to_owned());
        letters::record(tree, at, |found| record = found)?;
        let from = (place, tree, &mut self.copies);
        let found = letters::read(from, node, at, record, &mut self.findings)?;
        let reads = found.hint.is_some();
        let shard = found.dead.as_ref().map_or(ShardId(0), |dead| dead.shard);
        let empty = Hint {
            shard,
            format: 0,
            enqueued_unix_ms: 0,
            payload: Bytes::new(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let hint = found.hint.unwrap_or(empty);
        Ok(ClosedLetter {
            hint: self.store.hint(node, at.queue, found.place.sequence, hint),
            reads,
            cause: found.dead.map(|dead| dead.cause),
        })
    }
}

impl Iterator for ClosedLetters<'_> {
    type Item = Result<ClosedLetter, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (node, place) = self.places.pop_front()?;
        Some(self.read(node, place))
    }
}
