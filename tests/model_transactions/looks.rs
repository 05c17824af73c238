//! Looks at all that can be seen of a shared database: rows, pending hints, dead letters, losses,
//! figures, and what is sent.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{Amount, DeadReason, Durability, HandoffError, HintId, NodeId, PeekedPoints};
use hinted_handoff_testkit::{Reply, Seen};

use crate::{
    history::Verdict,
    host::{Host, PATIENCE, Went, add},
    operation::{Ending, MANUAL, REPLAYED},
    script::Run,
    waiting::Done,
    world::{Hint, Left},
};

/// As `Config::batch_bytes`, which bounds a peek.
const BATCH_BYTES: usize = 512_000;

fn amount(payload: &Bytes) -> Amount {
    Amount {
        hints: 1,
        bytes: payload.len() as u64,
    }
}

impl Host {
    /// What a peek must show: the next hints of one queue.
    fn next_hints(&mut self, node: u64, max: usize) -> Vec<Hint> {
        let pending = &self.history.now.node(node).pending;
        let (mut next, mut bytes) = (Vec::new(), 0);
        for hint in pending {
            bytes += hint.payload.len();
            let is_full = next.len() >= max || (bytes > BATCH_BYTES && !next.is_empty());
            if is_full || hint.queue != pending[0].queue {
                break;
            }
            next.push(hint.clone());
        }
        next
    }

    fn peek(&mut self, node: u64, max: usize) -> Vec<PeekedPoints<Bytes>> {
        let consumer = self.open().consumers.get_mut(&node).unwrap();
        let peeked = match consumer.peek_blocking(max) {
            Ok(peeked) => peeked,
            Err(error) => {
                self.found
                    .broken
                    .push(format!("peek of node {node}: {error:?}"));
                return Vec::new();
            }
        };
        let expected = self.next_hints(node, max);
        // With buffered answers some may not be durable yet.
        let lags = self.durability == Durability::Buffered && peeked.len() < expected.len();
        self.found
            .expect(lags || peeked.len() == expected.len(), || {
                let (peeked, expected) = (peeked.len(), expected.len());
                format!("node {node} shows {peeked} hints, expected {expected}")
            });
        for (hint, expected) in peeked.iter().zip(&expected) {
            let is_it = hint.points == expected.payload && hint.shard.0 == expected.shard;
            self.found.expect(is_it, || {
                format!("node {node} shows {}, expected {expected:?}", hint.id)
            });
            let learnt = self.history.learn(expected, hint.id);
            self.found.expect_ok("a peek", learnt);
            self.history.shown(expected);
        }
        peeked
    }

    /// Takes some hints by the consumer alone, and then the same ones again, which are not the next
    /// ones any more.
    pub fn consume(&mut self, node: u64, max: usize, acked: usize) {
        let mut peeked = self.peek(node, max);
        peeked.truncate(acked);
        if peeked.is_empty() {
            return;
        }
        let run = Run {
            acks: peeked.iter().map(|hint| (node, hint.id)).collect(),
            ..Run::new(Ending::Commit)
        };
        for _ in 0..2 {
            let consumer = self.open().consumers.get_mut(&node).unwrap();
            let answer = consumer.ack_blocking(&peeked);
            let judged = self.history.propose(&run);
            if judged.verdict == Verdict::Applied {
                let acked = peeked.iter().map(|hint| amount(&hint.points));
                acked.for_each(|acked| self.acknowledged(node, acked));
            }
            let answer = answer.map(|()| Done {
                reads: None,
                hints: Some(Vec::new()),
            });
            self.answered(&[judged], answer);
        }
        self.open().context.acked.insert(node, peeked);
    }

    pub fn acknowledged(&mut self, node: u64, amount: Amount) {
        self.found.count("acknowledged", amount.hints);
        add(&mut self.went.entry(node).or_default().delivered, amount);
    }

    /// The node takes what it is sent as these replies say, and is down again.
    pub fn deliver(&mut self, node: u64, replies: &[Reply]) {
        self.valves.lay_out(node, replies);
        let started = Instant::now();
        loop {
            let used_up = self.valves.are_used_up(node);
            self.take_in_sent();
            if used_up || self.history.now.node(node).pending.is_empty() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "node {node} is sent nothing");
            thread::sleep(Duration::from_micros(200));
        }
        self.valves.lay_out(node, &[]);
        self.take_in_sent();
        while !self.has_gone_by_stats(node) {
            let late = started.elapsed() > PATIENCE;
            assert!(!late, "node {node}: what it took stays in its queue");
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// While commits hang, what leaves undelivered may wait behind what was taken before it.
    fn has_gone_by_stats(&self, node: u64) -> bool {
        let expected = self.went.get(&node).copied().unwrap_or_default();
        let (_, shown) = self.by_stats(node);
        shown.delivered == expected.delivered
            && (self.hanging
                || (shown.lost, shown.dead_lettered) == (expected.lost, expected.dead_lettered))
    }

    /// What is pending, and what went.
    fn by_stats(&self, node: u64) -> (Amount, Went) {
        let stats = self.handoff().stats();
        let shown = stats.nodes.iter().find(|it| it.node == NodeId(node));
        let shown = shown.map(|it| {
            let went = Went {
                enqueued: it.enqueued,
                delivered: it.delivered,
                lost: it.lost,
                dead_lettered: it.dead_lettered,
                letters: it.dead_letters,
            };
            (it.pending, went)
        });
        shown.unwrap_or_default()
    }

    /// Each send must be of the next hints of one shard.
    pub fn take_in_sent(&mut self) {
        for sent in self.valves.sent() {
            self.sent(&sent);
        }
    }

    fn sent(&mut self, sent: &Seen) {
        let (node, count) = (sent.node.0, sent.points.len());
        let pending = &self.history.now.node(node).pending;
        let expected: Vec<Hint> = pending.iter().take(count).cloned().collect();
        let are_ids = sent.hints.len() == count;
        if expected.len() < count || count == 0 || !are_ids || !REPLAYED.contains(&node) {
            return self
                .found
                .broken
                .push(format!("node {node} was sent {sent:?}"));
        }
        for ((hint, id), points) in expected.iter().zip(&sent.hints).zip(&sent.points) {
            let is_it = *points == hint.payload && sent.shard.0 == hint.shard;
            self.found.expect(is_it, || {
                format!("node {node} was sent {id}, expected {hint:?}")
            });
            let learnt = self.history.learn(hint, *id);
            self.found.expect_ok("a send", learnt);
            self.history.shown(hint);
        }
        let went = self.went.entry(node).or_default();
        let (how, what, sum) = match sent.reply {
            Reply::Take => (Left::Delivered, "delivered", &mut went.delivered),
            Reply::Obsolete => (Left::Obsolete, "obsolete", &mut went.lost),
            // Several are sent again in halves, until it is known which of them it was.
            Reply::Reject if count == 1 => (Left::Dead, "dead", &mut went.dead_lettered),
            _ => return self.found.count("to be sent again", count as u64),
        };
        expected.iter().for_each(|it| add(sum, amount(&it.payload)));
        self.history.left(node, count, how);
        self.found.count(what, count as u64);
        if self.hanging && how != Left::Delivered {
            // Nothing more of its shard is sent before that is durable.
            self.valves.lay_out(node, &[]);
        }
    }

    pub fn sync(&mut self) {
        let synced = self.handoff().sync_blocking();
        self.found.expect_ok::<HandoffError>("sync", synced);
        self.history.synced();
        self.found.count("syncs", 1);
        self.check_losses();
    }

    /// All that left undelivered is in the loss journal, and nothing else. Asking makes all
    /// durable.
    pub fn check_losses(&mut self) {
        let losses = self.handoff().losses_blocking(u64::MAX).unwrap();
        let mut expected = self.history.now.lost.clone();
        expected.retain(|_, lost| lost.hints > 0);
        let shown = losses.by_reason;
        self.found.expect(shown == expected, || {
            format!("{shown:?} is in the loss journal, expected {expected:?}")
        });
    }

    /// What is pending for the node is discarded, and its next hint starts a new queue.
    pub fn remove(&mut self, node: u64) {
        // What is not durable yet is not counted.
        self.sync();
        let mut pending = Amount::default();
        let hints = &self.history.now.node(node).pending;
        hints
            .iter()
            .for_each(|it| add(&mut pending, amount(&it.payload)));
        let removed = self.handoff().remove_node_blocking(NodeId(node));
        let is_it = match &removed {
            Ok(discarded) => *discarded == pending,
            Err(HandoffError::UnknownNode { .. }) => !self.history.was_hinted(node),
            Err(_) => false,
        };
        self.found.expect(is_it, || {
            format!("removing node {node}: {removed:?}, expected {pending:?}")
        });
        self.found.count("discarded", pending.hints);
        // What was sent before that.
        self.take_in_sent();
        self.history.removed(node);
        self.went.remove(&node);
    }

    /// Holds all that can be seen against the model.
    pub fn check(&mut self) {
        if self.durability == Durability::Sync {
            // All of it was answered.
            self.history.settle();
        }
        self.check_rows();
        for node in MANUAL {
            let peeked = self.peek(node, usize::MAX);
            self.open().context.peeked.insert(node, peeked);
        }
        self.take_in_sent();
        self.check_letters();
        self.check_stats();
        assert!(self.found.broken.is_empty(), "{:#?}", self.found.broken);
    }

    fn check_rows(&mut self) {
        let rows = match self.open().rows() {
            Ok(rows) => rows,
            Err(broken) => return self.found.broken.push(broken),
        };
        let expected = &self.history.now.rows;
        let all = rows.keys().chain(expected.keys());
        let differing = all.filter(|row| rows.get(*row) != expected.get(*row));
        let differing: Vec<_> = differing.copied().collect();
        self.found.expect(differing.is_empty(), || {
            format!("rows are not as expected: {differing:?}")
        });
    }

    /// Each dead letter is there with what was handed in.
    fn check_letters(&mut self) {
        for node in REPLAYED {
            let handoff = self.handoff().clone();
            let ids = self.letters(node);
            let expected = self.history.now.node(node).letters.clone();
            let known = expected.iter().map(|hint| self.history.id(hint));
            let are_known = known.eq(ids.iter().copied().map(Some));
            self.found.expect(are_known, || {
                format!("node {node} has the dead letters {ids:?}, expected {expected:?}")
            });
            for (id, expected) in ids.into_iter().zip(expected) {
                let content = handoff.dead_letter_blocking(NodeId(node), id).unwrap();
                let letter = &content.letter;
                let is_it = content
                    .points
                    .as_ref()
                    .is_ok_and(|it| *it == expected.payload)
                    && (letter.shard.0, letter.reason) == (expected.shard, DeadReason::Rejected);
                self.found.expect(is_it, || {
                    format!("node {node} has {content:?}, expected {expected:?}")
                });
            }
        }
    }

    /// The dead letters of a node that has any.
    pub fn letters(&self, node: u64) -> Vec<HintId> {
        let letters = self
            .handoff()
            .dead_letters_blocking(NodeId(node), None, usize::MAX);
        match letters {
            Ok(letters) => letters.into_iter().map(|letter| letter.id).collect(),
            Err(HandoffError::UnknownNode { .. }) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn check_stats(&mut self) {
        let store = &self.handoff().stats().store;
        let is_well = store.damage.is_empty() && store.reopened == 0;
        let is_it = store.store == self.history.store() && store.moved_aside.is_none();
        self.found.expect(is_well && is_it, || format!("{store:?}"));
        for node in *MANUAL.start()..=*REPLAYED.end() {
            let (pending, went) = self.by_stats(node);
            let mut expected = Amount::default();
            let mut expected_went = self.went.get(&node).copied().unwrap_or_default();
            let known = self.history.now.node(node);
            let letters = &known.letters;
            letters
                .iter()
                .for_each(|it| add(&mut expected_went.letters, amount(&it.payload)));
            let hints = &known.pending;
            hints
                .iter()
                .for_each(|it| add(&mut expected, amount(&it.payload)));
            // With buffered answers some may not be durable yet.
            if self.durability == Durability::Buffered && pending.hints < expected.hints {
                (expected, expected_went.enqueued) = (pending, went.enqueued);
            }
            self.found.expect((pending, went) == (expected, expected_went), || {
                format!(
                    "node {node} has {pending:?}, {went:?}, expected {expected:?}, {expected_went:?}"
                )
            });
        }
    }
}
