//! What waited at each of the last answers.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

use hinted_handoff::NodeId;

use super::answer::Answer;

/// Answers that are remembered. With a thousand nodes these are 2 MB.
pub const ANSWERS_MAX: usize = 240;

/// Pending hints at each answer, of every node that the last one has, and of all.
#[derive(Debug, Default)]
pub struct History {
    times: VecDeque<Instant>,
    all: VecDeque<u64>,
    nodes: HashMap<NodeId, VecDeque<u64>>,
}

impl History {
    pub fn push(&mut self, answer: &Answer, at: Instant) {
        push(&mut self.times, at);
        push(&mut self.all, answer.status.pending.hints);
        let mut gone: HashSet<NodeId> = self.nodes.keys().copied().collect();
        for node in &answer.nodes {
            let stats = &node.stats;
            gone.remove(&stats.node);
            push(
                self.nodes.entry(stats.node).or_default(),
                stats.pending.hints,
            );
        }
        for node in gone {
            self.nodes.remove(&node);
        }
    }

    /// Of all nodes, or of one, the newest first.
    pub fn newest_first(&self, node: Option<NodeId>) -> impl Iterator<Item = u64> {
        let of = match node {
            None => Some(&self.all),
            Some(node) => self.nodes.get(&node),
        };
        of.into_iter().flat_map(|it| it.iter().rev().copied())
    }

    /// When the answer came that is so many before the newest one, or the first of all.
    pub fn time_of(&self, before_newest: usize) -> Option<Instant> {
        let at = self.times.len().saturating_sub(before_newest + 1);
        self.times.get(at).copied()
    }
}

fn push<T>(to: &mut VecDeque<T>, value: T) {
    if to.len() == ANSWERS_MAX {
        to.pop_front();
    }
    to.push_back(value);
}
