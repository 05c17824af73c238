//! The store against a model in memory.
//!
//! Goal: whatever is appended, peeked, acknowledged (anywhere, also in the middle of a block),
//! removed, synced, closed, crashed, failed and opened again, in any order, the store holds what
//! the model says: the same hints in the same order, the same depth, no id ever given out twice,
//! and a new queue after every stop that was not clean. The rules are written down in `QueueModel`.
//!
//! Method: random operations (`model/operation.rs`) are carried out on a store and told to the
//! model (`model/host.rs`). After each one every node's depth is compared and its first queue read
//! whole; at the end everything is taken and compared. A crash opens a copy of the files as they
//! are while a group is being committed (`model/copy.rs`); an unclean stop is a clean one whose
//! `CLEAN` summary is taken away; a store reopens itself after a failing commit; a panic in one
//! leaves nothing but to drop the store and open it again.
//!
//! `HH_CYCLES` is the number of cases. A case is a seed: `HH_SEED` runs it again, with
//! `HH_CYCLES=1` it alone. A failure is shrunk and told with its seed; timing is the one thing that
//! a seed does not hold.

mod common;
#[path = "model/copy.rs"]
mod copy;
mod crash;
#[path = "model/failing.rs"]
mod failing;
#[path = "model/host.rs"]
mod host;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/runner.rs"]
mod runner;

use std::process::ExitCode;

use host::{COUNTS, Model};
use operation::OPERATIONS;

fn main() -> ExitCode {
    let ran = runner::run::<Model>("model", 128, OPERATIONS, &COUNTS);
    crash::verdict(ran.is_some())
}
