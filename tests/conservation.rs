//! Nothing ever leaves without a delivery or a journal entry: after every step of random stories each hint that was ever stored is
//! pending, delivered, a dead letter or in the loss journal, and nowhere twice; so
//! *enqueued = delivered + pending + dead + journalled*.
//!
//! `HH_CASES` stories (20 by default) of `HH_STEPS` steps (60); each prints its seed if it fails, `HH_SEED` runs that one.

#[path = "conservation/barriers.rs"]
mod barriers;
mod common;
#[path = "conservation/ledger.rs"]
mod ledger;
#[path = "conservation/story.rs"]
mod story;

use std::{collections::BTreeMap, panic::catch_unwind};

use story::Story;

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap())
}

#[test]
fn every_hint_is_pending_delivered_dead_or_journalled_after_every_step() {
    let steps = setting("HH_STEPS", 60);
    let seeds: Vec<u64> = match std::env::var("HH_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..setting("HH_CASES", 20))
            .map(|_| fastrand::u64(..))
            .collect(),
    };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in &seeds {
        let told = catch_unwind(|| {
            let mut story = Story::begin(*seed);
            for _ in 0..steps {
                story.step();
            }
            story.end()
        });
        match told {
            Ok(story) => story
                .into_iter()
                .for_each(|(what, count)| *counts.entry(what).or_default() += count),
            Err(panic) => {
                eprintln!("HH_SEED={seed} HH_STEPS={steps} does it again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let counts: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    println!(
        "conservation: {} stories, {}",
        seeds.len(),
        counts.join(", ")
    );
}
