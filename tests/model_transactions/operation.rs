//! What may happen to a shared database, and how often.

use std::ops::{Range, RangeInclusive};

use hinted_handoff::Durability;
use hinted_handoff_testkit::Reply;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

/// The host's trees.
pub const TREES: usize = 3;
/// Keys of a tree: few, so that transactions meet.
const KEYS: u8 = 5;
/// Nodes that a consumer takes the hints of.
pub const MANUAL: RangeInclusive<u64> = 1..=2;
/// Nodes whose hints are replayed.
pub const REPLAYED: RangeInclusive<u64> = 3..=4;
/// Operations in a case.
pub const OPERATIONS: Range<usize> = 1..26;
/// Opening is what costs the most.
const STOPS_MAX: usize = 5;
/// The transaction runs alone afterwards, and whoever interferes would wait for it for ever.
const INTERFERENCES_MAX: usize = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub tree: usize,
    pub key: u8,
}

#[derive(Debug, Clone)]
pub enum Step {
    Get(Row),
    Insert(Row, usize),
    Remove(Row),
    Enqueue {
        node: u64,
        bytes: usize,
    },
    /// So many of the hints that a peek showed, without the first `skipped` of them.
    Ack {
        node: u64,
        skipped: usize,
        hints: usize,
    },
    /// What was acknowledged last.
    AckAgain {
        node: u64,
    },
    /// Meets the limit, and goes on.
    Swallow(TooLarge),
    /// Begins another transaction, which is refused.
    Nest,
    /// Others may interfere here.
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    Key,
    Value,
    Hint,
    EmptyHint,
    /// All rows together.
    Sum,
    Reads,
}

/// How a closure ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
    Panic,
    /// Gives up because of this.
    TooLarge(TooLarge),
}

#[derive(Debug, Clone)]
pub struct Script {
    /// The trees are named in this order: this one, and around from there.
    pub first_tree: usize,
    pub steps: Vec<Step>,
    pub ending: Ending,
}

/// By a thread of its own, within the closure.
#[derive(Debug, Clone, Copy)]
pub enum Interference {
    Apply,
    ApplyRemoval,
    Transaction,
}

#[derive(Debug, Clone)]
pub enum Request {
    Transaction(Script),
    Apply(Vec<(Row, Option<usize>)>),
    Hint { node: u64, bytes: usize },
}

#[derive(Debug, Clone)]
pub enum Operation {
    /// Handed in one after the other, and then all answers are waited for.
    Together(Vec<Request>),
    /// Handed in, and nobody waits for the answers.
    Abandon(Vec<Request>),
    /// It reads the row first and last; after so many steps, each of its first runs waits until
    /// another has changed that.
    Conflict {
        row: Row,
        after: usize,
        script: Script,
        interferences: Vec<Interference>,
    },
    /// The consumer lets so many leave by itself.
    Consume {
        node: u64,
        peeked: usize,
        acked: usize,
    },
    /// The node answers so, and is down otherwise.
    Deliver {
        node: u64,
        replies: Vec<Reply>,
    },
    /// Its hints are discarded.
    RemoveNode(u64),
    Sync,
    /// A clean stop; of the host's database too, or of the handoff alone. It begins while these are
    /// being committed.
    Reopen {
        in_flight: Vec<Request>,
        database: bool,
    },
    /// While these are being committed, and what a node has just taken is noted. Of what that adds
    /// to the log, so much is on disk already.
    Crash {
        in_flight: Vec<Request>,
        delivered: Option<(u64, Vec<Reply>)>,
        log_percent: u8,
    },
    /// The storage fails meanwhile, or the engine panics.
    Fail {
        in_flight: Vec<Request>,
        panics: bool,
    },
}

/// What is known before anything runs.
#[derive(Debug, Clone)]
pub struct Plan {
    pub durability: Durability,
    stops: usize,
}

fn row() -> impl Strategy<Value = Row> {
    (0..TREES, 0..KEYS).prop_map(|(tree, key)| Row { tree, key })
}

fn node() -> impl Strategy<Value = u64> {
    *MANUAL.start()..=*REPLAYED.end()
}

/// Most are small, few as large as can be.
fn value_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![30 => 8_usize..200, 3 => 200_usize..9_000, 1 => Just(65_536_usize)]
}

/// Some take several chunks. All of a transaction's stay below its limit.
fn payload_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![60 => 8_usize..300, 8 => 300_usize..9_000, 2 => 60_000_usize..90_000]
}

/// Few are a group by themselves, or more.
fn plain_payload_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![60 => payload_bytes(), 1 => 900_000_usize..1_200_000]
}

fn step() -> impl Strategy<Value = Step> {
    let swallowed = prop_oneof![
        Just(TooLarge::Key),
        Just(TooLarge::Value),
        Just(TooLarge::Hint),
        Just(TooLarge::EmptyHint),
    ];
    prop_oneof![
        50 => row().prop_map(Step::Get),
        40 => (row(), value_bytes()).prop_map(|(row, bytes)| Step::Insert(row, bytes)),
        20 => row().prop_map(Step::Remove),
        30 => (node(), payload_bytes()).prop_map(|(node, bytes)| Step::Enqueue { node, bytes }),
        20 => (MANUAL, prop_oneof![9 => Just(0_usize), 1 => 1_usize..3], 1_usize..6)
            .prop_map(|(node, skipped, hints)| Step::Ack { node, skipped, hints }),
        3 => MANUAL.prop_map(|node| Step::AckAgain { node }),
        3 => swallowed.prop_map(Step::Swallow),
        2 => Just(Step::Nest),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    let too_large = prop_oneof![
        Just(TooLarge::Key),
        Just(TooLarge::Value),
        Just(TooLarge::Hint),
        Just(TooLarge::EmptyHint),
        Just(TooLarge::Sum),
        Just(TooLarge::Reads),
    ];
    prop_oneof![
        32 => Just(Ending::Commit),
        3 => Just(Ending::Abort),
        1 => Just(Ending::Panic),
        1 => too_large.prop_map(Ending::TooLarge),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let steps = prop::collection::vec(step(), 0..9);
    (0..TREES, steps, ending()).prop_map(|(first_tree, steps, ending)| Script {
        first_tree,
        steps,
        ending,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let write = (row(), prop::option::weighted(0.7, value_bytes()));
    prop_oneof![
        6 => script().prop_map(Request::Transaction),
        2 => prop::collection::vec(write, 1..8).prop_map(Request::Apply),
        2 => (node(), plain_payload_bytes()).prop_map(|(node, bytes)| Request::Hint { node, bytes }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        8 => Just(Reply::Take),
        2 => Just(Reply::Retry),
        1 => Just(Reply::Obsolete),
        2 => Just(Reply::Reject),
    ]
}

fn interference() -> impl Strategy<Value = Interference> {
    prop_oneof![
        2 => Just(Interference::Apply),
        1 => Just(Interference::ApplyRemoval),
        2 => Just(Interference::Transaction),
    ]
}

impl ReferenceStateMachine for Plan {
    type State = Plan;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Plan> {
        let durability = prop_oneof![Just(Durability::Sync), Just(Durability::Buffered)];
        durability
            .prop_map(|durability| Plan {
                durability,
                stops: 0,
            })
            .boxed()
    }

    fn transitions(_: &Plan) -> BoxedStrategy<Operation> {
        let requests = |most: usize| prop::collection::vec(request(), 1..most);
        let replies = || prop::collection::vec(reply(), 1..6);
        let delivered = prop::option::weighted(0.3, (REPLAYED, replies()));
        let log_percent = prop_oneof![Just(0_u8), 1_u8..100, Just(100_u8)];
        let interferences = prop::collection::vec(interference(), 1..=INTERFERENCES_MAX);
        prop_oneof![
            12 => request().prop_map(|request| Operation::Together(vec![request])),
            8 => requests(7).prop_map(Operation::Together),
            2 => requests(5).prop_map(Operation::Abandon),
            4 => (row(), 0_usize..9, script(), interferences)
                .prop_map(|(row, after, script, interferences)| Operation::Conflict {
                    row,
                    after,
                    script,
                    interferences,
                }),
            4 => (MANUAL, 1_usize..20, 0_usize..20)
                .prop_map(|(node, peeked, acked)| Operation::Consume { node, peeked, acked }),
            4 => (REPLAYED, replies())
                .prop_map(|(node, replies)| Operation::Deliver { node, replies }),
            1 => node().prop_map(Operation::RemoveNode),
            2 => Just(Operation::Sync),
            3 => (prop_oneof![Just(Vec::new()), requests(5)], any::<bool>())
                .prop_map(|(in_flight, database)| Operation::Reopen { in_flight, database }),
            4 => (requests(6), delivered, log_percent).prop_map(|(in_flight, delivered, log_percent)| {
                Operation::Crash { in_flight, delivered, log_percent }
            }),
            2 => (requests(5), prop::bool::weighted(0.3))
                .prop_map(|(in_flight, panics)| Operation::Fail { in_flight, panics }),
        ]
        .boxed()
    }

    fn preconditions(plan: &Plan, operation: &Operation) -> bool {
        plan.stops < STOPS_MAX || !operation.stops()
    }

    fn apply(mut plan: Plan, operation: &Operation) -> Plan {
        plan.stops += usize::from(operation.stops());
        plan
    }
}

impl Operation {
    fn stops(&self) -> bool {
        matches!(
            self,
            Operation::Reopen { .. } | Operation::Crash { .. } | Operation::Fail { .. }
        )
    }
}
