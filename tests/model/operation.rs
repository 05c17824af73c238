//! What may happen to a store, and how often.

use std::{
    collections::BTreeSet,
    ops::{Range, RangeInclusive},
};

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

pub const NODES: RangeInclusive<u64> = 1..=3;
/// Operations in a case.
pub const OPERATIONS: Range<usize> = 1..26;
/// A store that fails again and again waits longer each time before it reopens itself.
const FAILURES_MAX: usize = 2;
/// Opening is what costs the most.
const STOPS_MAX: usize = 6;

#[derive(Debug, Clone)]
pub enum Operation {
    /// Hints of these sizes are handed in as one burst; all answers are waited for.
    Append {
        node: u64,
        payloads: Vec<Payload>,
    },
    /// The same, and no answer is waited for.
    Buffer {
        node: u64,
        payloads: Vec<Payload>,
    },
    Peek {
        node: u64,
        hints: usize,
        bytes: u64,
    },
    /// A part of what a peek shows.
    Ack {
        node: u64,
        percent: u8,
    },
    /// More than is there.
    AckAhead {
        node: u64,
        by: u64,
    },
    Sync,
    Remove {
        node: u64,
    },
    Reopen {
        clean: bool,
    },
    /// While these are being committed, and perhaps a node is about to be removed. Of what that
    /// adds to the log, so much is on disk already.
    Crash {
        in_flight: Vec<(u64, Payload)>,
        removing: Option<u64>,
        log_percent: u8,
    },
    /// The storage fails meanwhile.
    Fail(Failing),
    /// A commit panics.
    Panic {
        node: u64,
        payload: Payload,
    },
}

/// A hint to be handed in.
#[derive(Debug, Clone, Copy)]
pub struct Payload {
    pub bytes: usize,
    /// It is to leave as a dead letter with the group that stores it.
    pub leaves: bool,
}

#[derive(Debug, Clone)]
pub enum Failing {
    Append { node: u64, payloads: Vec<Payload> },
    Sync,
    Remove { node: u64 },
    Close,
}

/// What is known before anything runs: enough to leave out what would come to nothing.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    hinted: BTreeSet<u64>,
    failures: usize,
    stops: usize,
}

fn node() -> impl Strategy<Value = u64> {
    NODES
}

/// Most are small. Some take several chunks, few a group or more.
fn payload() -> impl Strategy<Value = Payload> {
    let bytes = prop_oneof![
        120 => 1_usize..300,
        20 => 300_usize..9_000,
        4 => 60_000_usize..70_000,
        1 => 900_000_usize..1_300_000,
    ];
    let leaves = prop::bool::weighted(0.1);
    (bytes, leaves).prop_map(|(bytes, leaves)| Payload { bytes, leaves })
}

fn payloads() -> impl Strategy<Value = Vec<Payload>> {
    prop_oneof![
        1 => prop::collection::vec(payload(), 1),
        2 => prop::collection::vec(payload(), 2..20),
    ]
}

fn failing() -> impl Strategy<Value = Failing> {
    prop_oneof![
        4 => (node(), payloads()).prop_map(|(node, payloads)| Failing::Append { node, payloads }),
        2 => Just(Failing::Sync),
        1 => node().prop_map(|node| Failing::Remove { node }),
        1 => Just(Failing::Close),
    ]
}

impl ReferenceStateMachine for Plan {
    type State = Plan;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Plan> {
        Just(Plan::default()).boxed()
    }

    fn transitions(_: &Plan) -> BoxedStrategy<Operation> {
        let log_percent = prop_oneof![Just(0_u8), 1_u8..100, Just(100_u8)];
        let in_flight = prop::collection::vec((node(), payload()), 0..8);
        prop_oneof![
            12 => (node(), payloads())
                .prop_map(|(node, payloads)| Operation::Append { node, payloads }),
            6 => (node(), payloads())
                .prop_map(|(node, payloads)| Operation::Buffer { node, payloads }),
            5 => (node(), 1_usize..50, 1_u64..100_000)
                .prop_map(|(node, hints, bytes)| Operation::Peek { node, hints, bytes }),
            12 => (node(), 1_u8..=100).prop_map(|(node, percent)| Operation::Ack { node, percent }),
            1 => (node(), 1_u64..50).prop_map(|(node, by)| Operation::AckAhead { node, by }),
            3 => Just(Operation::Sync),
            2 => node().prop_map(|node| Operation::Remove { node }),
            4 => any::<bool>().prop_map(|clean| Operation::Reopen { clean }),
            5 => (in_flight, prop::option::weighted(0.2, node()), log_percent).prop_map(
                |(in_flight, removing, log_percent)| Operation::Crash {
                    in_flight,
                    removing,
                    log_percent,
                }
            ),
            2 => failing().prop_map(Operation::Fail),
            1 => (node(), payload()).prop_map(|(node, payload)| Operation::Panic { node, payload }),
        ]
        .boxed()
    }

    fn preconditions(plan: &Plan, operation: &Operation) -> bool {
        let stops = plan.stops < STOPS_MAX;
        match operation {
            Operation::Append { .. } | Operation::Buffer { .. } | Operation::Sync => true,
            Operation::Peek { node, .. }
            | Operation::Ack { node, .. }
            | Operation::AckAhead { node, .. }
            | Operation::Remove { node } => plan.hinted.contains(node),
            Operation::Reopen { .. } | Operation::Crash { .. } | Operation::Panic { .. } => stops,
            Operation::Fail(_) => stops && plan.failures < FAILURES_MAX,
        }
    }

    fn apply(mut plan: Plan, operation: &Operation) -> Plan {
        match operation {
            Operation::Append { node, .. } | Operation::Buffer { node, .. } => {
                plan.hinted.insert(*node);
            }
            Operation::Reopen { .. } | Operation::Crash { .. } | Operation::Panic { .. } => {
                plan.stops += 1;
            }
            Operation::Fail(_) => {
                plan.stops += 1;
                plan.failures += 1;
            }
            Operation::Peek { .. }
            | Operation::Ack { .. }
            | Operation::AckAhead { .. }
            | Operation::Remove { .. }
            | Operation::Sync => {}
        }
        plan
    }
}
