//! Power cuts at random moments, on a store that is seconds old and on one that has seen some.
//!
//! Goal and rules as in `crash_kill`; what was not fsynced is gone. Method: the same crash loop on
//! an ext4 image that is shut down without flushing its log. Controls switch off what the store
//! does against it, which must be seen to lose answered hints or the whole store; in CI the own
//! fsync and the chunks, the others by hand (`HH_CONTROLS=with`). `HH_CYCLES` is the number of
//! cuts, `HH_SEED` runs a seed again, `HH_FILE_SYSTEM=xfs` cuts the power of an XFS.

mod crash;

use std::process::ExitCode;

use hinted_handoff::Durability;
use hinted_handoff_testkit::{Counts, PowerCut};

/// A safeguard switched off, and how it is then stressed.
struct Control {
    name: &'static str,
    switched_off: &'static str,
    durability: Durability,
    payload_bytes_max: usize,
    syncs_percent: u8,
    /// Series in which it may be caught before it counts as missed.
    series_max: u64,
    /// Runs here too, not by hand alone.
    in_ci: bool,
}

const CONTROLS: [Control; 4] = [
    // docs/sled.md rule 1. Each series catches it with a chance of more than 1 in 3.
    Control {
        name: "without our own fsync",
        switched_off: "OwnFsync",
        durability: Durability::Sync,
        payload_bytes_max: 20_000,
        syncs_percent: 60,
        series_max: 12,
        in_ci: true,
    },
    // Rule 2.
    Control {
        name: "without a bound on the log between two fsyncs, in small segments",
        switched_off: "GroupCommits,LargeSegments,LogScan",
        durability: Durability::Buffered,
        payload_bytes_max: 20_000,
        syncs_percent: 1,
        series_max: 40,
        in_ci: false,
    },
    // Rule 3.
    Control {
        name: "without chunks, so that sled makes blobs",
        switched_off: "Chunks",
        durability: Durability::Sync,
        payload_bytes_max: 8 << 20,
        syncs_percent: 60,
        // One in seven catches it: 40 of them missed it once.
        series_max: 120,
        in_ci: true,
    },
    // Rule 7.
    Control {
        name: "without fsyncs of directories",
        switched_off: "DirectoryFsync",
        durability: Durability::Sync,
        payload_bytes_max: 20_000,
        syncs_percent: 60,
        series_max: 40,
        in_ci: false,
    },
];

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
        run(crash::Series::by_turns(seed, number, lives))
    });
    if !cuts {
        return crash::verdict(false);
    }
    // By hand all of them, or those whose name has a word in it.
    let wanted = std::env::var("HH_CONTROLS").ok();
    let is_wanted = |control: &&Control| match &wanted {
        Some(word) => control.name.contains(word.as_str()),
        None => control.in_ci,
    };
    let (mut passed, mut failed) = (1, 0);
    for control in CONTROLS.iter().filter(is_wanted) {
        match is_caught(control) {
            true => passed += 1,
            false => failed += 1,
        }
    }
    crash::closing(passed, failed)
}

/// Whether the suite sees what is wrong without the safeguard.
fn is_caught(control: &Control) -> bool {
    let series = |seed, number| {
        run(crash::Series {
            switched_off: control.switched_off,
            durability: control.durability,
            payload_bytes_max: control.payload_bytes_max,
            syncs_percent: control.syncs_percent,
            ..crash::Series::by_turns(seed, number, 5)
        })
    };
    crash::caught("crash_power_cut", control.name, control.series_max, series).is_some()
}
