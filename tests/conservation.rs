//! Nothing ever leaves without a delivery or a journal entry: after every step of random stories
//! each hint that was ever stored is pending, delivered, withdrawn, a dead letter or in the loss
//! journal, and nowhere twice; so *enqueued = delivered + pending + dead + journalled + withdrawn*.
//! Copies that never were hints are in the journal too, each once.
//!
//! Half of the stories are of a store by itself. The others are of a whole service: its nodes
//! answer anything, and what they took is written down by them; every wait is for something to be
//! so, in time that is moved by hand.
//!
//! `HH_CASES` stories of `HH_STEPS` steps (60); each prints its seed if it fails, `HH_SEED` runs
//! that one. By default 20 of a store and 14 of a service, of which ten are the same every time: in
//! these everything happens that can happen to a hint.

#[path = "conservation/audit.rs"]
mod audit;
#[path = "conservation/barriers.rs"]
mod barriers;
mod common;
#[path = "conservation/failing.rs"]
mod failing;
#[path = "conservation/fan_out.rs"]
mod fan_out;
#[path = "conservation/journal.rs"]
mod journal;
#[path = "conservation/ledger.rs"]
mod ledger;
#[path = "conservation/life.rs"]
mod life;
#[path = "conservation/operating.rs"]
mod operating;
#[path = "conservation/receiver.rs"]
mod receiver;
#[path = "conservation/service.rs"]
mod service;
#[path = "crash/side_by_side.rs"]
mod side_by_side;
#[path = "conservation/story.rs"]
mod story;
#[path = "conservation/writing.rs"]
mod writing;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    panic::{RefUnwindSafe, catch_unwind, resume_unwind},
    sync::Mutex,
};

use fan_out::FanOutStory;
use service::ServiceStory;
use side_by_side::side_by_side;
use story::Story;

/// How often something happened.
type Counts = BTreeMap<&'static str, u64>;

fn setting(name: &str) -> Option<u64> {
    let set = std::env::var(name).ok();
    set.map(|text| text.parse().unwrap())
}

fn steps() -> u64 {
    setting("HH_STEPS").unwrap_or(60)
}

fn seeds(others: u64) -> Vec<u64> {
    let drawn = |count| (0..count).map(|_| fastrand::u64(..));
    match (setting("HH_SEED"), setting("HH_CASES")) {
        (Some(seed), _) => vec![seed],
        (None, Some(cases)) => drawn(cases).collect(),
        (None, None) => (0..10).chain(drawn(others)).collect(),
    }
}

/// Tells stories, by default ten that are the same every time and some others, and prints what they
/// came to. By default each of `kinds` must have happened in one of them.
fn tell(
    of: &str,
    others: u64,
    kinds: &[&str],
    story: impl Fn(u64) -> Counts + RefUnwindSafe + Sync,
) {
    let (seeds, steps) = (seeds(others), steps());
    let (counts, broken) = (Mutex::new(Counts::new()), Mutex::new(None));
    side_by_side(seeds.len() as u64, |number| {
        let seed = seeds[number as usize];
        match catch_unwind(|| story(seed)) {
            Ok(story) => {
                let mut counts = counts.lock().unwrap();
                for (what, count) in story {
                    *counts.entry(what).or_default() += count;
                }
                ControlFlow::Continue(())
            }
            Err(panic) => {
                eprintln!("HH_SEED={seed} HH_STEPS={steps} does it again, of {of}");
                *broken.lock().unwrap() = Some(panic);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(panic) = broken.into_inner().unwrap() {
        resume_unwind(panic);
    }
    let counts = counts.into_inner().unwrap();
    let told = counts.iter().map(|(what, count)| format!("{count} {what}"));
    let (stories, told) = (seeds.len(), told.collect::<Vec<_>>().join(", "));
    println!("conservation: {stories} stories of {of}, {told}");
    let is_default = ["HH_SEED", "HH_CASES", "HH_STEPS"].map(setting) == [None; 3];
    for kind in kinds.iter().filter(|_| is_default) {
        let count = counts.get(kind).copied().unwrap_or(0);
        assert!(count > 0, "no {kind} in all stories of {of}");
    }
}

/// What happens to hints, and around them, in the stories of a service.
const KINDS: [&str; 28] = [
    "barriers",
    "crashed",
    "dead at the end",
    "delivered",
    "discarded",
    "drained",
    "dropped",
    "evicted",
    "expired",
    "hangs",
    "hinted",
    "late answers",
    "let in after waiting",
    "obsolete",
    "panics",
    "partials",
    "purged nodes",
    "redriven",
    "refused",
    "refused after waiting",
    "rejects",
    "removed nodes",
    "renamed nodes",
    "reopened",
    "retries",
    "retries later",
    "storage failures",
    "written directly",
];

/// The same of a store by itself.
const STORE_KINDS: [&str; 18] = [
    "barriers",
    "dead-lettered",
    "crashed",
    "delivered",
    "delivered unsent",
    "discarded",
    "evicted",
    "held",
    "let go",
    "lost",
    "not stored",
    "redriven",
    "removed nodes",
    "renamed nodes",
    "reopened",
    "storage failures",
    "undelivered",
    "withdrawn",
];

#[test]
fn every_hint_of_a_store_is_pending_delivered_withdrawn_dead_or_journalled_after_every_step() {
    tell("a store", 10, &STORE_KINDS, |seed| {
        let mut story = Story::begin(seed);
        for _ in 0..steps() {
            story.step();
        }
        story.end()
    });
}

/// What happens to copies in the stories of a fan-out.
const FATES: [&str; 6] = [
    "crashed",
    "dead on arrival",
    "not stored",
    "refused",
    "reopened",
    "withdrawn",
];

/// One thread for blocking work, beside the one that holds the clock.
fn on_a_clock_that_stands<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(2)
        .build()
        .unwrap();
    runtime.block_on(story)
}

#[test]
fn every_copy_of_a_fan_out_is_at_its_owner_pending_dead_journalled_or_withdrawn_after_every_step() {
    tell("a fan-out", 2, &FATES, |seed| {
        on_a_clock_that_stands(async {
            let mut story = FanOutStory::begin(seed).await;
            for _ in 0..steps() / 2 {
                story.step().await;
            }
            story.end().await
        })
    });
}

#[test]
fn every_hint_of_a_service_is_pending_delivered_dead_or_journalled_after_every_step() {
    tell("a service", 4, &KINDS, |seed| {
        on_a_clock_that_stands(async {
            let mut story = ServiceStory::begin(seed).await;
            for _ in 0..steps() {
                story.step().await;
            }
            story.end().await
        })
    });
}
