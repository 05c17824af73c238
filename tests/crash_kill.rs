//! SIGKILL at random moments: while opening, writing, replaying, acknowledging, removing nodes and shutting down.
//!
//! Goal: nothing that was answered is lost, nothing is invented, order holds, no id is used twice, nothing that was durably
//! acknowledged comes back. Method: the crash loop of the `testkit`, ten lives a store, then all that is left is delivered
//! and the oracle asked. `HH_CYCLES` is the number of kills, `HH_SEED` runs a seed again.

mod crash;

use std::process::ExitCode;

use hinted_handoff::{
    Durability,
    testkit::{Counts, Kill},
};

fn main() -> ExitCode {
    if let Some(code) = crash::as_child() {
        return code;
    }
    let (mut kills, wanted, seed) = (0, crash::cycles(100), crash::seed());
    println!("crash_kill: {wanted} kills, HH_SEED={seed}");
    let (mut sum, mut stores) = (Counts::default(), 0);
    while kills < wanted {
        let series = crash::Series {
            seed: seed.wrapping_add(stores),
            lives: 10.min(wanted - kills),
            durability: [Durability::Sync, Durability::Buffered][stores as usize % 2],
            payload_bytes_max: [20_000, 1 << 20][(stores as usize / 2) % 2],
            without_fsync: false,
            removals_percent: 3,
            while_opening_percent: 50,
            life_ms_max: 250,
        };
        let (dir, log) = crash::dirs().unwrap();
        match crash::run(Kill, &dir.path().join("store"), log, series) {
            Ok(counts) => crash::add(&mut sum, counts),
            Err(broken) => {
                println!("FAILED: {broken}\nstore kept at {}", dir.keep().display());
                println!("0 passed, 1 failed");
                return ExitCode::FAILURE;
            }
        }
        kills += series.lives;
        stores += 1;
    }
    println!("crash_kill: {kills} stops, {stores} stores, 0 violations: {sum:?}");
    println!("1 passed, 0 failed");
    ExitCode::SUCCESS
}
