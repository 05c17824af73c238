//! Hints that a node took leave their queue: in memory at once, on disk with the next group.

#[cfg(feature = "internals")]
use crate::store::format::peeked::Mark;
use crate::{
    error::HandoffError,
    store::{
        Store,
        format::{cursor::Leave, keys::QueueRef, peeked::PeekedHint},
        state::registry::Registry,
    },
    types::{Amount, NodeId},
};

impl Store {
    /// Lets hints leave that the node took, in whatever order. Seen at once by peeks and stats,
    /// durable with the next group; a crash before that brings them back. Returns what left:
    /// nothing of what had left before.
    pub fn deliver(&self, node: NodeId, hints: &[PeekedHint]) -> Result<Amount, HandoffError> {
        let runs = hints.chunk_by(|a, b| a.mark.queue == b.mark.queue);
        let queues = runs.filter_map(|run| Some(run.first()?.mark.queue));
        self.let_leave(node, queues, |registry| {
            registry.leave(node, hints, Leave::Delivered)
        })
    }

    /// Lets everything up to and including `mark` leave its queue, as [`deliver`](Store::deliver)
    /// does.
    #[cfg(feature = "internals")]
    pub fn ack(&self, node: NodeId, mark: Mark, leave: Leave) -> Result<Amount, HandoffError> {
        self.let_leave(node, [mark.queue], |registry| {
            registry.advance(node, mark.queue, mark.sequence, mark.bytes_through, leave)
        })
    }

    fn let_leave(
        &self,
        node: NodeId,
        queues: impl IntoIterator<Item = QueueRef>,
        leave: impl FnOnce(&mut Registry) -> Amount,
    ) -> Result<Amount, HandoffError> {
        self.shared.check_serving()?;
        let left = {
            let mut registry = self.shared.registry.lock();
            let left = leave(&mut registry);
            if left.hints > 0 {
                // Under the same lock: a sync that comes after anybody saw that they left makes
                // that durable.
                for queue in queues {
                    self.shared.inbox.mark_dirty((node, queue));
                }
            }
            left
        };
        if left.hints > 0 {
            self.shared.tell_leave();
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::{
        config::Config,
        store::{Hint, Peek, PeekLimits, Reader},
        types::ShardId,
    };

    const NODE: NodeId = NodeId(1);

    /// Found by the crash loop: a sync right after the statistics said that a hint had been
    /// delivered did not know of it yet.
    #[test]
    fn nobody_sees_that_a_hint_left_before_a_sync_would_make_that_durable() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Config::new(dir.path()), Box::new(|_| {})).unwrap();
        let hint = Hint {
            shard: ShardId(1),
            format: 0,
            enqueued_unix_ms: 0,
            payload: "cpu v=1".into(),
            origin: None,
            write: None,
            lifetime_ms: None,
        };
        let (tell, told) = mpsc::channel();
        store.append(NODE, hint, Box::new(move |it| tell.send(it).unwrap()));
        told.recv().unwrap().unwrap();
        let limits = PeekLimits {
            hints: 1,
            payload_bytes: 1,
        };
        let peeked = store.peek(&mut Reader::default(), NODE, limits);
        let Peek::Hints(peeked) = peeked.unwrap() else {
            panic!("it is not there");
        };
        thread::scope(|scope| {
            // What is seen while the mark cannot be made.
            let held = store.shared.inbox.held();
            let delivering = scope.spawn(|| store.deliver(NODE, &peeked).unwrap());
            let looking = scope.spawn(|| {
                while store.pending(NODE).hints > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            // A slow machine may have nothing happen by then, which passes.
            thread::sleep(Duration::from_millis(100));
            assert!(!looking.is_finished(), "it is seen to have left");
            drop(held);
            assert_eq!(delivering.join().unwrap().hints, 1);
            looking.join().unwrap();
        });
        store.close().unwrap();
    }
}
