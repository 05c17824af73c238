//! What a group changes as one, and whether a batch can be part of it.

use std::collections::{BTreeSet, HashMap};

use crate::{
    error::StorageError,
    store::{
        commit::committer::Committer,
        engine::{
            rows::{RowMap, read_row},
            table::{IVec, Table},
        },
        failpoints::{Safeguard, is_off},
        format::{
            cursor::{Cursor, Leave},
            dead_letter_count::LetterTallies,
            encoder::EncodedBlock,
            keys::{Place, QueueRef},
            peeked::{Mark, PeekedHint},
        },
        pipeline::{
            batch::{Ack, Leaving, RowChanges, WriteBatch},
            changes::TreeChanges,
            ticket::Refusal,
        },
    },
    types::{Amount, HintId, NodeId},
};

/// Where queues will stand that something leaves with the group.
type Cursors = HashMap<(NodeId, QueueRef), Cursor>;

/// What a group changes as one.
#[derive(Default)]
pub struct Accepted {
    pub(super) rows: HashMap<IVec, (Table, RowMap)>,
    pub cursors: Cursors,
    /// What consumers acknowledge.
    pub(super) acked: Vec<(NodeId, Mark)>,
    /// What is removed counts, too (docs/sled.md rule 2).
    pub removed_bytes: usize,
    /// Hints that leave undelivered.
    pub leaving: Vec<(NodeId, Vec<PeekedHint>, Leave)>,
    /// Hints that leave undelivered in the group that stores them. They show when the group is
    /// published, as other hints of it do.
    pub stillborn: Vec<(NodeId, PeekedHint, Leave)>,
    /// Records in our trees of hints and of losses.
    pub hints: RowMap,
    pub losses: RowMap,
    /// The blocks of new dead letters; without its record such a block is nothing, so they need not
    /// be part of any transaction.
    pub letter_blocks: Vec<EncodedBlock>,
    /// What nodes will have of dead letters.
    pub letters: HashMap<NodeId, LetterTallies>,
    /// Dead letters that make room for newer ones.
    pub evicted: HashMap<NodeId, Amount>,
    /// Dead letters that are none any more, whose blocks are to be trimmed, with their numbers.
    pub letters_gone: Vec<(Place, u64)>,
    /// Dead letters that become hints again: where it stood, where it is now, and all places where
    /// it stood.
    pub pointed: Vec<(Place, Place, Vec<Place>)>,
    /// A node that is forgotten, with its status.
    pub status_gone: Option<NodeId>,
    /// Nodes whose record changes.
    pub rewrites: BTreeSet<NodeId>,
    /// Batches of several parts, which must not come apart. Their hints are not in here.
    pub several: u64,
}

impl Accepted {
    /// Takes the rows and acks of a batch into the group, or says why not.
    ///
    /// The batches of a group come one after the other, each as if those before it were done. What
    /// each has read is still so when it comes; so all could have run at that moment, in that
    /// order.
    pub fn add(&mut self, batch: &mut WriteBatch, committer: &Committer) -> Result<(), Refusal> {
        let RowChanges {
            trees,
            removed_bytes,
            ..
        } = std::mem::take(&mut batch.rows);
        let trees: Vec<_> = trees.into_iter().map(|it| (it.tree.name(), it)).collect();
        if !self.holds(&trees).map_err(Refusal::Read)? {
            return Err(Refusal::Conflict);
        }
        // A tree that was dropped fails this one, not the store.
        for (_, it) in &trees {
            if let (true, Some(key)) = (it.reads.is_empty(), it.writes.keys().next()) {
                read_row(&it.tree, key).map_err(Refusal::Read)?;
            }
        }
        let acks = batch.leaves.iter().filter_map(|leaving| match leaving {
            Leaving::Acked(ack) => Some(*ack),
            _ => None,
        });
        let acks: Vec<Ack> = acks.collect();
        let moved = self.moved(&acks, committer)?;
        self.removed_bytes += removed_bytes;
        self.cursors.extend(moved);
        self.acked
            .extend(acks.iter().map(|ack| (ack.node, ack.last)));
        for (name, changes) in trees {
            let new = || (Table::of_host(changes.tree), RowMap::new());
            let (_, rows) = self.rows.entry(name).or_insert_with(new);
            rows.extend(changes.writes);
        }
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
            let cursor = queue.map(|queue| known.cloned().unwrap_or(queue.cursor));
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
            moved.insert(at, cursor);
        }
        Ok(moved)
    }

    /// Whether nothing in it is all or nothing: its blocks are plain inserts then.
    ///
    /// It follows from what is in it, field by field, since a plain group writes nothing of it.
    pub fn is_plain(&self) -> bool {
        let Accepted {
            rows,
            cursors,
            acked,
            // Counts what other fields hold.
            removed_bytes: _,
            leaving,
            stillborn,
            hints,
            losses,
            letter_blocks,
            letters,
            // What goes is in the letters.
            evicted: _,
            letters_gone,
            pointed,
            status_gone,
            rewrites,
            several,
        } = self;
        let leaves_nothing =
            acked.is_empty() && leaving.is_empty() && stillborn.is_empty() && pointed.is_empty();
        let changes_no_letters =
            letter_blocks.is_empty() && letters.is_empty() && letters_gone.is_empty();
        let has_no_records = rows.is_empty()
            && cursors.is_empty()
            && hints.is_empty()
            && losses.is_empty()
            && rewrites.is_empty()
            && status_gone.is_none();
        leaves_nothing && changes_no_letters && has_no_records && *several == 0
    }

    /// Sets or removes a record in our tree of hints.
    pub fn set(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        self.hints.insert(IVec::from(key), value.map(IVec::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(fill: impl FnOnce(&mut Accepted)) -> Accepted {
        let mut accepted = Accepted::default();
        fill(&mut accepted);
        accepted
    }

    #[test]
    fn what_a_group_is_to_write_as_one_is_never_taken_for_nothing() {
        let (node, queue) = (NodeId(1), crate::types::QueueId(1));
        let place = Place::of(node, queue, crate::types::Sequence(1));
        assert!(Accepted::default().is_plain());
        assert!(!holding(|it| it.set(b"key", Some(vec![1]))).is_plain());
        assert!(!holding(|it| it.set(b"key", None)).is_plain());
        assert!(!holding(|it| it.letters_gone.push((place, 1))).is_plain());
        let cursor = ((node, place.queue), Cursor::start());
        assert!(!holding(|it| it.cursors.extend([cursor])).is_plain());
        let loss = (IVec::from(b"key"), None);
        assert!(!holding(|it| it.losses.extend([loss])).is_plain());
        assert!(!holding(|it| it.rewrites.extend([node])).is_plain());
        assert!(!holding(|it| it.status_gone = Some(node)).is_plain());
        // Nothing leaves, but what was claimed for it is to be given back.
        let claimed = (node, Vec::new(), Leave::Lost);
        assert!(!holding(|it| it.leaving.push(claimed)).is_plain());
        assert!(!holding(|it| it.several = 1).is_plain(), "a transaction");
    }
}
