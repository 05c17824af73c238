//! Order between direct writes and hints.
//!
//! Goal: with `WriteOrdering::Strict` a receiver is never sent the first copy of a write after that
//! of a later one, whatever fails, and nobody waits for ever; with `Bypass` all is as it was. With
//! either, receivers that keep to `AppliedHints` and `AppliedWrites` apply each write once,
//! although hints are made of writes that are still being sent.
//!
//! Method: scenarios of one situation each, on paused time where time matters, and rounds in which
//! many clients write at once to nodes that fail, hang and panic as a seed says (`random.rs`);
//! after each, all that the receivers saw is compared with the order of the calls (`world.rs`).
//! `HH_CYCLES` is the number of rounds; a round is a seed: `HH_SEED` runs it again, with
//! `HH_CYCLES=1` it alone.

#[path = "admission/applied.rs"]
mod applied;
mod common;
mod crash;
#[path = "admission/random.rs"]
mod random;
#[path = "admission/scenarios.rs"]
mod scenarios;
#[path = "admission/world.rs"]
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use scenarios::SCENARIOS;
use world::FIGURES;

const IN_CI: u64 = 40;
/// Longer than any scenario or round takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// Scenarios and rounds run in threads of this name, whose panics are told with the failure.
const WORKER: &str = "admission";

/// Runs one in a thread of its own; says what is broken.
fn broken(run: impl FnOnce() + Send + 'static) -> Option<String> {
    let (tell, told) = mpsc::channel();
    let work = move || {
        let ran = catch_unwind(AssertUnwindSafe(run));
        // Nobody listens if it took too long.
        let _ = tell.send(ran.err().map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or(panic.downcast_ref::<&str>().map(|it| it.to_string()))
        }));
    };
    let worker = thread::Builder::new().name(WORKER.to_owned());
    worker.spawn(work).unwrap();
    match told.recv_timeout(PATIENCE) {
        Ok(ended) => ended.map(|text| text.unwrap_or_default()),
        Err(_) => Some(format!("no end within {PATIENCE:?}")),
    }
}

/// Panics that the scripts ask for are none.
fn silence_expected_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<&str>();
        if text != Some(&"scripted: panic") {
            usual(panic);
        }
    }));
}

fn main() -> ExitCode {
    silence_expected_panics();
    let (mut passed, mut failed) = (0, 0);
    let mut judge = |name: &str, broken: Option<String>| match broken {
        None => passed += 1,
        Some(broken) => {
            failed += 1;
            println!("FAILED: {name}: {broken}");
        }
    };
    for (name, run) in SCENARIOS {
        judge(name, broken(run));
    }
    let (cycles, seed) = (crash::cycles(IN_CI), crash::seed());
    println!(
        "admission: {} scenarios, {cycles} rounds, HH_SEED={seed}",
        SCENARIOS.len()
    );
    for number in 0..cycles {
        let seed = seed.wrapping_add(number);
        // Whose time is the tasks' own, and whose tasks run at once.
        let round = move || match seed % 2 {
            0 => scenarios::on_threads(random::round(seed)),
            _ => common::clock::paused(random::round(seed)),
        };
        let name = format!("round {number}, HH_SEED={seed} HH_CYCLES=1");
        judge(&name, broken(round));
    }
    let figures = FIGURES.lock().unwrap();
    println!(
        "admission: {} writes, {} copies direct, {} hinted ({} of them behind a backlog), order checked {} times, \
         {} copies refused by their hints and {} by their writes: {passed} passed, {failed} failed",
        figures.writes,
        figures.direct,
        figures.hinted,
        figures.backlogged,
        figures.checked,
        figures.refused.0,
        figures.refused.1
    );
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
