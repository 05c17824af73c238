//! SIGKILL and power cuts while a store opens: while its first generation is made and migrated, while sled recovers, while
//! queues and cursors are looked for.
//!
//! Goal and rules as in `crash_kill`; besides, no number of such stops makes a store unopenable. Method: four of five lives
//! are stopped within their first milliseconds, the others leave something to recover. `HH_CYCLES` is the number of stops,
//! `HH_SEED` runs a seed again.

mod crash;

use std::process::ExitCode;

use hinted_handoff::{
    Durability,
    testkit::{Counts, Kill, PowerCut},
};

fn series(seed: u64, lives: u64) -> crash::Series {
    crash::Series {
        seed,
        lives,
        durability: Durability::Sync,
        payload_bytes_max: 300_000,
        without_fsync: false,
        removals_percent: 10,
        while_opening_percent: 80,
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
    let (mut stops, wanted, seed) = (0, crash::cycles(50), crash::seed());
    println!("crash_open: {wanted} stops, HH_SEED={seed}");
    let (mut sum, mut stores) = (Counts::default(), 0);
    while stops < wanted {
        let series = series(seed.wrapping_add(stores), 10.min(wanted - stops));
        match run(series, power_cuts && stores % 2 == 1) {
            Ok(counts) => crash::add(&mut sum, counts),
            Err(broken) => {
                println!("FAILED: {broken}\n0 passed, 1 failed");
                return ExitCode::FAILURE;
            }
        }
        stops += series.lives;
        stores += 1;
    }
    println!("crash_open: {stops} stops, {stores} stores, 0 violations: {sum:?}");
    println!("1 passed, 0 failed");
    ExitCode::SUCCESS
}
