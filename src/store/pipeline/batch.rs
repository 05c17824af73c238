//! What callers hand in to come into effect as one: new hints, what leaves, and rows of the host's.

use std::collections::BTreeMap;

use crate::{
    store::{
        bounds::{APPEND_OVERHEAD_BYTES, GROUP_BYTES},
        format::{
            block::Hint,
            cursor::CURSOR_BYTES,
            keys::{CURSOR_KEY_BYTES, Place},
            peeked::{Mark, PeekedHint},
            reasons::Fate,
        },
        pipeline::changes::{Budget, TreeChanges},
        state::held_hints::HoldId,
    },
    types::{Amount, NodeId, Sequence},
};

/// Bytes of batches that a group takes: what is left of [`GROUP_BYTES`] is for cursors and trims.
pub const APPEND_BYTES: usize = GROUP_BYTES - 192 * 1024;
/// Beside payloads that are moved: a cursor with all that left out of order, and records of the
/// loss journal.
const LEAVE_SHARE: usize = 64 * 1024;
/// The same of a hint that leaves with its group: the list of its queue is short (see `plan.rs`).
const UNDELIVERED_SHARE: usize = 10 * 1024;
/// A record of a dead letter that goes, with the error in it.
const LETTER_SHARE: usize = 4500;
/// So that a group looks at some 13,000 rows at most, unless one transaction alone has read more.
const READ_SHARE: usize = 64;
/// What the log is to grow by for the leaves of all rows of a group, at most.
const ROWS_LOG_BYTES: usize = 2 * 1024 * 1024;

/// All or nothing of this.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub hints: Vec<NewHint>,
    pub leaves: Vec<Leaving>,
    pub rows: RowChanges,
    /// The caller was told already that it is in the pipeline, so it is not refused any more.
    pub is_promised: bool,
}

/// A hint on its way to a node.
#[derive(Debug)]
pub struct NewHint {
    pub node: NodeId,
    pub hint: Hint,
    pub kind: HintKind,
}

#[derive(Debug)]
pub enum HintKind {
    /// It waits to be sent.
    Pending,
    /// Somebody holds it.
    Held(HoldId),
    /// It leaves undelivered in the step in which it is stored.
    Undelivered(Fate),
    /// It was a dead letter at this place. If it is none any more, it is not stored.
    Redriven(Place),
    /// It is a hint of another node at this place, which leaves with the same batch as
    /// [`LossReason::Rehinted`]. If it is none any more, it is not stored.
    Rehinted(Place),
}

/// What leaves, in one step with the record of it.
#[derive(Debug)]
pub enum Leaving {
    /// Claimed hints of a node, undelivered.
    Hints(NodeId, Vec<PeekedHint>, Fate),
    /// Dead letters of a node, discarded.
    Letters(NodeId, Vec<Place>),
    /// Hints that a consumer took.
    Acked(Ack),
}

/// Hints that leave a queue from `first` on through `last`.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// Who consumes them.
    pub node: NodeId,
    /// Where the cursor must stand.
    pub first: Sequence,
    /// The last of them.
    pub last: Mark,
}

/// Rows of the host's that were read, and are to be written if that is still so.
#[derive(Debug, Default)]
pub struct RowChanges {
    pub trees: Vec<TreeChanges>,
    /// Keys and values that are written and removed.
    pub bytes: usize,
    /// Of these, values that are removed.
    pub removed_bytes: usize,
    /// Rows that were read, which are kept until the batch is answered.
    pub read_bytes: usize,
}

impl RowChanges {
    pub fn new(trees: Vec<TreeChanges>, budget: &Budget) -> Self {
        RowChanges {
            trees,
            bytes: budget.row_bytes(),
            removed_bytes: budget.removed_bytes(),
            read_bytes: budget.read_bytes(),
        }
    }

    /// What is left of a run that gave up. It counts only if what it read fits together, so that
    /// alone is looked at.
    pub fn of_reads(mut trees: Vec<TreeChanges>, budget: &Budget) -> Self {
        trees.iter_mut().for_each(|it| it.writes.clear());
        RowChanges {
            trees,
            read_bytes: budget.read_bytes(),
            ..RowChanges::default()
        }
    }

    /// How many were read.
    pub fn reads(&self) -> usize {
        self.trees.iter().map(|tree| tree.reads.len()).sum()
    }

    /// How many are written or removed.
    pub fn writes(&self) -> usize {
        self.trees.iter().map(|tree| tree.writes.len()).sum()
    }

    fn only_removes(&self) -> bool {
        let mut values = self.trees.iter().flat_map(|tree| tree.writes.values());
        values.all(Option::is_none)
    }
}

impl NewHint {
    pub fn pending(node: NodeId, hint: Hint) -> Self {
        let kind = HintKind::Pending;
        NewHint { node, hint, kind }
    }

    fn share(&self) -> usize {
        let block = self.hint.raw_bytes() + APPEND_OVERHEAD_BYTES;
        match self.kind {
            HintKind::Pending | HintKind::Held(_) | HintKind::Rehinted(_) => block,
            HintKind::Redriven(_) => block + LETTER_SHARE,
            // Its payload is in its queue, and in its dead letter.
            HintKind::Undelivered(_) => {
                block + self.hint.payload.len() + UNDELIVERED_SHARE + LETTER_SHARE
            }
        }
    }
}

impl Leaving {
    fn share(&self) -> usize {
        match self {
            Leaving::Hints(_, hints, _) => {
                let payload: u64 = hints.iter().map(|hint| hint.hint.payload_bytes()).sum();
                LEAVE_SHARE + payload as usize
            }
            Leaving::Letters(_, letters) => LEAVE_SHARE + letters.len() * LETTER_SHARE,
            Leaving::Acked(_) => CURSOR_KEY_BYTES + CURSOR_BYTES,
        }
    }
}

impl WriteBatch {
    pub fn of_hint(node: NodeId, hint: Hint, kind: HintKind) -> Self {
        WriteBatch {
            hints: vec![NewHint { node, hint, kind }],
            ..WriteBatch::default()
        }
    }

    pub fn of_leaving(leaving: Leaving) -> Self {
        WriteBatch {
            leaves: vec![leaving],
            ..WriteBatch::default()
        }
    }

    /// What it takes of a group: bytes that it may hand to the engine, and something for each row
    /// that must be looked at.
    pub fn share(&self, row_log_bytes: usize) -> usize {
        let hints: usize = self.hints.iter().map(NewHint::share).sum();
        let leaves: usize = self.leaves.iter().map(Leaving::share).sum();
        let of_row = row_log_bytes * APPEND_BYTES / ROWS_LOG_BYTES;
        let rows = self.rows.bytes + self.rows.reads() * READ_SHARE + self.rows.writes() * of_row;
        hints + leaves + rows
    }

    /// Bytes that it holds until it is answered.
    pub fn bytes(&self) -> usize {
        let hints: usize = self.hints.iter().map(NewHint::share).sum();
        hints + self.rows.bytes + self.rows.read_bytes
    }

    /// What its hints add, by node.
    pub fn amounts(&self) -> Vec<(NodeId, Amount)> {
        let mut by_node = BTreeMap::new();
        for NewHint { node, hint, .. } in &self.hints {
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
        self.hints.is_empty() && self.rows.only_removes()
    }

    /// Whether a consumer takes hints with it, and puts none in.
    pub fn drains(&self) -> bool {
        let acks = |leaving: &Leaving| matches!(leaving, Leaving::Acked(_));
        self.hints.is_empty() && self.leaves.iter().any(acks)
    }

    /// Whether it only asks if all that was read is still so.
    pub fn only_asks(&self) -> bool {
        self.hints.is_empty() && self.leaves.is_empty() && self.rows.writes() == 0
    }

    /// Whether parts of it must not come apart.
    pub fn is_several(&self) -> bool {
        self.hints.len() + self.leaves.len() + self.rows.writes() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{format::keys::QueueRef, pipeline::overlay::RowBatch},
        types::{QueueId, ShardId},
    };

    const NODE: NodeId = NodeId(1);

    fn hint() -> NewHint {
        let hint = Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: vec![7; 100].into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        NewHint::pending(NODE, hint)
    }

    fn ack() -> Leaving {
        let queue = QueueRef {
            node: NODE,
            queue: QueueId(1),
        };
        Leaving::Acked(Ack {
            node: NODE,
            first: Sequence(1),
            last: Mark {
                queue,
                sequence: Sequence(1),
                bytes_through: 100,
            },
        })
    }

    /// So many rows that are written, and so many that are removed.
    fn rows(written: u8, removed: u8) -> RowChanges {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        let mut batch = RowBatch::new();
        for key in 0..written {
            batch.insert(&db, [key], "a row").unwrap();
        }
        for key in 0..removed {
            batch.remove(&db, [written + key]).unwrap();
        }
        batch.into_changes()
    }

    fn batch(hints: usize, acks: usize, (written, removed): (u8, u8)) -> WriteBatch {
        WriteBatch {
            hints: (0..hints).map(|_| hint()).collect(),
            leaves: (0..acks).map(|_| ack()).collect(),
            rows: rows(written, removed),
            is_promised: false,
        }
    }

    #[test]
    fn what_has_several_parts_of_whatever_kind_must_not_come_apart() {
        for one in [
            batch(0, 0, (0, 0)),
            batch(1, 0, (0, 0)),
            batch(0, 1, (0, 0)),
            batch(0, 0, (1, 0)),
            batch(0, 0, (0, 1)),
        ] {
            assert!(!one.is_several(), "{one:?}");
        }
        for several in [
            batch(2, 0, (0, 0)),
            batch(0, 2, (0, 0)),
            batch(0, 0, (1, 1)),
            batch(1, 1, (0, 0)),
            batch(1, 0, (1, 0)),
            batch(0, 1, (0, 1)),
        ] {
            assert!(several.is_several(), "{several:?}");
        }
    }

    #[test]
    fn what_it_does_for_the_disk_follows_from_what_is_in_it() {
        let does = |it: WriteBatch| (it.only_removes(), it.drains(), it.only_asks());
        assert_eq!(does(batch(0, 0, (0, 0))), (true, false, true));
        assert_eq!(does(batch(1, 0, (0, 0))), (false, false, false));
        assert_eq!(does(batch(0, 1, (0, 0))), (true, true, false));
        assert_eq!(does(batch(0, 1, (1, 0))), (false, true, false));
        assert_eq!(does(batch(1, 1, (0, 0))), (false, false, false));
        assert_eq!(does(batch(0, 0, (0, 2))), (true, false, false));
        assert_eq!(does(batch(0, 0, (1, 1))), (false, false, false));
    }

    #[test]
    fn each_part_takes_its_share_of_a_group_once() {
        let share = |hints, acks, rows| batch(hints, acks, rows).share(0);
        let (of_hint, of_ack) = (share(1, 0, (0, 0)), share(0, 1, (0, 0)));
        let of_row = share(0, 0, (1, 0));
        assert!(of_hint > 100 && of_ack >= CURSOR_BYTES && of_row == 1 + 5);
        assert_eq!(share(2, 1, (3, 0)), 2 * of_hint + of_ack + 3 * of_row);
    }
}
