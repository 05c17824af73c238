//! Rates from the counters of two answers.

use std::{collections::HashMap, time::Duration};

use hinted_handoff::{NodeId, NodeStats};

use super::answer::{Answer, Store};

/// Answers that came closer together say nothing of a rate.
const APART_MIN: Duration = Duration::from_millis(1);

/// Hints a second, where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Stored.
    pub into: Option<f64>,
    /// Delivered.
    pub out: Option<f64>,
}

/// The rates between two answers: of all nodes, and of each that is in both.
#[derive(Debug, Default)]
pub struct AllRates {
    pub total: Rates,
    nodes: HashMap<NodeId, Rates>,
}

impl AllRates {
    pub fn of(&self, node: NodeId) -> Rates {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// What came and went from one answer to the next, which came so much later. A node's counter
    /// that went back gives that node no rate; one of the store means a restart, so no node has
    /// one.
    pub fn between(before: &Answer, after: &Answer, apart: Duration) -> AllRates {
        let mut rates = AllRates::default();
        if apart < APART_MIN || is_restarted(&before.status.store, &after.status.store) {
            return rates;
        }
        let before: HashMap<NodeId, &NodeStats> = before
            .nodes
            .iter()
            .map(|it| (it.stats.node, &it.stats))
            .collect();
        for node in &after.nodes {
            let Some(before) = before.get(&node.stats.node) else {
                continue;
            };
            let it = of_node(before, &node.stats, apart);
            rates.total.into = sum(rates.total.into, it.into);
            rates.total.out = sum(rates.total.out, it.out);
            rates.nodes.insert(node.stats.node, it);
        }
        rates
    }
}

fn is_restarted(before: &Store, after: &Store) -> bool {
    after.groups < before.groups
        || after.fsyncs < before.fsyncs
        || after.enqueued.hints < before.enqueued.hints
}

fn of_node(before: &NodeStats, after: &NodeStats, apart: Duration) -> Rates {
    let into = after.enqueued.hints.checked_sub(before.enqueued.hints);
    let out = after.delivered.hints.checked_sub(before.delivered.hints);
    // A node that was forgotten and came back counts anew in both.
    let Some((into, out)) = into.zip(out) else {
        return Rates::default();
    };
    let a_second = |hints: u64| Some(hints as f64 / apart.as_secs_f64());
    Rates {
        into: a_second(into),
        out: a_second(out),
    }
}

fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}
