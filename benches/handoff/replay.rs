//! Replay to a writer that answers at once, from the call of open to the last hint; and what the store takes on disk.

use std::{sync::Arc, time::Instant};

use crate::{
    Outcome, Settings,
    entries::Entries,
    machine::{Place, allocated_bytes, written_bytes},
    ours::{fill, open_up, settle},
    receiver::Receiver,
    report::{Spread, Table, ratio},
};

const ROUNDS: usize = 3;

struct Backlog {
    name: &'static str,
    producers: usize,
    entries: f64,
}

/// One producer leaves a block for each hint: the worst case.
const BACKLOGS: [Backlog; 2] = [
    Backlog {
        name: "written by 64 producers",
        producers: 64,
        entries: 300_000.0,
    },
    Backlog {
        name: "written by 1, a block a hint",
        producers: 1,
        entries: 20_000.0,
    },
];

pub async fn run(settings: &Settings, place: &Place, entries: &Arc<Entries>) -> Outcome<()> {
    let mut speed = Table::new(&[
        "backlog",
        "entries",
        "entries/s, open included",
        "first delivery s",
        "drained s",
        "goal",
    ]);
    let mut space = Table::new(&[
        "backlog",
        "on disk, full",
        "on disk, drained",
        "handed to sled by append",
        "written by append",
        "written by drain",
    ]);
    for backlog in &BACKLOGS {
        let (mut rates, mut firsts, mut totals) = (Vec::new(), Vec::new(), Vec::new());
        let mut on_disk: [Vec<f64>; 5] = Default::default();
        let count = (backlog.entries * settings.scale).max(1.0) as u64;
        for _ in 0..ROUNDS {
            let temporary = place.fresh_dir()?;
            let dir = temporary.path().join("store");
            let before = written_bytes();
            let (done, stats) = fill(&dir, entries, backlog.producers, count).await?;
            let filled = written_bytes();
            let full_bytes = allocated_bytes(&dir)?;

            let receiver = Receiver::new(count, 1);
            let opened = Instant::now();
            let handoff = open_up(&dir, &receiver).await?;
            let first = (receiver.first().await - opened).as_secs_f64();
            let total = (receiver.all(done.bytes).await? - opened).as_secs_f64();
            settle(&handoff).await?;
            handoff.shutdown().await?;
            rates.push(count as f64 / total);
            firsts.push(first);
            totals.push(total);

            let written = |from: Option<u64>, to: Option<u64>| Some((to? - from?) as f64);
            let bytes = [
                Some(full_bytes as f64),
                Some(allocated_bytes(&dir)? as f64),
                Some(stats.store.engine_bytes as f64),
                written(before, filled),
                written(filled, written_bytes()),
            ];
            for (all, bytes) in on_disk.iter_mut().zip(bytes) {
                all.extend(bytes.map(|bytes| bytes / done.bytes as f64));
            }
        }
        speed.row([
            backlog.name.to_owned(),
            count.to_string(),
            Spread::of(rates).rate(),
            Spread::of(firsts).seconds(),
            Spread::of(totals).seconds(),
            match backlog.producers {
                1 => "-".to_owned(),
                _ => "200,000/s".to_owned(),
            },
        ]);
        let medians = on_disk.map(|all| match all.is_empty() {
            true => ratio(None),
            false => ratio(Some(Spread::of(all).median)),
        });
        space.row([backlog.name.to_owned()].into_iter().chain(medians));
    }
    speed.print("Replay to a writer that answers at once (min..max)");
    space.print("Bytes for each byte of payload");
    Ok(())
}
