//! What the store shows, held against the model.

use std::collections::{BTreeMap, BTreeSet};

use hinted_handoff::{
    NodeId,
    internals::{NodeQueues, Peek, PeekLimits},
};

use super::{
    QueueModel,
    queue::{ModelQueue, Shown},
};

impl QueueModel {
    /// Depth and cursors of every queue of every node; settles what an unclean stop left open.
    pub(super) fn see_queues(&mut self, shown: &[(NodeId, NodeQueues)]) {
        let shown: BTreeMap<_, _> = shown.iter().map(|(node, queues)| (*node, queues)).collect();
        let nodes: BTreeSet<_> = self.nodes.keys().chain(shown.keys()).copied().collect();
        self.settled.stops += u64::from(self.stopped);
        for node in nodes {
            let queues = shown.get(&node);
            let known = self.nodes.entry(node).or_default();
            if self.stopped && std::mem::take(&mut known.removal_unknown) && queues.is_none() {
                known.queues.clear();
                known.is_known = false;
                known.dead = 0;
            }
            let letters = queues.map_or(0, |queues| queues.letters().hints);
            let queues = queues.into_iter().flat_map(|queues| &queues.queues);
            let queues = queues.map(|queue| Shown {
                id: queue.at.queue,
                cursor: queue.cursor.next.0,
                end: queue.watermark.0 + 1,
                pending: queue.pending(),
            });
            self.see_node(node, &queues.collect::<Vec<_>>(), letters);
        }
        self.stopped = false;
    }

    fn see_node(&mut self, node: NodeId, shown: &[Shown], letters: u64) {
        let Some(mut known) = self.nodes.remove(&node) else {
            return;
        };
        let mut places = Vec::new();
        for queue in shown {
            let place = known.queues.iter().position(|it| it.id == Some(queue.id));
            // One that nobody was told of: the next whose hints all have no answer.
            let place = place.or_else(|| {
                let place = known.queues.iter().position(|it| it.id.is_none())?;
                self.new_queue(queue.id);
                known.queues.get_mut(place)?.id = Some(queue.id);
                Some(place)
            });
            match place {
                Some(place) => places.push(place),
                None => self.violation(format!(
                    "node {node} shows queue {}, which is done with or never was",
                    queue.id
                )),
            }
        }
        if !places.is_sorted() {
            self.violation(format!("node {node} shows its queues in another order"));
        }
        // A queue that is drained and closed may be given up before anybody sees it.
        let dead_at_most = known.dead
            + known
                .queues
                .iter()
                .map(ModelQueue::dead_unknown)
                .sum::<u64>();
        for queue in &mut known.queues {
            let shown = shown.iter().find(|it| queue.id == Some(it.id));
            let seen = queue.see(shown, self.stopped, &mut self.settled, &mut known.dead);
            for text in seen {
                self.violation(format!("node {node}, queue {:?}: {text}", queue.id));
            }
        }
        let at_most = match self.stopped {
            true => dead_at_most,
            false => known.dead,
        };
        // What a removal takes along is shown before it is answered.
        let is_open = self.waits(node) || known.removal_unknown;
        if !is_open && !(known.dead..=at_most).contains(&letters) {
            self.violation(format!(
                "node {node} has {letters} dead letters, expected {} to {at_most}",
                known.dead
            ));
        }
        known.is_known |= !places.is_empty() || letters > 0;
        if self.stopped {
            known.dead = letters;
            known.queues.retain(|queue| queue.id.is_some());
        }
        self.nodes.insert(node, known);
    }

    pub(super) fn see_peek(&mut self, node: NodeId, limits: PeekLimits, peek: &Peek) {
        let waits = self.waits(node);
        let queues = self.nodes.get_mut(&node).map(|node| &mut node.queues);
        let front = queues.and_then(|it| it.iter_mut().find(|it| it.cursor < it.durable_end));
        let broken = match (peek, front) {
            (Peek::Damaged(queue), _) => Some(format!("{queue:?} does not read")),
            (Peek::Empty, Some(queue)) if !waits => Some(format!(
                "nothing was shown, {:?} are pending",
                queue.pending()
            )),
            (Peek::Empty, _) => None,
            (Peek::Hints(hints), Some(queue)) => queue.see_peek(limits, hints, waits),
            (Peek::Hints(hints), None) => Some(format!(
                "{} hints were shown, nothing is pending",
                hints.len()
            )),
        };
        if let Some(text) = broken {
            self.violation(format!("node {node}: {text}"));
        }
    }
}
