//! The store against a model in memory.
//!
//! Goal: whatever is appended, peeked, acknowledged (anywhere, also in the middle of a block), removed, synced, closed,
//! crashed, failed and opened again, in any order, the store holds what the model says: the same hints in the same order,
//! the same depth, no id ever given out twice, and a new queue after every stop that was not clean. The rules are
//! written down in `QueueModel`.
//!
//! Method: random operations (`model/operation.rs`) are carried out on a store and told to the model (`model/host.rs`). After
//! each one every node's depth is compared and its first queue read whole; at the end everything is taken and compared.
//! A crash opens a copy of the files as they are while a group is being committed (`model/copy.rs`); an unclean stop is
//! a clean one whose `CLEAN` summary is taken away; a failing commit is mended by the store itself; a panic in one
//! leaves nothing but to drop the store and open it again.
//!
//! `HH_CYCLES` is the number of cases. A case is a seed: `HH_SEED` runs it again, with `HH_CYCLES=1` it alone. A failure
//! is shrunk and told with its seed; timing is the one thing that a seed does not hold.

mod common;
#[path = "model/copy.rs"]
mod copy;
mod crash;
#[path = "model/host.rs"]
mod host;
#[path = "model/operation.rs"]
mod operation;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use host::{COUNTS, Model};
use operation::{OPERATIONS, Plan};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

/// Each waits for the disk most of the time.
const WORKERS: usize = 4;
const WORKER: &str = "case";
/// Shrinking is for reading; it need not be perfect.
const SHRINK_ITERATIONS: u32 = 400;
const SHRINK_MS: u32 = 60_000;

/// Runs one case; says what is broken, and by which operations.
fn case(seed: u64) -> Result<(), String> {
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINK_ITERATIONS,
        max_shrink_time: SHRINK_MS,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let strategy = Plan::sequential_strategy(OPERATIONS);
    let ran = TestRunner::new(config.clone()).run(&strategy, |(plan, operations, seen)| {
        Model::test_sequential(config.clone(), plan, operations, seen);
        Ok(())
    });
    match ran {
        Ok(()) => Ok(()),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
        Err(TestError::Fail(reason, (_, operations, _))) => {
            let operations = operations.iter().map(|it| format!("    {it:?}"));
            let operations: Vec<_> = operations.collect();
            Err(format!("{reason}\n  after\n{}", operations.join("\n")))
        }
    }
}

/// A case's own panics are told with the failure, and those that it asks for are none.
fn silence_expected_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_a_case = thread::current().name() == Some(WORKER);
        let injected = panic.payload().downcast_ref() == Some(&"injected by a test");
        if !of_a_case && !injected {
            usual(panic);
        }
    }));
}

fn main() -> ExitCode {
    silence_expected_panics();
    let (cases, seed) = (crash::cycles(256), crash::seed());
    println!("model: {cases} cases, HH_SEED={seed}");
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while failures.lock().unwrap().is_empty() {
            let number = next.fetch_add(1, Relaxed);
            if number >= cases {
                return;
            }
            let seed = seed.wrapping_add(number);
            if let Err(broken) = case(seed) {
                let text = format!("case {number}, HH_SEED={seed} HH_CYCLES=1: {broken}");
                failures.lock().unwrap().push(text);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let worker = thread::Builder::new().name(WORKER.to_owned());
            worker.spawn_scoped(scope, work).unwrap();
        }
    });
    let failures = failures.into_inner().unwrap();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    let ran = next.into_inner().min(cases);
    println!(
        "model: {ran} cases, {} failed: {:?}",
        failures.len(),
        COUNTS.lock().unwrap()
    );
    crash::verdict(failures.is_empty())
}
