//! What the host says of its nodes, of dead letters and of barriers, and what must come of it.

use std::time::Duration;

use hinted_handoff::{Amount, BarrierState, HandoffError, HintId, NodeId, Pause, internals::Hold};
use tokio::time::Instant;

use crate::{
    audit::{NODES, Step},
    barriers::Marked,
    ledger::Whereabouts,
    life::PURGE_AFTER,
    receiver::Mood,
    service::{ServiceStory, some_of},
};

/// A purge is no earlier than so long after an open.
const PURGES_FROM: Duration = Duration::from_secs(60);

/// A send that hangs, and the longest wait after it.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// What a node that is not held has been doing while something waited for it.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    calls: u64,
    /// When it was last seen to have been called.
    called: Instant,
    /// Since when it is well.
    well: Instant,
}

impl ServiceStory {
    /// Whether it was ever hinted; the statistics show those that were only written to directly,
    /// too.
    pub fn knows(&self, node: u64) -> bool {
        self.life.store().knows(NodeId(node))
    }

    /// What was asked of a node is done, but for a node that was never hinted.
    fn done<T>(&self, node: u64, was_known: bool, result: Result<T, HandoffError>) -> Option<T> {
        match result {
            Ok(done) => {
                assert!(was_known, "{node} is not known");
                Some(done)
            }
            Err(HandoffError::UnknownNode { node: unknown, .. }) => {
                assert_eq!((unknown.0, was_known), (node, false));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn sent_on(&mut self, number: u64, now: HintId) {
        let mut entry = self.ledger.hints.remove(&number).unwrap();
        let before = self.courses[&number];
        entry.origin = entry.origin.or(Some(entry.id));
        (entry.id, entry.at) = (now, Whereabouts::Pending);
        self.enter(number, entry);
        let course = self.courses.get_mut(&number).unwrap();
        (course.taken, course.again) = (before.taken, before.taken);
    }

    pub async fn redrive(&mut self, node: u64) -> Step {
        let dead = self.ledger.all(node, Whereabouts::Dead);
        let (handoff, was_known) = (self.handoff(), self.knows(node));
        for number in some_of(&mut self.random, &dead) {
            self.nodes.cure(number);
        }
        if self.random.u32(..3) == 0 {
            let sent_on = handoff.redrive_all(NodeId(node)).await;
            let Some(sent_on) = self.done(node, was_known, sent_on) else {
                return Step::default();
            };
            assert_eq!(
                (sent_on.hints.len(), sent_on.damaged.len()),
                (dead.len(), 0)
            );
            for (was, now) in sent_on.hints {
                let is_it = |number: &&u64| self.ledger.hints[number].id == was;
                let number = *dead.iter().find(is_it).unwrap();
                self.sent_on(number, now);
            }
            self.count("redriven", dead.len());
            return Step::default();
        }
        let Some(number) = self.random.choice(&dead).copied() else {
            return Step::default();
        };
        let id = self.ledger.hints[&number].id;
        let now = handoff.redrive(NodeId(node), id).await.unwrap();
        self.sent_on(number, now);
        let twice = handoff.redrive(NodeId(node), id).await;
        assert!(matches!(twice, Err(HandoffError::NoDeadLetter { hint, .. }) if hint == id));
        self.count("redriven", 1);
        Step::default()
    }

    pub async fn discard(&mut self, node: u64) -> Step {
        let dead = self.ledger.all(node, Whereabouts::Dead);
        let (handoff, was_known) = (self.handoff(), self.knows(node));
        let mut chosen = some_of(&mut self.random, &dead);
        let discarded = if self.random.u32(..3) == 0 {
            chosen = dead.into_iter().collect();
            handoff.discard_all(NodeId(node)).await
        } else {
            let ids = chosen.iter().map(|it| self.ledger.hints[it].id);
            let ids: Vec<_> = ids.collect();
            // Named twice, each is discarded once.
            handoff
                .discard(NodeId(node), &[ids.clone(), ids].concat())
                .await
        };
        if !chosen.is_empty() || was_known {
            let discarded = discarded.unwrap();
            assert_eq!(discarded.hints, chosen.len() as u64);
        }
        Step {
            discards: true,
            ..Step::default()
        }
    }

    /// Nodes that were never hinted may be among them.
    async fn barrier(&mut self, nodes: &[u64]) -> Marked {
        let ids: Vec<_> = nodes.iter().copied().map(NodeId).collect();
        let barrier = self.life.handoff.barrier(&ids).await.unwrap();
        Marked::new(barrier, &self.ledger)
    }

    fn keep(&mut self, marked: Marked) {
        self.barriers.push(marked);
        self.count("barriers", 1);
        // The newest few are enough to look at after every step.
        if self.barriers.len() > 8 {
            self.barriers.remove(self.random.usize(..8));
        }
    }

    pub async fn mark_barrier(&mut self, node: u64) -> Step {
        let mut nodes = some_of(&mut self.random, &NODES);
        nodes.insert(node);
        let nodes: Vec<u64> = nodes.into_iter().collect();
        let marked = self.barrier(&nodes).await;
        self.keep(marked);
        Step::default()
    }

    /// Waits for what is there; what is told then is so.
    pub async fn drain(&mut self, node: u64) -> Step {
        let marked = self.barrier(&[node]).await;
        let (handoff, barrier) = (self.handoff(), marked.barrier.clone());
        let timeout = Duration::from_secs(self.random.u64(0..40));
        let waited = async move { handoff.wait(&barrier, timeout).await };
        let told = self.life.through(&self.nodes, waited).await.unwrap();
        self.audit(Step::default()).await;
        match told {
            BarrierState::Delivered => {
                marked.check_state(&told, &self.ledger);
                self.count("drained", 1);
            }
            BarrierState::Lost { .. } => assert!(marked.may_be_lost(&self.ledger)),
            BarrierState::Waiting { .. } => {}
            other => panic!("{other:?}"),
        }
        self.keep(marked);
        Step::default()
    }

    pub async fn pause_or_resume(&mut self, node: u64) -> Step {
        let (handoff, was_known) = (self.handoff(), self.knows(node));
        let how = match self.random.bool() {
            true => Pause::Lasting,
            false => Pause::UntilRestart,
        };
        match self.random.u32(..10) {
            0..4 => {
                let paused = handoff.pause(NodeId(node), how).await;
                if self.done(node, was_known, paused).is_some() {
                    self.paused.insert(node, how);
                }
            }
            4..7 => {
                let resumed = handoff.resume(NodeId(node)).await;
                if self.done(node, was_known, resumed).is_some() {
                    self.paused.remove(&node);
                }
            }
            7 => {
                handoff.pause_all(how).await.unwrap();
                self.paused_all = Some(how);
            }
            _ => {
                handoff.resume_all().await.unwrap();
                self.paused_all = None;
            }
        }
        Step::default()
    }

    /// Often one that is paused, and to a name that is new.
    pub async fn rename(&mut self, mut from: u64) -> Step {
        let mut to = NODES[self.random.usize(..NODES.len())];
        if self.random.bool() {
            let paused = self.paused.keys().next();
            let new = NODES.into_iter().find(|it| !self.knows(*it));
            (from, to) = (paused.copied().unwrap_or(from), new.unwrap_or(to));
        }
        let (handoff, was_known, is_merged) = (self.handoff(), self.knows(from), self.knows(to));
        let pending = self.ledger.all(from, Whereabouts::Pending).len() as u64;
        let renamed = async move { handoff.rename_node(NodeId(from), NodeId(to)).await };
        let renamed = self.life.through(&self.nodes, renamed).await;
        if from == to {
            assert!(matches!(renamed, Err(HandoffError::SameNode { .. })));
            return Step::default();
        }
        let Some(moved) = self.done(from, was_known, renamed) else {
            return Step::default();
        };
        assert!(moved.hints <= pending, "{moved:?} of {pending}");
        self.ledger.renamed(from, to);
        let (paused, _) = (self.paused.remove(&from), self.parked.remove(&from));
        if let Some(paused) = paused.filter(|_| !is_merged) {
            self.paused.insert(to, paused);
        }
        self.count("renamed nodes", 1);
        Step {
            renamed: Some(from),
            ..Step::default()
        }
    }

    pub async fn retain(&mut self) -> Step {
        let mut members = some_of(&mut self.random, &NODES);
        if self.random.u32(..3) == 0 {
            members = NODES.into();
        }
        let ids: Vec<_> = members.iter().copied().map(NodeId).collect();
        let retained = self.life.handoff.retain_nodes(&ids).await.unwrap();
        let since = Some(Instant::now());
        let (mut parked, mut unparked) = (Vec::new(), Vec::new());
        for node in NODES {
            if members.contains(&node) {
                unparked.extend(self.parked.remove(&node).map(|_| NodeId(node)));
            } else if self.knows(node) && !self.parked.contains_key(&node) {
                self.parked.insert(node, since);
                parked.push(NodeId(node));
            }
        }
        assert_eq!((retained.parked, retained.unparked), (parked, unparked));
        Step::default()
    }

    pub async fn remove(&mut self, node: u64) -> Step {
        let (handoff, was_known) = (self.handoff(), self.knows(node));
        let (id, in_peace) = (NodeId(node), self.random.bool());
        let removed = async move {
            match in_peace {
                true => {
                    let drained = handoff.drain_and_remove(id, Duration::from_secs(2)).await;
                    if matches!(drained, Err(HandoffError::NotDrained { .. })) {
                        // Else it would be gone in the middle of another step.
                        match handoff.cancel_removal(id).await {
                            Ok(()) => {}
                            // It was, in the moment before.
                            Err(HandoffError::UnknownNode { .. }) => return Ok(Amount::default()),
                            Err(error) => return Err(error),
                        }
                    }
                    drained.map(|()| Amount::default())
                }
                false => handoff.remove_node(id).await,
            }
        };
        let removed = self.life.through(&self.nodes, removed).await;
        match removed {
            Err(HandoffError::NotDrained { pending, .. }) => {
                assert!(in_peace && pending.hints > 0);
                return Step::default();
            }
            removed => {
                if self.done(node, was_known, removed).is_some() {
                    self.gone(node);
                    self.count("removed nodes", 1);
                }
            }
        }
        Step {
            discards: true,
            ..Step::default()
        }
    }

    /// Whatever comes under its name begins anew.
    fn gone(&mut self, node: u64) {
        self.paused.remove(&node);
        self.parked.remove(&node);
    }

    /// Nodes that were out of the cluster for too long are not there any more.
    pub fn note_purged(&mut self) {
        for (node, since) in self.parked.clone() {
            if !self.knows(node) {
                let now = Instant::now();
                assert!(now - self.life.opened >= PURGES_FROM);
                assert!(since.is_none_or(|since| now - since >= PURGE_AFTER));
                self.gone(node);
                self.count("purged nodes", 1);
            }
        }
    }

    /// Nodes are held that are to be, no others, and nothing is sent to them.
    pub fn check_holds(&mut self) {
        let stats = self.life.handoff.stats();
        assert_eq!(stats.paused_all, self.paused_all);
        let before = std::mem::take(&mut self.calls_held);
        for node in &stats.nodes {
            let id = node.node.0;
            let paused = self.paused.get(&id).copied().or(self.paused_all);
            assert_eq!(node.paused, paused, "{id}");
            let is_parked = self.parked.contains_key(&id);
            assert_eq!(node.parked_since_unix_ms.is_some(), is_parked, "{id}");
            let hold: Hold = self.life.store().hold(node.node);
            assert_eq!(hold.parked.is_some(), is_parked);
            if paused.is_none() && !is_parked {
                continue;
            }
            let calls = self.nodes.calls(id);
            let held_at = before.get(&id).copied().unwrap_or(calls);
            assert_eq!(calls, held_at, "{id} is held, and was called");
            self.calls_held.insert(id, calls);
        }
    }

    /// A node that something waits for is called again and again, and if it is well it takes, or
    /// rejects, all of it.
    pub fn check_forgotten(&mut self) {
        for node in NODES {
            let is_held = self.paused.contains_key(&node) || self.parked.contains_key(&node);
            let pending = self.ledger.all(node, Whereabouts::Pending);
            if is_held || self.paused_all.is_some() || pending.is_empty() {
                self.waiting.remove(&node);
                continue;
            }
            let (calls, now) = (self.nodes.calls(node), Instant::now());
            let new = Waiting {
                calls,
                called: now,
                well: now,
            };
            let waiting = self.waiting.entry(node).or_insert(new);
            if waiting.calls != calls {
                (waiting.calls, waiting.called) = (calls, now);
            }
            if self.nodes.mood(node) != Mood::Well {
                waiting.well = now;
            }
            let is_over = now - waiting.called.min(waiting.well) >= LONGEST_WAIT;
            assert!(!is_over, "{pending:?} wait for {node}: {waiting:?}");
        }
    }
}
