//! Durable append with 1 and 64 producers, beside the raw file, in alternating rounds.

use std::{sync::Arc, time::Duration};

use crate::{
    Outcome, Settings,
    entries::Entries,
    machine::{Place, written_bytes},
    ours::{Appender, check_pending, open_down},
    producers::{Done, Until, produce},
    raw::Grouped,
    report::{Spread, Table, ratio, thousands},
};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(2500);

struct Load {
    producers: usize,
    /// Entries go to this many nodes in turn.
    nodes: u64,
    goal: Option<f64>,
}

/// Spread over many nodes each hint is a block of its own, which is what the last row is about.
const LOADS: [Load; 3] = [
    Load {
        producers: 1,
        nodes: 1,
        goal: Some(0.6),
    },
    Load {
        producers: 64,
        nodes: 1,
        goal: Some(0.45),
    },
    Load {
        producers: 64,
        nodes: 64,
        goal: None,
    },
];

struct Round {
    done: Done,
    /// Bytes sent to the disk for each byte of payload.
    written: Option<f64>,
    /// Bytes handed to sled for each byte of payload, where it is the store.
    handed: Option<f64>,
    entries_a_group: Option<f64>,
}

pub async fn run(settings: &Settings, place: &Place, entries: &Arc<Entries>) -> Outcome<()> {
    let until = Until::Elapsed(ROUND.mul_f64(settings.scale));
    let mut rounds = Table::new(&[
        "producers, nodes, round",
        "raw/s",
        "ours/s",
        "ours of raw",
        "entries a group",
        "raw written/B",
        "ours written/B",
        "ours handed to sled/B",
    ]);
    let mut medians = Table::new(&[
        "producers, nodes",
        "raw/s",
        "ours/s",
        "ours of raw (min..max)",
        "goal",
    ]);
    // What the first of all rounds alone would pay for: cold code, a cold disk.
    let warm_up = Until::Elapsed(ROUND.mul_f64(settings.scale / 5.0));
    raw_round(place, entries, 64, warm_up).await?;
    our_round(place, entries, 64, 1, warm_up).await?;
    for load in &LOADS {
        let (producers, nodes) = (load.producers, load.nodes);
        let (mut raw_rates, mut our_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            let raw = raw_round(place, entries, producers, until).await?;
            let ours = our_round(place, entries, producers, nodes, until).await?;
            let (raw_rate, our_rate) = (raw.done.per_second(), ours.done.per_second());
            rounds.row([
                format!("{producers}, {nodes}, {round}"),
                thousands(raw_rate),
                thousands(our_rate),
                ratio(Some(our_rate / raw_rate)),
                ratio(ours.entries_a_group),
                ratio(raw.written),
                ratio(ours.written),
                ratio(ours.handed),
            ]);
            raw_rates.push(raw_rate);
            our_rates.push(our_rate);
            ratios.push(our_rate / raw_rate);
        }
        medians.row([
            format!("{producers}, {nodes}"),
            thousands(Spread::of(raw_rates).median),
            thousands(Spread::of(our_rates).median),
            Spread::of(ratios).ratio(),
            ratio(load.goal),
        ]);
    }
    rounds.print("Durable append, round by round (/B: for each byte of payload)");
    medians.print("Durable append, medians");
    Ok(())
}

async fn raw_round(
    place: &Place,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let file = Grouped::file(&dir.path().join("log"))?;
    let before = written_bytes();
    let done = produce(&file.writer(), entries, producers, until).await?;
    let written = written_since(before, &done);
    file.close()?;
    Ok(Round {
        done,
        written,
        handed: None,
        entries_a_group: None,
    })
}

async fn our_round(
    place: &Place,
    entries: &Arc<Entries>,
    producers: usize,
    nodes: u64,
    until: Until,
) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let handoff = open_down(&dir.path().join("store")).await?;
    let before = written_bytes();
    let target = Appender::new(&handoff, nodes);
    let done = produce(&target, entries, producers, until).await?;
    let written = written_since(before, &done);
    let stats = check_pending(&handoff, &done)?.store;
    handoff.shutdown().await?;
    Ok(Round {
        done,
        written,
        handed: Some(stats.engine_bytes as f64 / done.bytes as f64),
        entries_a_group: Some(done.entries as f64 / stats.groups as f64),
    })
}

fn written_since(before: Option<u64>, done: &Done) -> Option<f64> {
    Some((written_bytes()? - before?) as f64 / done.bytes as f64)
}
