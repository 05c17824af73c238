//! What is pending: looking at it, and claiming it before it leaves.

use crate::{
    error::HandoffError,
    store::{
        Store,
        format::{
            cursor::RANGES_MAX,
            keys::{Place, QueueRef},
            peeked::PeekedHint,
        },
        pipeline::control::Control,
        read::reader::{Peek, PeekLimits, Reader},
        state::queue::NodeQueues,
    },
    types::{Amount, NodeId, QueueId, Sequence},
};

impl Store {
    /// Whether anything durable waits for the node; reads nothing.
    pub fn has_pending(&self, node: NodeId) -> bool {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node);
        queues.is_some_and(NodeQueues::has_pending)
    }

    /// Whether a hint that became durable has left its queue, in whatever way, and every older one
    /// of its shard there; one of a node that was removed has. Where a limit took it, this may be
    /// said late, but not too early.
    pub fn is_gone_in_order(&self, node: NodeId, queue: QueueId, sequence: Sequence) -> bool {
        let registry = self.shared.registry.lock();
        registry.is_gone_in_order(node, queue, sequence)
    }

    /// Whether every hint of a queue up to this one has.
    pub fn is_gone_through(&self, node: NodeId, queue: QueueId, sequence: Sequence) -> bool {
        let registry = self.shared.registry.lock();
        registry.is_gone_through(node, queue, sequence)
    }

    /// What is durable and waits for the node; reads nothing.
    pub fn pending(&self, node: NodeId) -> Amount {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node);
        queues.map(NodeQueues::pending).unwrap_or_default()
    }

    /// The queues of a node, each with the last sequence that is durable; `None` if it has none and
    /// had none, or was removed.
    pub fn durable_ends(&self, node: NodeId) -> Option<Vec<(QueueRef, Sequence)>> {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node)?.queues.iter();
        Some(queues.map(|queue| (queue.at, queue.watermark)).collect())
    }

    /// Whether a queue of the node has so many holes that no more may be picked out of it.
    pub fn is_scattered(&self, node: NodeId) -> bool {
        let registry = self.shared.registry.lock();
        let queues = registry.nodes.get(&node).into_iter();
        let mut queues = queues.flat_map(|it| &it.queues);
        queues.any(|queue| queue.cursor.above.len() >= RANGES_MAX)
    }

    /// Whether the node has queues, or had some and was not removed.
    pub fn knows(&self, node: NodeId) -> bool {
        self.shared.registry.lock().nodes.contains_key(&node)
    }

    /// All queues below this one are retired, durably and for good; `None` if there is no queue.
    pub fn retired_below(&self) -> Option<QueueId> {
        self.shared.registry.lock().lowest_queue()
    }

    /// What is at the head of the node's queue, as far as it is durable, and up to the first hint
    /// that is held: for those who take hints in order.
    pub fn peek(
        &self,
        reader: &mut Reader,
        node: NodeId,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let stretch = self.shared.registry.lock().stretch_in_order(node);
        reader.peek(&self.shared, node, stretch, limits)
    }

    /// What is pending from a place on: in the queue that this names, or, with nothing left to read
    /// there, in the ones behind it. What is held is pending, too.
    pub fn peek_from(
        &self,
        reader: &mut Reader,
        node: NodeId,
        from: Option<Place>,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let stretch = {
            let registry = self.shared.registry.lock();
            let queues = registry.nodes.get(&node);
            queues.and_then(|it| it.stretch(from))
        };
        reader.peek(&self.shared, node, stretch, limits)
    }

    /// What is pending behind a place, or from the oldest hint on: for those who only look. The
    /// hint at the place may be gone; if its queue is, this begins where the node's queues begin.
    pub fn peek_behind(
        &self,
        reader: &mut Reader,
        node: NodeId,
        behind: Option<(QueueId, Sequence)>,
        limits: PeekLimits,
    ) -> Result<Peek, HandoffError> {
        let stretch = {
            let registry = self.shared.registry.lock();
            let queues = registry.nodes.get(&node);
            let queues = queues.ok_or(HandoffError::UnknownNode { node })?;
            let from = behind.and_then(|(queue, sequence)| {
                let mut all = queues.queues.iter().map(|it| it.at);
                let queue = all.find(|at| at.queue == queue)?;
                let sequence = Sequence(sequence.0.saturating_add(1));
                Some(Place { queue, sequence })
            });
            queues.stretch(from)
        };
        reader.peek(&self.shared, node, stretch, limits)
    }

    /// Claims those hints that are pending and nobody else's, and keeps only them in the list:
    /// until they are released, delivered, dead-lettered or lost, no limit takes them. Returns
    /// how often the store was opened again before this claim; the next time forgets it.
    pub fn claim(&self, node: NodeId, hints: &mut Vec<PeekedHint>) -> u64 {
        let mut registry = self.shared.registry.lock();
        registry.claim(node, hints);
        registry.reopens
    }

    /// Gives hints back that were claimed when the store had been opened again so often, unless it
    /// was since: then what is claimed is somebody else's.
    pub fn release_claimed(&self, node: NodeId, hints: &[PeekedHint], reopens: u64) {
        let mut registry = self.shared.registry.lock();
        if registry.reopens == reopens {
            registry.release(node, hints);
        }
    }

    /// Gives hints back that were claimed; they stay where they are.
    pub fn release(&self, node: NodeId, hints: &[PeekedHint]) {
        self.shared.registry.lock().release(node, hints);
    }

    /// Asks the commit thread to read again what a peek found damaged, and to skip it if it does
    /// not read.
    pub fn scrub(
        &self,
        node: NodeId,
        queue: QueueRef,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        self.control(done, |done| Control::Scrub(node, queue, done));
    }
}
