//! What a durable group shows: hints that wait, answers, bells.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::Ordering::Relaxed,
};

use crate::{
    error::{HandoffError, StorageError},
    store::{
        commit::committer::Committer,
        format::{
            cursor::Leave,
            encoder::EncodedBlock,
            keys::{Place, QueueRef},
            peeked::PeekedHint,
            run::Draft,
        },
        pipeline::{inbox::Dirty, not_stored::Taken},
        state::{block_cache::Kept, lock::Reservation},
    },
    types::{Amount, NodeId, Sequence},
};

/// What becomes visible once the group is durable.
#[derive(Default)]
pub struct NewHints {
    pub written: Vec<Stored>,
    /// Those that stand in WAL records.
    pub for_memtable: Vec<Draft>,
    /// Those that left with the group that stored them.
    pub stillborn: Vec<(NodeId, PeekedHint, Leave)>,
    /// Dead letters that made room for others.
    pub evicted: HashMap<NodeId, Amount>,
    /// Queues that took their last hint before. If they are drained by now, writing their cursors
    /// once more retires them.
    pub ended: Vec<Dirty>,
    /// Copies that never were hints.
    pub not_stored: Taken,
}

impl NewHints {
    /// How much of it has left already.
    fn stillborn_in(&self, of: &Stored) -> u64 {
        let has_left = |(_, hint, _): &&(NodeId, PeekedHint, Leave)| {
            let Place { queue, sequence } = hint.mark.place();
            queue == of.queue && (of.first..=of.watermark).contains(&sequence)
        };
        self.stillborn.iter().filter(has_left).count() as u64
    }
}

/// Some of a queue.
pub struct Stored {
    pub node: NodeId,
    pub queue: QueueRef,
    pub watermark: Sequence,
    pub bytes_through: u64,
    pub added: Amount,
    pub first: Sequence,
    pub oldest_unix_ms: u64,
    pub due_unix_ms: u64,
    pub recent: Option<Kept>,
}

impl Stored {
    pub fn of(draft: &Draft, recent: Option<Kept>) -> Stored {
        let bytes_through = draft.bytes_through();
        Stored {
            node: draft.node,
            queue: draft.queue,
            watermark: draft.last(),
            bytes_through,
            added: draft.amount(),
            first: draft.first,
            oldest_unix_ms: draft.oldest_unix_ms(),
            due_unix_ms: draft.due_unix_ms(),
            recent,
        }
    }

    /// The same of a block, whose body goes with it.
    pub fn of_block(draft: &Draft, block: &mut EncodedBlock) -> Stored {
        let (node, queue, header) = (draft.node, block.queue, block.header);
        tracing::debug!(
            node = node.0,
            queue = queue.queue.0,
            first = header.first.0,
            last = header.last().0,
            written_bytes = block.bytes(),
            "block"
        );
        let kept = block.body.take().map(|body| Kept {
            node,
            queue,
            header,
            body,
        });
        Stored::of(draft, kept)
    }
}

/// A cursor written in this group.
pub struct Moved {
    pub node: NodeId,
    pub queue: QueueRef,
    pub next: Sequence,
    pub retired: bool,
}

impl Committer {
    pub fn publish(&mut self, new: NewHints, moved: Vec<Moved>, reserved: Vec<Reservation>) {
        // The watchdog may have given up on this group, or a read failed the store; in between
        // nobody was told who had just begun to wait.
        if let Err(error) = self.shared.check_serving() {
            let cause = match error {
                HandoffError::Storage(cause) => cause,
                other => StorageError::new("commit", other),
            };
            return self.shared.tickets.take().fail(&cause);
        }
        for moved in &moved {
            match moved.retired {
                true => self.trimmer.whole(moved.node, moved.queue),
                false => self.trimmer.below(moved.queue, moved.next),
            }
        }
        self.give_flushed_back();
        let left_at_once: Vec<u64> = new.written.iter().map(|it| new.stillborn_in(it)).collect();
        let mut nodes = BTreeSet::new();
        let NewHints {
            mut written,
            for_memtable,
            stillborn,
            evicted,
            ended,
            not_stored,
        } = new;
        self.dirty.extend(ended);
        // From here on it is a success, whatever befalls the store: all of it is durable.
        let mut answers = self.shared.tickets.take();
        // Before anybody hears of them.
        for kept in written.iter_mut().filter_map(|it| it.recent.take()) {
            self.shared.recent.keep(kept);
        }
        for_memtable
            .into_iter()
            .for_each(|run| self.shared.memtable.put(run));
        let counters = &self.shared.counters;
        {
            let mut registry = self.shared.registry.lock();
            for reservation in reserved.into_iter().chain(answers.take_reserved()) {
                reservation.settle(&mut registry.quota);
            }
            for (it, left_at_once) in written.into_iter().zip(left_at_once) {
                registry.publish(it.node, it.queue, it.watermark, it.bytes_through, it.added);
                let (oldest, due) = (it.oldest_unix_ms, it.due_unix_ms);
                registry.note_stored(it.node, it.queue, it.first, oldest, due);
                counters.enqueued_hints.fetch_add(it.added.hints, Relaxed);
                counters.enqueued_bytes.fetch_add(it.added.bytes, Relaxed);
                // What is held is nobody's to send: its bell rings when it is let go.
                let held = registry.claim_held(it.node, it.queue, it.first..=it.watermark);
                if held + left_at_once < it.added.hints {
                    nodes.insert(it.node);
                }
            }
            // Under the same lock, so nobody sees them pending.
            for (node, hint, leave) in stillborn {
                registry.leave(node, &[hint], leave);
            }
            for (node, evicted) in evicted {
                if let Some(queues) = registry.nodes.get_mut(&node) {
                    queues.letters_evicted = queues.letters_evicted.plus(evicted);
                }
            }
            for moved in moved.iter().filter(|moved| moved.retired) {
                registry.drop_queue(moved.node, moved.queue);
            }
        }
        self.shared.inbox.expect_back(answers.len());
        // Before the answers: whoever gives hints up goes on with them, and may be told of as
        // caught up.
        self.tell_what_left();
        answers.succeed(&self.shared.counters.append_times);
        for done in self.shared.not_stored.are_durable(not_stored) {
            done(Ok(()));
        }
        if !nodes.is_empty() {
            (self.shared.on_durable)(&nodes);
        }
    }
}
