//! Durable append beside the raw file, in alternating rounds.

use std::{sync::Arc, time::Duration};

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::Place,
        producers::Until,
        report::{Spread, Table, ratio, thousands},
        rounds::{Round, our_round, raw_round},
    },
    figures::Figures,
};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);
const ENTRIES: usize = 20_000;
const LARGE_ENTRIES: usize = 256;
const LARGE_BYTES: usize = 64 * 1024;

/// What is appended to.
#[derive(Clone, Copy)]
enum Side {
    Raw,
    RawDrained,
    /// For so many nodes that are down, in turn.
    Ours(u64),
    OursDrained,
}

struct Load {
    key: &'static str,
    producers: usize,
    /// 64 KiB that no compression makes less, instead of line protocol.
    is_large: bool,
    side: Side,
    reference: Side,
    /// Of the usual length of a round.
    times: u32,
}

pub const KEYS: [&str; 5] = [
    "append_64",
    "append_1",
    "append_incompressible_16",
    "append_while_draining",
    "append_1000_nodes",
];

fn load(key: &'static str) -> Load {
    let ordinary = Load {
        key,
        producers: 64,
        is_large: false,
        side: Side::Ours(1),
        reference: Side::Raw,
        times: 1,
    };
    match key {
        "append_1" => Load {
            producers: 1,
            ..ordinary
        },
        "append_incompressible_16" => Load {
            producers: 16,
            is_large: true,
            ..ordinary
        },
        "append_while_draining" => Load {
            side: Side::OursDrained,
            reference: Side::RawDrained,
            ..ordinary
        },
        // Long enough that what is left to be flushed at the end is little of what came.
        "append_1000_nodes" => Load {
            side: Side::Ours(1000),
            reference: Side::Ours(1),
            times: 3,
            ..ordinary
        },
        _ => ordinary,
    }
}

/// Runs the loads of `keys`.
pub async fn run(
    settings: &Settings,
    place: &Place,
    keys: &[&'static str],
    figures: &mut Figures,
) -> Outcome<()> {
    let until = |load: &Load| Until::Elapsed(ROUND.mul_f64(settings.scale) * load.times);
    let ordinary = Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let large = Arc::new(Entries::incompressible(LARGE_ENTRIES, LARGE_BYTES));
    let mut rounds = Table::new(&[
        "load, round",
        "reference/s",
        "ours/s",
        "ratio",
        "delivered/s",
        "entries a group",
        "reference written/B",
        "ours written/B",
        "ours handed to sled/B",
    ]);
    let mut medians = Table::new(&["load", "reference/s", "ours/s", "ratio (min..max)"]);
    // What the first of all rounds alone would pay for: cold code, a cold disk.
    let warm_up = Until::Elapsed(ROUND.mul_f64(settings.scale / 3.0));
    for side in [Side::Raw, Side::Ours(1)] {
        run_round(side, place, &ordinary, 64, warm_up).await?;
    }
    for load in keys.iter().map(|key| load(key)) {
        let entries = if load.is_large { &large } else { &ordinary };
        let (mut references, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=ROUNDS {
            let (producers, until) = (load.producers, until(&load));
            let reference = run_round(load.reference, place, entries, producers, until).await?;
            let our = run_round(load.side, place, entries, producers, until).await?;
            let rates = (reference.done.per_second(), our.done.per_second());
            rounds.row([
                format!("{}, {number}", load.key),
                thousands(rates.0),
                thousands(rates.1),
                ratio(Some(rates.1 / rates.0)),
                our.delivered.map_or("-".to_owned(), thousands),
                ratio(our.entries_a_group),
                ratio(reference.written),
                ratio(our.written),
                ratio(our.handed),
            ]);
            references.push(rates.0);
            ours.push(rates.1);
            ratios.push(rates.1 / rates.0);
        }
        let ratios = Spread::of(ratios);
        medians.row([
            load.key.to_owned(),
            thousands(Spread::of(references).median),
            thousands(Spread::of(ours).median),
            ratios.ratio(),
        ]);
        figures.note(load.key, ratios);
    }
    rounds.print("Durable append, round by round (/B: for each byte of payload)");
    medians.print("Durable append, medians");
    Ok(())
}

async fn run_round(
    side: Side,
    place: &Place,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
) -> Outcome<Round> {
    match side {
        Side::Raw => raw_round(place, entries, producers, until, false).await,
        Side::RawDrained => raw_round(place, entries, producers, until, true).await,
        Side::Ours(nodes) => our_round(place, entries, producers, until, nodes, false).await,
        Side::OursDrained => our_round(place, entries, producers, until, 1, true).await,
    }
}
