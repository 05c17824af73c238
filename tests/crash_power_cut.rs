//! Power cuts at random moments, on a store that is seconds old and on one that has seen some.
//!
//! Goal and rules as in `crash_kill`; what was not fsynced is gone. Method: the same crash loop on an ext4 image that is
//! shut down without flushing its log. The control leaves our own fsync out, which must be seen to lose answered hints or the
//! whole store: sled's flush is no fsync. `HH_CYCLES` is the number of cuts, `HH_SEED` runs a seed again.

mod crash;

use std::process::ExitCode;

use hinted_handoff::{
    Durability,
    testkit::{Counts, PowerCut},
};

/// Series in which the control may be caught; each catches it with a chance of more than 1 in 3.
const CONTROL_SERIES: u64 = 12;

fn series(seed: u64, number: u64, lives: u64) -> crash::Series {
    crash::Series {
        seed: seed.wrapping_add(number),
        lives,
        durability: [Durability::Sync, Durability::Buffered][number as usize % 2],
        payload_bytes_max: [20_000, 1 << 20][(number as usize / 2) % 2],
        without_fsync: false,
        removals_percent: 3,
        while_opening_percent: 50,
        life_ms_max: 250,
    }
}

fn run(series: crash::Series) -> Result<Counts, String> {
    let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
    let disk = PowerCut::new(dir.path(), 512).map_err(|error| error.to_string())?;
    let store = disk.path().join("store");
    crash::run(disk, &store, log, series)
}

fn main() -> ExitCode {
    if let Some(code) = crash::as_child() {
        return code;
    }
    match crash::can_cut_power("crash_power_cut") {
        Ok(true) => {}
        Ok(false) => {
            println!("0 passed, 0 failed, 1 skipped");
            return ExitCode::SUCCESS;
        }
        Err(code) => return code,
    }
    let (mut cuts, wanted, seed) = (0, crash::cycles(50), crash::seed());
    println!("crash_power_cut: {wanted} cuts, HH_SEED={seed}");
    let (mut sum, mut stores) = (Counts::default(), 0);
    while cuts < wanted {
        let series = series(seed, stores, 5.min(wanted - cuts));
        match run(series) {
            Ok(counts) => crash::add(&mut sum, counts),
            Err(broken) => {
                println!("FAILED: {broken}\n1 passed, 1 failed");
                return ExitCode::FAILURE;
            }
        }
        cuts += series.lives;
        stores += 1;
    }
    println!("crash_power_cut: {cuts} cuts, {stores} stores, 0 violations: {sum:?}");

    for number in 0..CONTROL_SERIES {
        let control = crash::Series {
            without_fsync: true,
            ..series(seed ^ 0x5eed, number * 2, 5)
        };
        if let Err(caught) = run(control) {
            println!(
                "control without our own fsync: caught in series {}: {caught}",
                number + 1
            );
            println!("2 passed, 0 failed");
            return ExitCode::SUCCESS;
        }
    }
    println!(
        "FAILED: without our own fsync nothing was lost in {CONTROL_SERIES} series: the suite sees nothing"
    );
    println!("1 passed, 1 failed");
    ExitCode::FAILURE
}
