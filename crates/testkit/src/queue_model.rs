//! The model: what a store must hold, may hold and must not hold, by what it was given and what it
//! answered.

mod looks;
mod queue;
mod settled;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use hinted_handoff::{
    Amount, EnqueueError, FailedOutcome, HintId, NodeId, QueueId, Sequence, StoreId,
    internals::{Hint, Peek, PeekLimits, PeekedHint, Reader, Store},
};
use queue::{Handed, ModelQueue};
pub use settled::{HintNumber, Settled};

const EVERYTHING: PeekLimits = PeekLimits {
    hints: usize::MAX,
    payload_bytes: u64::MAX,
};

/// The queues of a store, in memory.
///
/// It is told all that a store is told, and all that the store answers;
/// [`check`](QueueModel::check) then holds what the store shows against it. The rules: what was
/// answered or shown is there until it is acknowledged, unchanged and in order, and nothing else
/// is; a queue that takes no more goes when it is drained; depth is the sum of it; hints come under
/// gap-free sequences, and no id names two of them; a peek keeps its bounds and shows as much as
/// they allow. An unclean stop may undo acknowledgements back to the last
/// [`sync`](QueueModel::synced), and lose the end of what was not answered; then and after a
/// removal a new queue starts.
///
/// What breaks a rule is kept as text in [`violations`](QueueModel::violations); nothing here
/// panics.
///
/// ```
/// use hinted_handoff::{Config, NodeId, ShardId, internals::{Hint, Store}};
/// use hinted_handoff_testkit::QueueModel;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let config = Config { min_free_disk: 0, ..Config::new(dir.path().join("hints")) };
/// let store = Store::open(&config, Box::new(|_| {}))?;
/// let mut model = QueueModel::new(store.id());
/// let hint = Hint {
///     shard: ShardId(7),
///     format: 1,
///     enqueued_unix_ms: 0,
///     payload: "points".into(),
///     origin: None,
///     write: None,
///     lifetime_ms: None,
/// };
///
/// let number = model.hand_in(NodeId(2), hint.clone());
/// let (tell, told) = std::sync::mpsc::channel();
/// store.append(NodeId(2), hint, Box::new(move |answer| tell.send(answer).unwrap()));
/// model.answered(number, &told.recv()?);
/// model.check(&store);
/// assert_eq!(model.violations(), [""; 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct QueueModel {
    store: StoreId,
    nodes: BTreeMap<NodeId, ModelNode>,
    /// Handed in and not answered.
    waiting: BTreeMap<HintNumber, NodeId>,
    /// Of all queues that ever were. In a queue a hint has the sequence that follows from its
    /// place, so that no id can name two hints unless a queue's does.
    queue_ids: HashSet<QueueId>,
    handed_in: u64,
    /// An unclean stop left open what is there; the next check tells.
    stopped: bool,
    settled: Settled,
    violations: Vec<String>,
}

#[derive(Debug, Default)]
struct ModelNode {
    /// In the order in which they are drained. What is handed in goes to the last, unless that is
    /// closed.
    queues: Vec<ModelQueue>,
    /// Something durable was there since it was last removed, so the store knows the node.
    is_known: bool,
    removal_unknown: bool,
    /// Hints that left as dead letters in the step that stored them, durably.
    dead: u64,
}

impl QueueModel {
    /// The model of a store that is empty.
    pub fn new(store: StoreId) -> Self {
        QueueModel {
            store,
            nodes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            queue_ids: HashSet::new(),
            handed_in: 0,
            stopped: false,
            settled: Settled::default(),
            violations: Vec::new(),
        }
    }

    /// A hint is handed to the store, behind all that were handed in for the node before.
    pub fn hand_in(&mut self, node: NodeId, hint: Hint) -> HintNumber {
        self.hand_in_as(node, hint, false)
    }

    /// The same for one that is to leave as a dead letter in the step that stores it.
    pub fn hand_in_undelivered(&mut self, node: NodeId, hint: Hint) -> HintNumber {
        self.hand_in_as(node, hint, true)
    }

    fn hand_in_as(&mut self, node: NodeId, hint: Hint, leaves: bool) -> HintNumber {
        self.handed_in += 1;
        let number = HintNumber(self.handed_in);
        self.waiting.insert(number, node);
        let handed = Handed {
            number,
            hint,
            leaves,
        };
        let queues = &mut self.nodes.entry(node).or_default().queues;
        match queues.last_mut().filter(|queue| !queue.closed) {
            Some(queue) => queue.hints.push_back(handed),
            None => queues.push(ModelQueue::new(handed)),
        }
        number
    }

    /// The store's answer to a hint that was handed in, or what it told about a buffered one later.
    /// Tell answers in the order in which they come, and none that comes after an unclean stop.
    pub fn answered(&mut self, number: HintNumber, answer: &Result<HintId, EnqueueError>) {
        let Some(node) = self.waiting.remove(&number) else {
            return self.violation(format!(
                "{number:?} was answered, and nobody waits for that"
            ));
        };
        match answer {
            Ok(id) => self.stored(node, number, *id),
            Err(error) if error.outcome() == FailedOutcome::Refused => self.refused(node, number),
            // It stays where it is, and the stop that follows tells.
            Err(_) => {}
        }
    }

    /// Everything of the queue up to and including `through`, which a peek showed, is acknowledged.
    /// Returns what must leave.
    pub fn ack(&mut self, node: NodeId, queue: QueueId, through: Sequence) -> Amount {
        let queues = self.nodes.get_mut(&node).map(|node| &mut node.queues);
        let queue = queues.and_then(|it| it.iter_mut().find(|it| it.id == Some(queue)));
        let Some(queue) = queue.filter(|queue| through.0 < queue.durable_end) else {
            return Amount::default();
        };
        let left = queue.amount(queue.cursor, through.0 + 1);
        queue.cursor = queue.cursor.max(through.0 + 1);
        queue.pass_over();
        left
    }

    /// The node was removed, and what was handed in for it before was answered. Returns what must
    /// be discarded.
    pub fn removed(&mut self, node: NodeId) -> Amount {
        let Some(known) = self.nodes.get_mut(&node) else {
            return Amount::default();
        };
        let pending = known.pending();
        known.queues.clear();
        known.is_known = false;
        known.dead = 0;
        pending
    }

    /// The node is to be removed, and the store stops before it answers, or fails in doing so: all
    /// of it is gone after the stop, or nothing.
    pub fn removal_unknown(&mut self, node: NodeId) {
        self.nodes.entry(node).or_default().removal_unknown = true;
    }

    /// A sync was answered, after the answers to all that was handed in before it: acknowledgements
    /// are durable.
    pub fn synced(&mut self) {
        let unanswered: Vec<_> = self.waiting.keys().copied().collect();
        for number in unanswered {
            self.violation(format!(
                "{number:?} was handed in before a sync, and is not answered after it"
            ));
        }
        for node in self.nodes.values_mut() {
            node.queues.iter_mut().for_each(ModelQueue::settle_cursor);
            // Drained, and nothing more will come: it is to be given up by now.
            node.queues.retain(|queue| !queue.is_done());
        }
    }

    /// The store was closed without an error, and will be opened again. As
    /// [`synced`](QueueModel::synced), and queues go on.
    pub fn closed(&mut self) {
        self.synced();
    }

    /// The store stopped in another way, or failed and reopened itself. Whoever still waits is not
    /// answered any more. Call [`check`](QueueModel::check) on the store that was opened again
    /// before anything else.
    pub fn stopped_uncleanly(&mut self) {
        self.waiting.clear();
        self.stopped = true;
        let nodes = self.nodes.values_mut();
        nodes
            .flat_map(|node| &mut node.queues)
            .for_each(|queue| queue.closed = true);
    }

    /// Holds all that the store shows against the model: depth of every queue, and all of the first
    /// queue of each node that has something pending. What is not answered yet may be there or not;
    /// what is shown must stay.
    pub fn check(&mut self, store: &Store) {
        let nodes: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        // Before the depth, which may be ahead of them but never behind.
        let peeks: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let peeked = store.peek(&mut Reader::default(), node, EVERYTHING);
                (node, peeked, store.has_pending(node))
            })
            .collect();
        self.see_queues(&store.nodes());
        for (node, peeked, has_pending) in peeks {
            let waits = self.waits(node);
            let pending = self.pending(node).hints > 0;
            if has_pending != pending && !waits {
                self.violation(format!(
                    "node {node} says that something is pending: {has_pending}"
                ));
            }
            match peeked {
                Ok(peek) => self.see_peek(node, EVERYTHING, &peek),
                Err(error) => self.violation(format!("node {node} could not be read: {error:?}")),
            }
        }
    }

    /// Peeks, and holds what comes against the model and the limits.
    pub fn peek(
        &mut self,
        store: &Store,
        reader: &mut Reader,
        node: NodeId,
        limits: PeekLimits,
    ) -> Vec<PeekedHint> {
        let peeked = store.peek(reader, node, limits);
        self.see_queues(&store.nodes());
        match peeked {
            Ok(peek) => {
                self.see_peek(node, limits, &peek);
                match peek {
                    Peek::Hints(hints) => hints,
                    Peek::Empty | Peek::Damaged(_) => Vec::new(),
                }
            }
            Err(error) => {
                self.violation(format!("node {node} could not be read: {error:?}"));
                Vec::new()
            }
        }
    }

    /// What is durable and not acknowledged.
    pub fn pending(&self, node: NodeId) -> Amount {
        self.nodes
            .get(&node)
            .map(ModelNode::pending)
            .unwrap_or_default()
    }

    /// Whether anything of the node was durable since it was last removed: if so the store knows
    /// the node.
    pub fn knows(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_known)
    }

    /// What unclean stops left open so far.
    pub fn settled(&self) -> Settled {
        self.settled
    }

    /// Every rule that was broken so far, in words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn waits(&self, node: NodeId) -> bool {
        self.waiting.values().any(|waiting| *waiting == node)
    }

    fn stored(&mut self, node: NodeId, number: HintNumber, id: HintId) {
        if id.store != self.store {
            self.violation(format!("{id} is of another store"));
        }
        let known = self.nodes.entry(node).or_default();
        known.is_known = true;
        let Some((queue, sequence)) = known.find(number) else {
            return self.violation(format!("{number:?} was removed and then answered: {id}"));
        };
        let expected = queue.id;
        if sequence != id.sequence.0 || expected.is_some_and(|expected| expected != id.queue) {
            let text = format!("{id} was given out, expected {expected:?}/{sequence}");
            return self.violation(text);
        }
        queue.id = Some(id.queue);
        let dead = queue.durable_below(sequence + 1);
        known.dead += dead;
        if expected.is_none() {
            self.new_queue(id.queue);
        }
    }

    fn refused(&mut self, node: NodeId, number: HintNumber) {
        let known = self.nodes.entry(node).or_default();
        let Some((queue, sequence)) = known.find(number) else {
            return;
        };
        if sequence < queue.durable_end {
            return self.violation(format!("{number:?} was shown, and then refused"));
        }
        queue.hints.retain(|other| other.number != number);
        known
            .queues
            .retain(|queue| queue.id.is_some() || !queue.hints.is_empty());
    }

    fn new_queue(&mut self, id: QueueId) {
        if !self.queue_ids.insert(id) {
            self.violation(format!("queue {id} starts although that id was in use"));
        }
    }
}

impl ModelNode {
    fn pending(&self) -> Amount {
        let queues = self.queues.iter().map(ModelQueue::pending);
        queues.fold(Amount::default(), queue::plus)
    }

    /// The queue that a hint stands in, and its sequence there.
    fn find(&mut self, number: HintNumber) -> Option<(&mut ModelQueue, u64)> {
        self.queues.iter_mut().find_map(|queue| {
            let place = queue.hints.iter().position(|it| it.number == number)?;
            let sequence = queue.first + place as u64;
            Some((queue, sequence))
        })
    }
}
