//! Barriers: what has become of all hints up to a moment.
//!
//! A barrier names hints by queue and sequence, so it outlives restarts, retired queues, and nodes
//! that are renamed or removed. Where the hints are is looked up anew each time, in an order in
//! which none slips through: what waits (the registry), dead letters and what points to hints that
//! were sent on (the tree), and the loss journal. A hint that leaves is in the next of these,
//! durably as one, before it is gone from the one before.

use std::collections::{BTreeSet, HashMap};

use crate::{
    error::{HandoffError, StorageError},
    store::{
        Store,
        api::dead_letters::queues_with_letters_of_all,
        commit::loss_journal,
        engine::{generation::Engine, meta},
        format::{
            barrier::{Barrier, BarrierLosses, BarrierQueue, BarrierState},
            dead_letter::Letter,
            keys::{Key, Place, QueueRef},
            loss::Loss,
        },
        state::queue::Queue,
    },
    types::{Amount, NodeId, QueueId},
};

/// How often what points to a hint is read again because that was sent on meanwhile.
const HOPS: usize = 8;

/// What waits of a queue.
fn waiting(queue: &Queue) -> Option<BarrierQueue> {
    (!queue.is_drained()).then_some(BarrierQueue {
        node: queue.at.node,
        queue: queue.at.queue,
        from: queue.cursor.next,
        through: queue.watermark,
        bytes_through: queue.bytes,
    })
}

/// How much of a barrier's queue waits in the queue as it is now.
fn pending_of(named: &BarrierQueue, queue: &Queue) -> Amount {
    let cursor = &queue.cursor;
    // An unclean stop may have brought back what had left before it was made.
    let first = cursor.next.max(named.from);
    if first > named.through {
        return Amount::default();
    }
    let mut pending = Amount {
        hints: named.through.0 - first.0 + 1,
        bytes: named.bytes_through.saturating_sub(cursor.bytes_below()),
    };
    for range in cursor.gone_from(first) {
        if range.first > named.through {
            break;
        }
        let all = range.amount();
        let hints = range.last.min(named.through).0 - range.first.max(first).0 + 1;
        let bytes = u128::from(all.bytes) * u128::from(hints) / u128::from(all.hints.max(1));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        pending = pending.less(Amount { hints, bytes });
    }
    pending
}

/// What is not lost.
#[derive(Default)]
struct Rest {
    pending: Amount,
    dead_letters: u64,
}

/// Where a hint is that was sent on.
enum Now {
    Pending(u64),
    Dead,
    Gone,
}

fn unread(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HandoffError {
    StorageError::new("look at a barrier", error).into()
}

impl Store {
    /// Makes a barrier of all that waits for these nodes and was handed in before; nothing waits
    /// for a node that is not known. `done` is told it once all of that is durable.
    pub fn barrier(
        &self,
        nodes: BTreeSet<NodeId>,
        done: impl FnOnce(Result<Barrier, HandoffError>) + Send + 'static,
    ) {
        let shared = std::sync::Arc::clone(&self.shared);
        // On the commit thread, which records all losses: none comes in between.
        self.close_entries(move |losses_from| {
            let made = losses_from.map(|losses_from| {
                let registry = shared.registry.lock();
                let mut queues = Vec::new();
                for known in nodes.iter().filter_map(|node| registry.nodes.get(node)) {
                    queues.extend(known.queues.iter().filter_map(waiting));
                }
                let nodes = nodes.into_iter().collect();
                Barrier::new(shared.store, losses_from, nodes, queues)
            });
            done(made);
        });
    }

    /// What has become of a barrier's hints. Reads from the disk.
    pub fn look_at(&self, barrier: &Barrier) -> Result<BarrierState, HandoffError> {
        self.shared.check_serving()?;
        let queues = self.waiting_of(barrier)?;
        let engine = self.shared.engine()?;
        let next_queue = meta::next_queue(&engine).map_err(unread)?;
        for named in &barrier.queues {
            if next_queue.is_some_and(|next| named.queue.0 >= next) {
                return Err(ahead(named));
            }
        }
        let Rest {
            pending,
            dead_letters,
        } = self.rest(&engine, barrier, &queues, |_| true)?;
        let losses = losses_of(&engine, barrier)?;
        if !losses.is_none() {
            // The records of a removed node's dead letters go bit by bit, behind their loss.
            let listed = queues_with_letters_of_all(&engine)?;
            let rest = self.rest(&engine, barrier, &queues, |at| listed.contains(&at))?;
            return Ok(BarrierState::Lost {
                losses,
                pending: rest.pending,
                dead_letters: rest.dead_letters,
            });
        }
        Ok(match (pending.hints, dead_letters) {
            (0, 0) => BarrierState::Delivered,
            _ => BarrierState::Waiting {
                pending,
                dead_letters,
            },
        })
    }

    /// The barrier's queues that are still there, whichever node they are drained for by now.
    fn waiting_of(&self, barrier: &Barrier) -> Result<HashMap<QueueId, Queue>, HandoffError> {
        barrier.check(self.shared.store)?;
        let wanted: BTreeSet<QueueId> = barrier.queues.iter().map(|it| it.queue).collect();
        let queues: HashMap<QueueId, Queue> = {
            let registry = self.shared.registry.lock();
            let all = registry.nodes.values().flat_map(|node| &node.queues);
            let named = all.filter(|queue| wanted.contains(&queue.at.queue));
            named.map(|queue| (queue.at.queue, queue.clone())).collect()
        };
        for named in &barrier.queues {
            let queue = queues.get(&named.queue);
            if queue.is_some_and(|queue| queue.watermark < named.through) {
                return Err(ahead(named));
            }
        }
        Ok(queues)
    }

    fn rest(
        &self,
        engine: &Engine,
        barrier: &Barrier,
        queues: &HashMap<QueueId, Queue>,
        has_letters: impl Fn(QueueRef) -> bool,
    ) -> Result<Rest, HandoffError> {
        let by_id: HashMap<QueueId, &BarrierQueue> =
            barrier.queues.iter().map(|it| (it.queue, it)).collect();
        let mut rest = Rest::default();
        let mut sent_on = BTreeSet::new();
        // A host may have stored anything.
        for named in barrier.queues.iter().filter(|it| it.from <= it.through) {
            let queue = queues.get(&named.queue);
            let pending = queue.map(|queue| pending_of(named, queue));
            rest.pending = rest.pending.plus(pending.unwrap_or_default());
            if !has_letters(named.at()) {
                continue;
            }
            let end = Place {
                queue: named.at(),
                sequence: named.through,
            };
            let letters = named.at().letter_keys(named.from).start..=end.letter_key().to_vec();
            for record in engine.hints.range(letters) {
                let (key, value) = record.map_err(unread)?;
                let Some(Key::Letter(place)) = Key::parse(&key) else {
                    continue;
                };
                // It became one after the queue was looked at, and counts as pending.
                if queue.is_some_and(|queue| !queue.cursor.is_gone(place.sequence)) {
                    continue;
                }
                let Ok(Letter::Redriven {
                    node,
                    queue,
                    sequence,
                    ..
                }) = Letter::decode(place, &value)
                else {
                    // A record that does not read is no proof that it was delivered.
                    rest.dead_letters += 1;
                    continue;
                };
                let now = Place::of(node, queue, sequence);
                let is_named = by_id.get(&queue).is_some_and(|it| it.holds(sequence));
                // It counts where it is now.
                if is_named || !sent_on.insert(now) {
                    continue;
                }
                match self.follow(engine, place)? {
                    Now::Pending(bytes) => {
                        rest.pending = rest.pending.plus(Amount { hints: 1, bytes });
                    }
                    Now::Dead => rest.dead_letters += 1,
                    Now::Gone => {}
                }
            }
        }
        Ok(rest)
    }

    /// What has become of a hint that is no dead letter at `place` any more.
    fn follow(&self, engine: &Engine, place: Place) -> Result<Now, HandoffError> {
        let pointer = || engine.hints.get(place.letter_key()).map_err(unread);
        let mut record = pointer()?;
        for _ in 0..HOPS {
            let Some(value) = &record else {
                return Ok(Now::Gone);
            };
            let Ok(Letter::Redriven {
                node,
                queue,
                sequence,
                payload_bytes,
            }) = Letter::decode(place, value)
            else {
                return Ok(Now::Dead);
            };
            let now = Place::of(node, queue, sequence);
            let is_gone = {
                let registry = self.shared.registry.lock();
                let mut all = registry.nodes.values().flat_map(|node| &node.queues);
                // In a queue that nobody sees yet it is about to become durable.
                all.find(|queue| queue.at == now.queue)
                    .is_some_and(|queue| queue.cursor.is_gone(now.sequence))
            };
            let is_dead = engine.hints.contains_key(now.letter_key());
            let is_dead = is_dead.map_err(unread)?;
            // Only if it was not sent on meanwhile does that hold.
            let again = pointer()?;
            if again == record {
                return Ok(match (is_dead, is_gone) {
                    (true, _) => Now::Dead,
                    (false, false) => Now::Pending(payload_bytes),
                    (false, true) => Now::Gone,
                });
            }
            record = again;
        }
        Ok(Now::Pending(0))
    }
}

fn ahead(named: &BarrierQueue) -> HandoffError {
    HandoffError::BarrierAhead {
        queue: named.queue,
        sequence: named.through,
    }
}

fn losses_of(engine: &Engine, barrier: &Barrier) -> Result<BarrierLosses, HandoffError> {
    let since = barrier.losses_from;
    let journal = loss_journal::scan(&engine.losses, since).map_err(unread)?;
    let by_id: HashMap<QueueId, &BarrierQueue> =
        barrier.queues.iter().map(|it| (it.queue, it)).collect();
    let nodes: BTreeSet<NodeId> = barrier.nodes.iter().copied().collect();
    let meets = |queue: QueueId, first, last| {
        let named = by_id.get(&queue);
        named.is_some_and(|named| named.meets(first, last))
    };
    let is_its = |loss: &Loss| {
        let Some(place) = loss.place else {
            return nodes.contains(&loss.node);
        };
        let mut stood = loss.redriven_from.iter();
        meets(place.queue, place.first, place.last)
            || stood.any(|(queue, sequence)| meets(*queue, *sequence, *sequence))
    };
    let forgotten = journal.forgotten.is_some_and(|(below, _)| {
        let mut queues = barrier.queues.iter();
        queues.any(|named| named.queue < below)
    });
    // It may tell of copies for any of its nodes, even if nothing waited for them.
    let damaged = !journal.unreadable.is_empty() || journal.not_stored_forgotten.is_some();
    let damaged = damaged && !nodes.is_empty();
    let entries = journal.entries.into_iter();
    let entries: Vec<_> = entries.filter(|(_, loss)| is_its(loss)).collect();
    let folded = journal.folded.into_iter();
    let of_nodes = journal.not_stored.iter();
    let of_nodes = of_nodes.filter(|it| nodes.contains(&it.node));
    let not_stored = of_nodes.map(|it| it.amount);
    let listed = entries.iter().filter(|(_, loss)| loss.place.is_none());
    let not_stored = not_stored.chain(listed.map(|(_, loss)| loss.amount));
    let not_stored = not_stored.fold(Amount::default(), Amount::plus);
    Ok(BarrierLosses {
        entries,
        folded: folded
            .filter(|it| meets(it.queue, it.first, it.last))
            .collect(),
        not_stored,
        unknown: forgotten || damaged,
    })
}
