//! All nodes summed up.

use std::{collections::BTreeMap, time::Duration};

use hinted_handoff::{Amount, LossReason, NodeId, NodeState, NodeStats, Stats};

/// What all nodes come to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many nodes are in which state, by its name.
    pub states: BTreeMap<&'static str, u64>,
    pub dead_letters: Amount,
    pub in_flight: u64,
    /// The node of the oldest pending hint, and its age.
    pub oldest: Option<(NodeId, Duration)>,
    /// Hints a second.
    pub delivery_rate: f64,
    /// How long until nothing waits that is replayed. Known if every node with such hints takes
    /// them.
    pub caught_up_in: Option<Duration>,
    /// Nodes with pending hints of which it is not known.
    pub stuck_nodes: u64,
    /// Lost since open, copies that were not stored and evicted dead letters among them. What other
    /// nodes have now is none of it.
    pub lost: Amount,
}

impl Summary {
    pub fn of(stats: &Stats) -> Summary {
        let mut sum = Summary {
            caught_up_in: Some(Duration::ZERO),
            ..Summary::default()
        };
        for (reason, lost) in &stats.store.lost {
            if *reason != LossReason::Rehinted {
                sum.lost = plus(sum.lost, *lost);
            }
        }
        for node in &stats.nodes {
            sum.add(node);
        }
        sum
    }

    fn add(&mut self, node: &NodeStats) {
        *self.states.entry(state_name(node.state)).or_default() += 1;
        self.dead_letters = plus(self.dead_letters, node.dead_letters);
        self.in_flight += node.in_flight;
        self.delivery_rate += node.delivery_rate;
        let age = node.oldest_age.map(|age| (node.node, age));
        self.oldest = [self.oldest, age]
            .into_iter()
            .flatten()
            .max_by_key(|(_, age)| *age);
        // When hints are taken by hand, that is the host's to say.
        if node.pending.hints > 0 && node.state != NodeState::Manual {
            self.stuck_nodes += u64::from(node.caught_up_in.is_none());
            let all = self.caught_up_in.zip(node.caught_up_in);
            self.caught_up_in = all.map(|(all, one)| all.max(one));
        }
    }
}

/// Both together.
pub fn plus(a: Amount, b: Amount) -> Amount {
    Amount {
        hints: a.hints.saturating_add(b.hints),
        bytes: a.bytes.saturating_add(b.bytes),
    }
}

/// All states of a node.
pub const STATES: [NodeState; 10] = [
    NodeState::CaughtUp,
    NodeState::Waiting,
    NodeState::Replaying,
    NodeState::Failing,
    NodeState::Down,
    NodeState::Stopped,
    NodeState::UnknownFormat,
    NodeState::Paused,
    NodeState::Parked,
    NodeState::Manual,
];

/// The name of a state, as it is in JSON.
pub fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::CaughtUp => "caught_up",
        NodeState::Waiting => "waiting",
        NodeState::Replaying => "replaying",
        NodeState::Failing => "failing",
        NodeState::Down => "down",
        NodeState::Stopped => "stopped",
        NodeState::UnknownFormat => "unknown_format",
        NodeState::Paused => "paused",
        NodeState::Parked => "parked",
        NodeState::Manual => "manual",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_that_the_library_gives_them() {
        for state in STATES {
            let named = serde_json::to_value(state).unwrap();
            assert_eq!(named, state_name(state));
        }
    }
}
