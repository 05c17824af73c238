//! Durable append with more and more producers, beside the raw file: one half of the plot.

use std::{fs, sync::Arc, time::Duration};

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::Place,
        producers::Until,
        report::{Spread, Table, thousands},
        rounds::{our_round, raw_round},
    },
};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(600);
const PRODUCERS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const ENTRIES: usize = 20_000;

pub async fn run(settings: &Settings, place: &Place) -> Outcome<()> {
    let entries = Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let until = Until::Elapsed(ROUND.mul_f64(settings.scale));
    let mut table = Table::new(&["producers", "raw/s", "ours/s", "of raw (min..max)"]);
    let mut points = String::from("producers,ours,raw\n");
    for producers in PRODUCERS {
        let (mut raw, mut ours, mut of_raw) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let reference = raw_round(place, &entries, producers, until, false).await?;
            let our = our_round(place, &entries, producers, until, 1, false).await?;
            raw.push(reference.done.per_second());
            ours.push(our.done.per_second());
            of_raw.push(our.done.per_second() / reference.done.per_second());
        }
        let (raw, ours) = (Spread::of(raw).median, Spread::of(ours).median);
        table.row([
            producers.to_string(),
            thousands(raw),
            thousands(ours),
            Spread::of(of_raw).ratio(),
        ]);
        points.push_str(&format!("{producers},{ours:.0},{raw:.0}\n"));
    }
    table.print("Durable append by number of producers");
    Ok(fs::write(
        settings.target.join("bench-producers.csv"),
        points,
    )?)
}
