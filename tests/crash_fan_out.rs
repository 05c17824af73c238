//! Kills and power cuts under a coordinator that writes to three owners at once, by a
//! `PointsWriter`.
//!
//! Goal: with `answer = "accounted"` each copy of a write that was answered with success is at its
//! owner, a hint, a dead letter or recorded as lost, whenever the coordinator died; with `"level"`
//! a copy may be missing too that was outstanding for less than `hint_after`, and the commit of its
//! hint. In strict order nothing overtakes; all copies of a write bear one id.
//!
//! Method: the coordinator is a child process; its owners live in this one, so they know what they
//! took whatever becomes of it. They answer at once, late, or never, refuse, and take what they
//! then deny, by moods that change. Every few lives one has everything delivered, and what is
//! nowhere is a violation. Controls switch off what the store or the fan-out does against it, which
//! must be seen. `HH_CYCLES` is the number of kills, and half of that of power cuts; `HH_SEED` runs
//! a seed again, as far as the moment of a stop lets it.

#[path = "crash_fan_out/coordinator.rs"]
mod coordinator;
mod crash;
#[path = "crash_fan_out/figures.rs"]
mod figures;
#[path = "crash_fan_out/ledger.rs"]
mod ledger;
#[path = "crash_fan_out/owners.rs"]
mod owners;
#[path = "crash_fan_out/series.rs"]
mod series;
#[path = "crash_fan_out/settings.rs"]
mod settings;
#[path = "crash_fan_out/wire.rs"]
mod wire;

use std::process::ExitCode;

use figures::Figures;
use hinted_handoff::AnswerWhen;
use hinted_handoff_testkit::{Kill, PowerCut};
use series::run;
use settings::{Series, Stress};

const KILLS: u64 = 30;
const LIVES: u64 = 5;

/// A safeguard switched off, and the answer that it is for.
struct Control {
    name: &'static str,
    switched_off: &'static str,
    answer: AnswerWhen,
    stress: Stress,
}

const CONTROLS: [Control; 3] = [
    Control {
        name: "without hints of sends that are outstanding",
        switched_off: "HintAfter",
        answer: AnswerWhen::Level,
        stress: Stress::Time,
    },
    Control {
        name: "with hints that are not durable when the write is answered",
        switched_off: "AccountedHints",
        answer: AnswerWhen::Accounted,
        stress: Stress::Mixed,
    },
    Control {
        name: "without records of copies that are not stored",
        switched_off: "NotStoredRecords",
        answer: AnswerWhen::Accounted,
        stress: Stress::Room,
    },
];

/// Series in which a control may be caught before it counts as missed.
const CONTROL_SERIES: u64 = 12;

fn killed(series: Series) -> Result<Figures, String> {
    let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
    let figures = run(Kill, &dir.path().join("store"), log, series);
    match series.switched_off {
        "" => figures.map_err(|broken| format!("{broken}\nstore kept at {}", dir.keep().display())),
        _ => figures,
    }
}

fn cut(series: Series) -> Result<Figures, String> {
    let (dir, log) = crash::dirs().map_err(|error| error.to_string())?;
    let disk = PowerCut::new(dir.path(), 512).map_err(|error| error.to_string())?;
    let store = disk.path().join("store");
    run(disk, &store, log, series)
}

/// Series until so many stops are made. A seed is the same series, whichever it is of how many.
fn repeat(
    what: &str,
    wanted: u64,
    live: impl Fn(Series) -> Result<Figures, String> + Sync,
) -> bool {
    let suite = format!("crash_fan_out by {what}");
    let add = |sum: &mut Figures, seen| *sum += seen;
    crash::repeat_until(&suite, wanted, LIVES, add, |seed, _, lives| {
        live(Series::by_turns(seed, seed, lives))
    })
}

/// Whether the suite sees what is missing without the safeguard, and nothing else is wrong.
fn is_caught(control: &Control) -> bool {
    let series = |seed, _| {
        killed(Series {
            switched_off: control.switched_off,
            answer: control.answer,
            stress: control.stress,
            ..Series::by_turns(seed, seed, LIVES)
        })
    };
    let caught = crash::caught("crash_fan_out", control.name, CONTROL_SERIES, series);
    match caught {
        Some(broken) if !broken.contains("MISSING") => {
            println!("FAILED: control {}: nothing is missing", control.name);
            false
        }
        caught => caught.is_some(),
    }
}

fn main() -> ExitCode {
    if let Some(code) = coordinator::as_child() {
        return code;
    }
    let kills = crash::cycles(KILLS);
    if !repeat("kills", kills, killed) {
        return crash::verdict(false);
    }
    let mut passed = 1;
    match crash::can_cut_power("crash_fan_out") {
        Ok(true) if !repeat("power cuts", kills.div_ceil(2), cut) => {
            return crash::verdict(false);
        }
        Ok(cuts) => passed += u64::from(cuts),
        Err(code) => return code,
    }
    let caught = CONTROLS.iter().filter(|control| is_caught(control)).count() as u64;
    crash::closing(passed + caught, CONTROLS.len() as u64 - caught)
}
