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
        seed,
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
    let cuts = crash::repeat("crash_power_cut", 50, 5, |seed, number, lives| {
        run(series(seed, number, lives))
    });
    if !cuts {
        return crash::verdict(false);
    }
    let seed = crash::seed();
    println!("crash_power_cut: the control, HH_SEED={seed}");
    for number in 0..CONTROL_SERIES {
        let control = crash::Series {
            without_fsync: true,
            ..series(seed.wrapping_add(number), number * 2, 5)
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
