//! What the layers above need to keep limits: room before the pipeline, the oldest hints, and the
//! account of what limits did.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    config::Config,
    error::EnqueueError,
    store::{
        Store,
        format::{
            keys::{Place, QueueRef},
            reasons::LossReason,
        },
        state::{
            limits::{Full, Limits},
            lock::{OnRoom, Reservation},
        },
    },
    types::{Amount, NodeId, Sequence},
};

/// A hint that nobody has claimed, at the head of what a node has of such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The node.
    pub node: NodeId,
    /// Where it stands.
    pub place: Place,
    /// When it was enqueued, or a moment before that; `None` if it was not read yet.
    pub unix_ms: Option<u64>,
}

/// Consecutive hints of a queue, one of which may have a lifetime that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The node.
    pub node: NodeId,
    /// The queue.
    pub queue: QueueRef,
    /// The first of them.
    pub from: Sequence,
    /// The first behind them.
    pub until: Sequence,
}

impl Store {
    /// Whether anything bounds what is pending.
    pub fn is_limited(&self) -> bool {
        self.limited.load(Relaxed)
    }

    /// Bounds what is pending anew. What is over a limit by now stays, and nothing is taken until
    /// enough of it has left.
    pub fn set_limits(&self, config: &Config) {
        self.limited.store(Limits::are_set(config), Relaxed);
        self.shared.registry.lock().quota.limits = Limits::of(config);
        self.shared.registry.ring();
    }

    /// Reserves room for hints, each node once: for all of them or for none. To be done before they
    /// are handed in, and to be handed in with them.
    pub fn reserve(&self, wanted: Vec<(NodeId, Amount)>) -> Result<Reservation, Full> {
        self.reserve_in_place_of(Amount::default(), wanted)
    }

    /// The same for hints with which others leave, of whatever node.
    pub fn reserve_in_place_of(
        &self,
        leaving: Amount,
        wanted: Vec<(NodeId, Amount)>,
    ) -> Result<Reservation, Full> {
        if !self.is_limited() || wanted.is_empty() {
            return Ok(Reservation::default());
        }
        let log_bytes = match self.bounds_disk {
            true => self.shared.engine().ok().map(|engine| engine.log_bytes()),
            false => None,
        };
        let mut registry = self.shared.registry.lock();
        if let Some(log_bytes) = log_bytes {
            let wanted = wanted.iter().map(|(_, amount)| *amount);
            registry.quota.note_log(log_bytes, wanted);
        }
        registry.reserve(&wanted, leaving)?;
        drop(registry);
        Ok(Reservation::new(
            Arc::downgrade(&self.shared.registry),
            wanted,
        ))
    }

    /// `ring` is called when hints have left, when room was given back, and when the store serves
    /// no more; the first caller is heard. It must not block.
    pub fn when_room(&self, ring: OnRoom) {
        self.shared.registry.on_room(ring);
    }

    /// What refuses hints for want of space on the disk.
    pub fn disk_shortage(&self) -> Option<EnqueueError> {
        let shortage = self.shared.space.shortage()?;
        Some(shortage.refusal())
    }

    /// Counts hints that a limit had no room for.
    pub fn note_refused(&self, node: NodeId, hints: u64) {
        let refused = &self.shared.counters.refused_when_full;
        refused.fetch_add(hints, Relaxed);
        if let Some(queues) = self.shared.registry.lock().nodes.get_mut(&node) {
            queues.limited.refused += hints;
        }
    }

    /// Counts hints that a limit had leave.
    pub fn note_taken(&self, node: NodeId, reason: LossReason, left: Amount) {
        if let Some(queues) = self.shared.registry.lock().nodes.get_mut(&node) {
            let limited = &mut queues.limited;
            let account = match reason {
                LossReason::Expired => &mut limited.expired,
                LossReason::Quota => &mut limited.dropped,
                _ => return,
            };
            *account = account.plus(left);
        }
    }

    /// When the oldest pending hint of a node was enqueued, or a moment before that, in
    /// milliseconds since 1970.
    pub fn oldest(&self, node: NodeId) -> Option<u64> {
        self.shared.registry.lock().oldest(node)
    }

    /// The same of all nodes together.
    pub fn oldest_of_all(&self) -> Option<u64> {
        let registry = self.shared.registry.lock();
        let nodes = registry.nodes.keys();
        nodes.filter_map(|node| registry.oldest(*node)).min()
    }

    /// The first hint of each node that nobody has claimed.
    pub fn heads(&self) -> Vec<Head> {
        let registry = self.shared.registry.lock();
        let heads = registry.nodes.keys().filter_map(|node| {
            let (place, unix_ms) = registry.unclaimed(*node, None)?;
            Some(Head {
                node: *node,
                place,
                unix_ms,
            })
        });
        heads.collect()
    }

    /// The same of one node, from a place on.
    pub fn head(&self, node: NodeId, from: Option<Place>) -> Option<Head> {
        let (place, unix_ms) = self.shared.registry.lock().unclaimed(node, from)?;
        Some(Head {
            node,
            place,
            unix_ms,
        })
    }

    /// The node, of those not named, that has the oldest hint of all that nobody has claimed. One
    /// that is not known yet is from before this life, so it comes first.
    pub fn oldest_node(&self, except: &BTreeSet<NodeId>) -> Option<NodeId> {
        let heads = self.heads().into_iter();
        let heads = heads.filter(|head| !except.contains(&head.node));
        heads.min_by_key(|head| head.unix_ms).map(|head| head.node)
    }

    /// A hint was read, which was enqueued then.
    pub fn note_read(&self, node: NodeId, place: Place, unix_ms: u64) {
        let mut registry = self.shared.registry.lock();
        registry.note_read(node, place, unix_ms);
    }

    /// When a hint was first seen, if it is one that was read while it was the oldest.
    pub fn first_seen(&self, place: Place) -> Option<u64> {
        let registry = self.shared.registry.lock();
        registry.ages.get(&place.queue)?.found_at(place.sequence)
    }

    /// Hints of which one may have a lifetime that is over at `now`: where that is so for longest.
    /// What was there at open and was not looked through comes last, if it is to.
    pub fn next_due(&self, now: u64, with_unknown: bool) -> Option<Due> {
        let mut registry = self.shared.registry.lock();
        let is_due = |due: u64| due <= now && (due > 0 || with_unknown);
        let stretches = registry.stretches();
        let due = stretches.filter(|(.., it)| is_due(it.due_unix_ms));
        let (node, queue, next, stretch) =
            due.min_by_key(|(.., it)| it.due_unix_ms.wrapping_sub(1))?;
        let until = match stretch.until {
            Some(until) => until,
            None => {
                registry.ages.entry(queue).or_default().end_at(next);
                next
            }
        };
        Some(Due {
            node,
            queue,
            from: stretch.from,
            until,
        })
    }

    /// Hints were looked through: this is the earliest end of a lifetime among them, and none was
    /// enqueued before that time.
    pub fn note_searched(&self, it: Due, due_unix_ms: u64, unix_ms: u64) {
        let mut registry = self.shared.registry.lock();
        if let Some(ages) = registry.ages.get_mut(&it.queue) {
            ages.searched(it.from, it.until, due_unix_ms, unix_ms);
        }
    }

    /// When the first lifetime that is known of is over.
    pub fn first_due(&self) -> Option<u64> {
        let registry = self.shared.registry.lock();
        let dues = registry.stretches().map(|(.., it)| it.due_unix_ms);
        dues.filter(|due| (1..u64::MAX).contains(due)).min()
    }
}
