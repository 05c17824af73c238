//! SIGKILL and power cuts while a store opens: while its first generation is made and migrated,
//! while sled recovers, while queues and cursors are looked for.
//!
//! Goal and rules as in `crash_kill`; besides, no number of such stops makes a store unopenable.
//! Method: four of five lives are stopped within their first milliseconds, the others leave
//! something to recover. `HH_CYCLES` is the number of stops, `HH_SEED` runs a seed again.

mod crash;

use std::process::ExitCode;

use hinted_handoff::Durability;
use hinted_handoff_testkit::{Counts, Kill, PowerCut};

fn series(seed: u64, lives: u64) -> crash::Series {
    crash::Series {
        host: crash::Host::Plain,
        seed,
        lives,
        durability: Durability::Sync,
        payload_bytes_max: 300_000,
        syncs_percent: 60,
        switched_off: "",
        removals_percent: 10,
        while_opening_percent: 80,
        compacts: true,
        life_ms_max: 150,
    }
}

fn run(series: crash::Series, by_power_cut: bool) -> Result<Counts, String> {
    let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
    if !by_power_cut {
        return crash::run(Kill, &dir.path().join("store"), log, series);
    }
    let disk = PowerCut::new(dir.path(), 512).map_err(|error| error.to_string())?;
    let store = disk.path().join("store");
    crash::run(disk, &store, log, series)
}

fn main() -> ExitCode {
    if let Some(code) = crash::as_child() {
        return code;
    }
    let power_cuts = match crash::can_cut_power("crash_open") {
        Ok(can) => can,
        Err(code) => return code,
    };
    crash::verdict(crash::repeat(
        "crash_open",
        50,
        10,
        |seed, number, lives| run(series(seed, lives), power_cuts && number % 2 == 1),
    ))
}
