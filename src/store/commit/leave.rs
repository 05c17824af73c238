//! What a group does with hints that leave undelivered: it works out the records, which
//! `write_batch.rs` writes as one with all else of the group.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{
    error::StorageError,
    store::{
        commit::{
            accepted::Accepted,
            committer::Committer,
            dead_letters::{failed, letters_of},
        },
        failpoints::point,
        format::{
            cursor::Cursor,
            keys::{Place, QueueRef},
            loss::{Loss, LostRange},
            peeked::{Mark, PeekedHint},
            reasons::{Fate, LossReason},
        },
    },
    types::{Amount, NodeId, QueueId, Sequence, ShardId},
};

impl Accepted {
    /// Where a queue will stand, to be moved on; `None` if the node has no such queue.
    fn cursor(
        &mut self,
        node: NodeId,
        at: QueueRef,
        committer: &Committer,
    ) -> Option<(&mut Cursor, Sequence)> {
        let registry = committer.shared.registry.lock();
        let queue = registry.look_at(node, at)?;
        // Asked for each hint that leaves, and a cursor may be long: copied once a group.
        let cursor = self.cursors.entry((node, at));
        let cursor = cursor.or_insert_with(|| queue.cursor.clone());
        Some((cursor, queue.watermark))
    }
}

impl Committer {
    /// Takes into the group that hints leave. Returns what does, those that are pending still, and
    /// where each stood.
    ///
    /// What the host picks out by hand may leave so many holes in a queue that its cursor has no
    /// room for them. Those beyond stay, and are claimed no longer.
    pub fn leave_undelivered(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        mut hints: Vec<PeekedHint>,
        fate: &Fate,
    ) -> Result<(Amount, Vec<Place>), StorageError> {
        let leave = fate.leave();
        let is_picked = matches!(
            fate,
            Fate::Lost(LossReason::Discarded | LossReason::Rehinted)
        );
        let (mut left, mut stay) = (Amount::default(), HashSet::new());
        let leaves = |PeekedHint { mark, hint }: &&PeekedHint| {
            let Some((cursor, watermark)) = accepted.cursor(node, mark.queue, self) else {
                return false;
            };
            if mark.sequence > watermark {
                return false;
            }
            if is_picked && !cursor.may_leave(mark.sequence) {
                stay.insert(mark.place());
                return false;
            }
            let gone = cursor.leave(mark.sequence, hint.payload_bytes(), leave);
            left = left.plus(gone);
            gone.hints > 0
        };
        let leaving: Vec<&PeekedHint> = hints.iter().filter(leaves).collect();
        let places = leaving.iter().map(|hint| hint.mark.place()).collect();
        self.record(accepted, node, &leaving, fate)?;
        let stay = hints.extract_if(.., |hint| stay.contains(&hint.mark.place()));
        let stay: Vec<_> = stay.collect();
        self.shared.registry.lock().release(node, &stay);
        // All others are claimed no longer.
        accepted.leaving.push((node, hints, leave));
        Ok((left, places))
    }

    /// Takes into the group that a hint of it leaves in it. The registry knows nothing of it before
    /// the group is published.
    pub fn leave_at_once(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hint: PeekedHint,
        fate: &Fate,
    ) -> Result<(), StorageError> {
        let Mark {
            queue, sequence, ..
        } = hint.mark;
        let known = || self.shared.registry.lock().queue(node, queue);
        let cursor = accepted.cursors.entry((node, queue));
        // A queue that nobody sees yet begins with this group.
        let cursor = cursor.or_insert_with(|| known().map_or_else(Cursor::start, |it| it.cursor));
        cursor.leave(sequence, hint.hint.payload_bytes(), fate.leave());
        self.record(accepted, node, &[&hint], fate)?;
        accepted.stillborn.push((node, hint, fate.leave()));
        Ok(())
    }

    /// What is to tell of hints that leave.
    fn record(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        leaving: &[&PeekedHint],
        fate: &Fate,
    ) -> Result<(), StorageError> {
        match fate {
            Fate::Lost(reason) => self.record_lost(accepted, node, leaving, *reason),
            Fate::Dead(cause) => {
                for hint in leaving {
                    self.make_dead_letter(accepted, node, hint, cause)?;
                }
            }
        }
        Ok(())
    }

    /// An entry of the loss journal for each shard and queue, and for each hint that had been a
    /// dead letter. Of hints that other nodes have now it does not name the shards: they are all
    /// that a node had, mostly, and entries of what is gone would make room for theirs.
    fn record_lost(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        hints: &[&PeekedHint],
        reason: LossReason,
    ) {
        type LeaveKind = (QueueId, Option<ShardId>, Option<(QueueId, Sequence)>);
        let mut lost: BTreeMap<LeaveKind, Loss> = BTreeMap::new();
        for PeekedHint { mark, hint } in hints {
            let shard = (reason != LossReason::Rehinted).then_some(hint.shard);
            let kind = (mark.queue.queue, shard, hint.origin);
            let mut place = LostRange::one(mark.queue.queue, mark.sequence);
            let loss = lost.entry(kind).or_insert_with(|| Loss {
                redriven_from: self.stood(mark.place(), hint.origin),
                ..Loss::new(node, shard, None, Amount::default(), reason)
            });
            if let Some(known) = loss.place {
                place.include(known.first, known.last);
            }
            loss.place = Some(place);
            loss.amount = loss.amount.plus(Amount {
                hints: 1,
                bytes: hint.payload_bytes(),
            });
        }
        for loss in lost.into_values() {
            self.journal.record(loss, &mut accepted.losses);
        }
    }
}

impl Committer {
    /// Discards all that a node has, in one step with the record of it and with its tombstone.
    pub fn remove_hints(
        &mut self,
        node: NodeId,
        reason: LossReason,
    ) -> Result<Amount, StorageError> {
        let record = self.records.entry(node).or_default();
        let had = std::mem::take(record);
        let queues: BTreeSet<QueueRef> = had
            .live
            .iter()
            .chain(&had.retired)
            .chain(&had.dead)
            .copied()
            .collect();
        record.removed = true;
        record.retired = queues.iter().copied().collect();
        let mut accepted = Accepted::default();
        accepted.rewrites.insert(node);
        let pending = self.record_removed(&mut accepted, node, &had.dead, reason)?;
        self.write_as_one(Vec::new(), accepted)?;
        point("drop: tombstone written")?;
        self.writer()?.commit()?;
        point("drop: tombstone durable")?;
        self.tails.remove(&node);
        self.redriven.retain(|now, stood| {
            stood.retain(|place| !queues.contains(&place.queue));
            !queues.contains(&now.queue) && !stood.is_empty()
        });
        for queue in queues {
            self.trimmer.whole(node, queue);
        }
        self.shared.registry.lock().remove(node);
        self.shared.tell_leave();
        self.tell_what_left();
        Ok(pending)
    }

    /// Of hints that wait the shards are not looked up: that would take reading all of them.
    fn record_removed(
        &mut self,
        accepted: &mut Accepted,
        node: NodeId,
        dead: &[QueueRef],
        reason: LossReason,
    ) -> Result<Amount, StorageError> {
        let queues = self.shared.registry.lock().nodes.get(&node).cloned();
        let queues = queues.unwrap_or_default();
        for queue in queues.queues.iter().filter(|queue| !queue.is_drained()) {
            let place = LostRange {
                queue: queue.at.queue,
                first: queue.cursor.next,
                last: queue.watermark,
            };
            let loss = Loss::new(node, None, Some(place), queue.pending(), reason);
            tracing::warn!(
                node = node.0,
                queue = place.queue.0,
                hints = loss.amount.hints,
                bytes = loss.amount.bytes,
                first_lost = place.first.0,
                last_lost = place.last.0,
                ?reason,
                "node removed; its hints are discarded"
            );
            self.record_unread(accepted, queue, loss, place);
        }
        let engine = self.engine()?;
        for queue in dead {
            for letter in letters_of(&engine, *queue, Sequence(0)).filter_map(Result::transpose) {
                let (place, dead) = letter.map_err(failed)?;
                self.discard_one(accepted, node, place, &dead, reason);
            }
        }
        accepted.status_gone = Some(node);
        // The records themselves go with their queues, bit by bit.
        accepted.hints.clear();
        accepted.removed_bytes = 0;
        accepted.letters_gone.clear();
        Ok(queues.pending())
    }
}
