//! Which transactions of a group come into effect, and writing them as one.

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed};

use sled::{
    IVec, Tree,
    transaction::{TransactionError, Transactional},
};

use super::{
    block::NewHint,
    committer::Committer,
    cursor::{Cursor, Leave},
    encoder::EncodedBlock,
    engine::GROUP_BYTES,
    faults::{Safeguard, is_off, point},
    in_flight::Owner,
    inbox::Part,
    keys::QueueRef,
    overlay::{RowMap, TreeChanges, read_row},
    proposal::{Ack, Draft, Refusal},
    reader::Mark,
};
use crate::{
    error::StorageError,
    types::{HintId, NodeId},
};

/// What comes into effect of a group.
#[derive(Default)]
pub struct Judged {
    pub hints: Vec<(Owner, NodeId, NewHint)>,
    pub accepted: Accepted,
}

/// Where a queue that a node consumes will stand.
type Cursors = HashMap<(NodeId, QueueRef), (Cursor, Mark)>;

/// What the transactions of a group change, as one.
#[derive(Default)]
pub struct Accepted {
    rows: HashMap<IVec, (Tree, RowMap)>,
    cursors: Cursors,
    removed_bytes: usize,
    /// How many of them change anything, hints included.
    pub changing: u64,
}

impl Accepted {
    /// Takes a transaction into the group, or says why not.
    ///
    /// The transactions of a group come one after the other, each as if those before it were done. What each has read is still
    /// so when it comes; so all could have run at that moment, in that order.
    pub fn add(&mut self, draft: &mut Draft, committer: &Committer) -> Result<(), Refusal> {
        let changes_something = !draft.changes_nothing();
        let changes = std::mem::take(&mut draft.changes);
        let changes: Vec<_> = changes.into_iter().map(|it| (it.tree.name(), it)).collect();
        if !self.holds(&changes).map_err(Refusal::Read)? {
            return Err(Refusal::Conflict);
        }
        // A tree that was dropped fails this one, not the store.
        for (_, it) in &changes {
            if let (true, Some(key)) = (it.reads.is_empty(), it.writes.keys().next()) {
                read_row(&it.tree, key).map_err(Refusal::Read)?;
            }
        }
        let moved = self.moved(&draft.acks, committer)?;
        self.removed_bytes += draft.removed_bytes;
        self.cursors.extend(moved);
        for (name, changes) in changes {
            let new = || (changes.tree, RowMap::new());
            let (_, rows) = self.rows.entry(name).or_insert_with(new);
            rows.extend(changes.writes);
        }
        self.changing += u64::from(changes_something);
        Ok(())
    }

    /// Whether all that was read is still so, with what the group changes already.
    fn holds(&self, changes: &[(IVec, TreeChanges)]) -> Result<bool, StorageError> {
        if is_off(Safeguard::Validation) {
            return Ok(true);
        }
        for (name, changes) in changes {
            let written = self.rows.get(name).map(|(_, rows)| rows);
            for (key, read) in &changes.reads {
                let holds = match written.and_then(|rows| rows.get(key)) {
                    Some(now) => now == read,
                    None => read_row(&changes.tree, key)? == *read,
                };
                if !holds {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Where the cursors stand once what is acknowledged is gone. All of it must come next.
    fn moved(&self, acks: &[Ack], committer: &Committer) -> Result<Cursors, Refusal> {
        let mut moved = Cursors::new();
        for ack in acks {
            let at = (ack.node, ack.last.queue);
            let queue = committer.shared.registry.lock().queue(at.0, at.1);
            let queue = queue.filter(|queue| ack.last.sequence <= queue.watermark);
            let known = moved.get(&at).or_else(|| self.cursors.get(&at));
            let cursor =
                queue.map(|queue| known.map_or(queue.cursor, |(cursor, _)| cursor.clone()));
            let Some(mut cursor) = cursor.filter(|cursor| cursor.next == ack.first) else {
                return Err(Refusal::NotNext(HintId {
                    store: committer.shared.store,
                    queue: ack.last.queue.queue,
                    sequence: ack.first,
                }));
            };
            let Mark {
                sequence,
                bytes_through,
                ..
            } = ack.last;
            cursor.advance(sequence, bytes_through, Leave::Delivered);
            moved.insert(at, (cursor, ack.last));
        }
        Ok(moved)
    }
}

impl Committer {
    /// Finds out what of a group comes into effect: its hints, and the transactions that lose no race.
    pub fn judge(&self, parts: Vec<(usize, Part)>) -> Judged {
        let mut judged = Judged::default();
        for (place, part) in parts {
            let mut draft = match part {
                Part::Hint { node, hint, .. } => {
                    judged.hints.push(((place, 0), node, hint));
                    continue;
                }
                Part::Transaction(draft) => draft,
            };
            if let Err(refusal) = judged.accepted.add(&mut draft, self) {
                if matches!(refusal, Refusal::Conflict) {
                    self.shared.counters.conflicts.fetch_add(1, Relaxed);
                }
                self.shared.in_flight.refuse(place, refusal);
                continue;
            }
            let hints = draft.hints.into_iter().enumerate();
            let owned = hints.map(|(index, (node, hint))| ((place, index), node, hint));
            judged.hints.extend(owned);
        }
        judged
    }

    /// Writes what the transactions of a group change, and its blocks, so that all of it is there or nothing.
    pub fn write_as_one(
        &mut self,
        blocks: Vec<EncodedBlock>,
        accepted: Accepted,
    ) -> Result<(), StorageError> {
        point("transaction: accepted")?;
        let Accepted {
            rows,
            cursors,
            removed_bytes,
            ..
        } = accepted;
        let cursor_records = cursors
            .iter()
            .map(|((_, at), (cursor, _))| (IVec::from(&at.cursor_key()), cursor.encode(*at)));
        let blocks = blocks.into_iter().flat_map(EncodedBlock::into_writes);
        let blocks = blocks.map(|(key, value)| (IVec::from(&key), value));
        let ours = cursor_records.chain(blocks);
        let ours: RowMap = ours.map(|(key, value)| (key, Some(value.into()))).collect();
        let engine = self.engine()?;
        let rows = rows.values().map(|(tree, rows)| (tree, rows));
        let writes: Vec<(&Tree, &RowMap)> = std::iter::once((&engine.hints, &ours))
            .chain(rows)
            .filter(|(_, rows)| !rows.is_empty())
            .collect();

        // SLED.md rule 2.
        let bytes = writes.iter().flat_map(|(_, rows)| rows.iter());
        let bytes = bytes.map(|(key, value)| key.len() + value.as_ref().map_or(0, |it| it.len()));
        let bytes = removed_bytes + bytes.sum::<usize>();
        if self.handed_bytes + bytes > GROUP_BYTES && self.handed_bytes > 0 {
            self.commit()?;
        }
        self.handed_bytes += bytes;
        apply(&writes).map_err(|error| StorageError::new("write a transaction", error))?;
        point("transaction: applied")?;

        let mut registry = self.shared.registry.lock();
        for ((node, at), (_, mark)) in cursors {
            // Seen at once, as with any acknowledgement; what it lets be trimmed waits until it is durable.
            registry.advance(
                node,
                at,
                mark.sequence,
                mark.bytes_through,
                Leave::Delivered,
            );
            self.dirty.insert((node, at));
        }
        Ok(())
    }
}

fn apply(writes: &[(&Tree, &RowMap)]) -> sled::Result<()> {
    let trees: Vec<&Tree> = writes.iter().map(|(tree, _)| *tree).collect();
    if trees.is_empty() {
        return Ok(());
    }
    let applied = trees.as_slice().transaction(|views| {
        for (view, (_, rows)) in views.iter().zip(writes) {
            for (key, value) in rows.iter() {
                match value {
                    Some(value) => view.insert(key, value)?,
                    None => view.remove(key)?,
                };
            }
        }
        Ok(())
    });
    applied.map_err(|error| match error {
        TransactionError::Storage(error) => error,
        // Nothing above aborts.
        TransactionError::Abort(()) => sled::Error::ReportableBug("it was aborted".to_owned()),
    })
}
