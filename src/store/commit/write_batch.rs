//! Which batches of a group come into effect, and writing what of them must not come apart.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    error::StorageError,
    store::{
        bounds::GROUP_BYTES,
        commit::{accepted::Accepted, committer::Committer},
        engine::{
            rows::RowMap,
            table::{IVec, Table},
        },
        failpoints::point,
        format::{
            cursor::Leave,
            dead_letter_count::LetterTallies,
            encoder::EncodedBlock,
            keys::Place,
            node_record::NodeRecord,
            node_status::Status,
            peeked::{Mark, PeekedHint},
            reasons::{Fate, LossReason},
        },
        pipeline::{
            batch::{HintKind, Leaving, NewHint, WriteBatch},
            ticket::{Owner, Refusal},
        },
    },
    types::{Amount, NodeId},
};

/// What sled may write for a key of ours: a leaf with as many chunks as fit.
const LEAF_BYTES: u64 = 17 * 16 * 1024;

/// What comes into effect of a group.
#[derive(Default)]
pub struct AcceptedGroup {
    pub hints: Vec<(Owner, NewHint)>,
    pub accepted: Accepted,
}

impl Committer {
    /// Finds out what of a group comes into effect: all but batches that lost a race.
    pub fn accept(
        &mut self,
        batches: Vec<(usize, WriteBatch)>,
    ) -> Result<AcceptedGroup, StorageError> {
        let mut group = AcceptedGroup::default();
        let shared = Arc::clone(&self.shared);
        for (place, mut batch) in batches {
            let is_several = batch.is_several();
            if let Err(refusal) = group.accepted.add(&mut batch, self) {
                if matches!(refusal, Refusal::Conflict) {
                    shared.counters.conflicts.fetch_add(1, Relaxed);
                }
                shared.tickets.refuse(place, refusal);
                continue;
            }
            group.accepted.several += u64::from(is_several);
            let (left, rehinted) = self.let_leave(&mut group.accepted, batch.leaves)?;
            if left != Amount::default() {
                shared.tickets.note_left(place, left);
            }
            for (index, new) in batch.hints.into_iter().enumerate() {
                let is_there = match new.kind {
                    HintKind::Redriven(letter) => {
                        self.redrive(&mut group.accepted, new.node, letter)?
                    }
                    HintKind::Rehinted(from) => rehinted.contains(&from),
                    _ => true,
                };
                if is_there {
                    group.hints.push(((place, index), new));
                }
            }
        }
        Ok(group)
    }

    /// Returns what leaves: what is pending, or a dead letter, still. And where those of it stood
    /// that other nodes get.
    fn let_leave(
        &mut self,
        accepted: &mut Accepted,
        leaves: Vec<Leaving>,
    ) -> Result<(Amount, HashSet<Place>), StorageError> {
        let (mut left, mut rehinted) = (Amount::default(), HashSet::new());
        for leaving in leaves {
            left = left.plus(match leaving {
                Leaving::Hints(node, hints, fate) => {
                    let (left, places) = self.leave_undelivered(accepted, node, hints, &fate)?;
                    if matches!(fate, Fate::Lost(LossReason::Rehinted)) {
                        rehinted.extend(places);
                    }
                    left
                }
                Leaving::Letters(node, letters) => self.discard(accepted, node, &letters)?,
                Leaving::Acked(_) => Amount::default(),
            });
        }
        Ok((left, rehinted))
    }

    /// Writes what a group changes that is all or nothing, and its blocks.
    pub fn write_as_one(
        &mut self,
        blocks: Vec<EncodedBlock>,
        mut accepted: Accepted,
    ) -> Result<(), StorageError> {
        point("transaction: accepted")?;
        let engine = self.engine()?;
        self.note_gone_letters(&mut accepted)?;
        let losses = &mut accepted.losses;
        let folded = self.journal.fold(&engine.losses, losses);
        folded.map_err(|error| StorageError::new("read the loss journal", error))?;
        for block in std::mem::take(&mut accepted.letter_blocks) {
            self.write_block(block)?;
            point("letter: block written")?;
        }
        let ours = self.records(blocks, &mut accepted)?;
        let rows = accepted.rows.values().map(|(tree, rows)| (tree, rows));
        let writes: Vec<(&Table, &RowMap)> = [
            (&engine.hints, &ours.hints),
            (&engine.nodes, &ours.nodes),
            (&engine.losses, &accepted.losses),
        ]
        .into_iter()
        .chain(rows)
        .collect();

        let written = self.writer()?.transact(&writes, accepted.removed_bytes)?;
        point("transaction: applied")?;
        let our_keys = ours.hints.len() + ours.nodes.len() + accepted.losses.len();
        let of_ours = our_keys as u64 * LEAF_BYTES + written.bytes as u64;
        let rows = accepted.rows.values().map(|(_, rows)| rows.len()).sum();
        let of_rows = written.log_bytes.saturating_sub(of_ours);
        self.shared.inbox.note_rows(rows, of_rows as usize);
        self.show(accepted);
        Ok(())
    }

    /// The records of ours that are part of the transaction: cursors, blocks, dead letters, and the
    /// nodes that have some.
    fn records(
        &mut self,
        blocks: Vec<EncodedBlock>,
        accepted: &mut Accepted,
    ) -> Result<Ours, StorageError> {
        let mut hints = std::mem::take(&mut accepted.hints);
        for ((_, at), cursor) in &accepted.cursors {
            let value = cursor.encode(*at).into();
            hints.insert(IVec::from(&at.cursor_key()), Some(value));
        }
        let mut bytes = 0;
        for block in blocks {
            // One hint may be larger than a group, and so may be copies of it for several nodes:
            // chunks beyond are durable before the transaction brings chunk 0.
            let is_large = bytes + block.bytes() > GROUP_BYTES;
            bytes += block.bytes();
            let mut writes = block.into_writes().peekable();
            while let Some((key, value)) = writes.next() {
                if is_large && writes.peek().is_some() {
                    let engine = self.engine()?;
                    self.writer()?.put(&engine.hints, &key, value)?;
                    point("append: chunk written")?;
                } else {
                    hints.insert(IVec::from(&key), Some(value.into()));
                }
            }
            if is_large {
                self.writer()?.commit()?;
            }
        }
        let records = accepted.rewrites.iter().filter_map(|node| {
            let value = self.records.get(node)?.encode(*node);
            Some((IVec::from(&NodeRecord::key(*node)), Some(value.into())))
        });
        let status = accepted.status_gone.iter();
        let status = status.map(|node| (IVec::from(&Status::key(*node)), None));
        Ok(Ours {
            hints,
            nodes: records.chain(status).collect(),
        })
    }

    /// Seen at once, as with any acknowledgement; what it lets be trimmed waits until it is
    /// durable.
    fn show(&mut self, accepted: Accepted) {
        for (letter, now, stood) in accepted.pointed {
            self.redriven.remove(&letter);
            self.redriven.insert(now, stood);
        }
        for (place, _) in accepted.letters_gone {
            self.redriven.remove(&place);
            self.trimmer.letter(place);
        }
        self.dirty.extend(accepted.cursors.into_keys());
        self.show_in_registry(accepted.acked, accepted.leaving, accepted.letters);
        self.shared.tell_leave();
    }

    fn show_in_registry(
        &self,
        acked: Vec<(NodeId, Mark)>,
        left: Vec<(NodeId, Vec<PeekedHint>, Leave)>,
        letters: HashMap<NodeId, LetterTallies>,
    ) {
        let mut registry = self.shared.registry.lock();
        for (node, mark) in acked {
            let Mark {
                queue,
                sequence,
                bytes_through,
            } = mark;
            registry.advance(node, queue, sequence, bytes_through, Leave::Delivered);
        }
        for (node, hints, leave) in left {
            registry.leave(node, &hints, leave);
        }
        for (node, letters) in letters {
            // A node that gets its first hint with this group may get it as a dead letter.
            registry.nodes.entry(node).or_default().letters = letters;
        }
    }
}

/// Records of ours in a transaction.
struct Ours {
    hints: RowMap,
    nodes: RowMap,
}
