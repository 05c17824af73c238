//! Runs the cases of a model test: as many as asked for, each from a seed of its own, several at a
//! time.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use crate::crash;

/// Each waits for the disk most of the time.
const WORKERS: usize = 8;
const WORKER: &str = "case";
/// Shrinking is for reading; it need not be perfect.
const SHRINK_ITERATIONS: u32 = 400;
const SHRINK_MS: u32 = 60_000;

/// What was done and seen, over all cases that ended well.
pub type Counts = Mutex<BTreeMap<&'static str, u64>>;

/// What a case found.
#[derive(Default)]
pub struct Findings {
    pub broken: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Findings {
    pub fn count(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    pub fn expect(&mut self, kept: bool, broken: impl FnOnce() -> String) {
        if !kept {
            self.broken.push(broken());
        }
    }

    pub fn expect_ok<E: Debug>(&mut self, what: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.broken.push(format!("{what}: {error:?}"));
        }
    }

    /// Adds what was counted to that of all cases.
    pub fn add_to(&self, sum: &Counts) {
        let mut sum = sum.lock().unwrap();
        for (what, count) in &self.counts {
            *sum.entry(what).or_default() += count;
        }
    }
}

/// Runs `HH_CYCLES` cases of a model, or as many as CI does, and says what was seen. Returns how
/// many ran, `None` if one failed.
pub fn run<M>(suite: &str, in_ci: u64, operations: Range<usize>, counts: &Counts) -> Option<u64>
where
    M: StateMachineTest,
    <M::Reference as ReferenceStateMachine>::State: Debug + Clone + 'static,
    <M::Reference as ReferenceStateMachine>::Transition: Debug + Clone + 'static,
{
    silence_expected_panics();
    let (cases, seed) = (crash::cycles(in_ci), crash::seed());
    println!("{suite}: {cases} cases, HH_SEED={seed}");
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while failures.lock().unwrap().is_empty() {
            let number = next.fetch_add(1, Relaxed);
            if number >= cases {
                return;
            }
            let seed = seed.wrapping_add(number);
            if let Err(broken) = case::<M>(operations.clone(), seed) {
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
        "{suite}: {ran} cases, {} failed: {:?}",
        failures.len(),
        counts.lock().unwrap()
    );
    failures.is_empty().then_some(ran)
}

/// Runs one case; says what is broken, and by which operations.
fn case<M>(operations: Range<usize>, seed: u64) -> Result<(), String>
where
    M: StateMachineTest,
    <M::Reference as ReferenceStateMachine>::State: Debug + Clone + 'static,
    <M::Reference as ReferenceStateMachine>::Transition: Debug + Clone + 'static,
{
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINK_ITERATIONS,
        max_shrink_time: SHRINK_MS,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let strategy = M::Reference::sequential_strategy(operations);
    let ran = TestRunner::new(config.clone()).run(&strategy, |(plan, operations, seen)| {
        M::test_sequential(config.clone(), plan, operations, seen);
        Ok(())
    });
    match ran {
        Ok(()) => Ok(()),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
        Err(TestError::Fail(reason, (plan, operations, _))) => {
            let operations = operations.iter().map(|it| format!("    {it:?}"));
            let operations: Vec<_> = operations.collect();
            let operations = operations.join("\n");
            Err(format!("{reason}\n  in {plan:?} after\n{operations}"))
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
