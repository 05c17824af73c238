//! Transactions over rows and hints in a shared database, against a model in memory.
//!
//! Goal: whatever is read, written, enqueued, acknowledged, given up, interfered with, refused,
//! crashed, failed and opened again, in any order and at the same time, all comes out as if each
//! transaction had run alone, one after the other, as a whole or not at all: the host's rows, the
//! hints of every node with their numbers, and what every closure read. A hint that left
//! undelivered is a dead letter or in the loss journal, and one that a stop brought back is
//! neither.
//!
//! Method: random operations (`operation.rs`) are carried out on a database with three trees of the
//! host's and four nodes, two of which are consumed by hand and two replayed (`host.rs`,
//! `script.rs`). Futures are polled by hand, so that the order in which the store takes what is
//! handed in is known (`waiting.rs`), and the model judges it in that order (`history.rs`): what
//! was read must be so at that moment, then it must come into effect; else it must be run again
//! (`answers.rs`). After each operation all rows, all pending hints and the figures are compared
//! (`looks.rs`). A crash opens a copy of the files as they are while a group is being committed;
//! after it, and after storage that failed, the database must be in a state that follows from some
//! first part of what was handed in, with all of it that was answered as durable (`stops.rs`).
//!
//! `HH_CYCLES` is the number of cases. A case is a seed: `HH_SEED` runs it again, with
//! `HH_CYCLES=1` it alone. A failure is shrunk and told with its seed; timing is the one thing that
//! a seed does not hold.

#[path = "model_transactions/answers.rs"]
mod answers;
#[path = "model/copy.rs"]
mod copy;
mod crash;
#[path = "model_transactions/history.rs"]
mod history;
#[path = "model_transactions/host.rs"]
mod host;
#[path = "model_transactions/looks.rs"]
mod looks;
#[path = "model_transactions/operation.rs"]
mod operation;
#[path = "model/runner.rs"]
mod runner;
#[path = "model_transactions/script.rs"]
mod script;
#[path = "model_transactions/stops.rs"]
mod stops;
#[path = "model_transactions/valves.rs"]
mod valves;
#[path = "model_transactions/waiting.rs"]
mod waiting;
#[path = "model_transactions/world.rs"]
mod world;

use std::process::ExitCode;

use host::{COUNTS, Model};
use operation::OPERATIONS;

const IN_CI: u64 = 128;

/// Each of these comes up in as many cases as CI runs.
const KINDS: [&str; 28] = [
    "abandoned",
    "aborted",
    "acknowledged",
    "acknowledgements undone",
    "answered early",
    "committed",
    "crashes",
    "crashes within a write",
    "database reopened",
    "dead",
    "delivered",
    "discarded",
    "failures",
    "handoff reopened",
    "hints",
    "interferences",
    "not next",
    "obsolete",
    "panicked",
    "panics of the engine",
    "refused",
    "run again",
    "syncs",
    "to be sent again",
    "too large",
    "uncertain and gone",
    "uncertain and there",
    "unknown",
];

fn main() -> ExitCode {
    let ran = runner::run::<Model>("model_transactions", IN_CI, OPERATIONS, &COUNTS);
    let counts = COUNTS.lock().unwrap();
    let never = |kind: &&str| counts.get(kind).is_none_or(|count| *count == 0);
    let never: Vec<_> = KINDS.into_iter().filter(never).collect();
    // A few cases, as when one is run again, need not have all.
    let seen_all = never.is_empty() || ran.is_none_or(|ran| ran < IN_CI);
    if !seen_all {
        println!("FAILED: never seen: {never:?}");
    }
    crash::verdict(ran.is_some() && seen_all)
}
