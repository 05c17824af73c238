//! The nodes that are replayed: each is down, but for the sends whose replies were laid out for it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use hinted_handoff::NodeId;
use hinted_handoff_testkit::{Reply, ScriptedWriter, Seen};

#[derive(Default)]
struct Laid {
    replies: BTreeMap<NodeId, VecDeque<Reply>>,
    /// Sends that were answered, by this writer.
    answered: usize,
}

pub struct Valves {
    laid: Arc<Mutex<Laid>>,
    pub writer: Arc<ScriptedWriter>,
    looked_at: usize,
}

impl Valves {
    pub fn new() -> Self {
        let laid = Arc::<Mutex<Laid>>::default();
        let (for_sends, for_pings) = (Arc::clone(&laid), Arc::clone(&laid));
        let writer = ScriptedWriter::new(move |write| {
            let mut laid = for_sends.lock().unwrap();
            laid.answered += 1;
            let replies = laid.replies.get_mut(&write.node);
            let reply = replies.and_then(VecDeque::pop_front);
            reply.unwrap_or(Reply::Retry)
        });
        let writer = writer.with_pings(move |node| {
            let laid = for_pings.lock().unwrap();
            match laid.replies.get(&node).is_some_and(|it| !it.is_empty()) {
                true => Reply::Take,
                false => Reply::Retry,
            }
        });
        Valves {
            laid,
            writer: Arc::new(writer),
            looked_at: 0,
        }
    }

    pub fn lay_out(&self, node: u64, replies: &[Reply]) {
        let mut laid = self.laid.lock().unwrap();
        laid.replies
            .insert(NodeId(node), replies.iter().copied().collect());
    }

    pub fn are_used_up(&self, node: u64) -> bool {
        let laid = self.laid.lock().unwrap();
        laid.replies
            .get(&NodeId(node))
            .is_none_or(VecDeque::is_empty)
    }

    /// What was sent since the last call. A send that was answered and is not there yet is waited
    /// for.
    pub fn sent(&mut self) -> Vec<Seen> {
        loop {
            let answered = self.laid.lock().unwrap().answered;
            if answered == self.looked_at {
                return Vec::new();
            }
            let seen = self.writer.seen();
            if seen.len() >= answered {
                let sent = seen[self.looked_at..].to_vec();
                self.looked_at = seen.len();
                return sent;
            }
            std::thread::yield_now();
        }
    }
}
