//! SIGKILL at random moments: while opening, writing, replaying, acknowledging, removing nodes and
//! shutting down.
//!
//! Goal: nothing that was answered is lost, nothing is invented, order holds, no id is used twice,
//! nothing that was durably acknowledged comes back. Method: the crash loop of the `testkit`, ten
//! lives a store, then all that is left is delivered and the oracle asked. `HH_CYCLES` is the
//! number of kills, `HH_SEED` runs a seed again.

mod crash;

use std::process::ExitCode;

use hinted_handoff_testkit::Kill;

fn main() -> ExitCode {
    if let Some(code) = crash::as_child() {
        return code;
    }
    crash::verdict(crash::repeat(
        "crash_kill",
        100,
        10,
        |seed, number, lives| {
            let series = crash::Series::by_turns(seed, number, lives);
            let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
            crash::run(Kill, &dir.path().join("store"), log, series)
                .map_err(|broken| format!("{broken}\nstore kept at {}", dir.keep().display()))
        },
    ))
}
