//! Replay of a backlog to a writer that answers at once, from the call of open to the last hint,
//! beside the raw file's reader; and what the store takes on disk and writes.

use std::{sync::Arc, time::Instant};

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::{Place, allocated_bytes, drop_cache, written_bytes},
        ours::{fill, open_up, settle},
        raw::{Reader, write_log},
        receiver::Receiver,
        report::{Spread, Table, ratio},
    },
    figures::Figures,
};

const ROUNDS: usize = 3;
const ENTRIES: usize = 20_000;

struct Backlog {
    name: &'static str,
    producers: usize,
    entries: f64,
    /// Nothing of it is in the system's page cache.
    is_cold: bool,
}

/// One producer leaves a block for each hint: the worst case. The goals are about the first.
const BACKLOGS: [Backlog; 3] = [
    Backlog {
        name: "written by 64 producers",
        producers: 64,
        entries: 300_000.0,
        is_cold: true,
    },
    Backlog {
        name: "the same, in the page cache",
        producers: 64,
        entries: 300_000.0,
        is_cold: false,
    },
    Backlog {
        name: "written by 1, a block a hint, in the page cache",
        producers: 1,
        entries: 20_000.0,
        is_cold: false,
    },
];

/// What one round came to; bytes are for each byte of payload.
struct Round {
    raw_rate: f64,
    rate: f64,
    first_seconds: f64,
    on_disk_full: f64,
    on_disk_drained: f64,
    handed: f64,
    written_by_append: Option<f64>,
    written_by_drain: Option<f64>,
}

pub async fn run(settings: &Settings, place: &Place, figures: &mut Figures) -> Outcome<()> {
    let entries = Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let mut speed = Table::new(&[
        "backlog",
        "entries",
        "raw entries/s",
        "entries/s, open included",
        "of raw",
        "first delivery s",
    ]);
    let mut space = Table::new(&[
        "backlog",
        "on disk, full",
        "on disk, drained",
        "handed to sled by append",
        "written by append",
        "written by drain",
    ]);
    for (number, backlog) in BACKLOGS.iter().enumerate() {
        let count = (backlog.entries * settings.scale).max(1.0) as u64;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let raw_rate = raw_rate(place, &entries, backlog, count)?;
            rounds.push(round(place, &entries, backlog, count, raw_rate).await?);
        }
        let all = |of: fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(of));
        let of_raw = all(|it| Some(it.rate / it.raw_rate));
        speed.row([
            backlog.name.to_owned(),
            count.to_string(),
            all(|it| Some(it.raw_rate)).rate(),
            all(|it| Some(it.rate)).rate(),
            of_raw.ratio(),
            all(|it| Some(it.first_seconds)).seconds(),
        ]);
        let median = |of| ratio(Some(all(of).median).filter(|it| it.is_finite()));
        space.row([
            backlog.name.to_owned(),
            median(|it| Some(it.on_disk_full)),
            median(|it| Some(it.on_disk_drained)),
            median(|it| Some(it.handed)),
            median(|it| it.written_by_append),
            median(|it| it.written_by_drain),
        ]);
        if number == 0 {
            figures.note("replay_of_raw", of_raw);
            let written = all(|it| Some(it.written_by_append? + it.written_by_drain?));
            if written.median.is_finite() {
                figures.note("bytes_written_per_logical_byte", written);
            }
        }
    }
    speed.print("Replay of a backlog to a writer that answers at once (min..max)");
    space.print("Bytes for each byte of payload");
    Ok(())
}

/// Entries a second of the raw file's reader.
fn raw_rate(place: &Place, entries: &Entries, backlog: &Backlog, count: u64) -> Outcome<f64> {
    let dir = place.fresh_dir()?;
    let bytes = write_log(dir.path(), entries, count)?;
    if backlog.is_cold {
        drop_cache(dir.path())?;
    }
    let started = Instant::now();
    let mut reader = Reader::open(dir.path())?;
    reader.read_all()?;
    let elapsed = started.elapsed();
    if (reader.entries, reader.bytes) != (count, bytes) {
        return Err("LOST: the raw reader has not seen all".into());
    }
    Ok(count as f64 / elapsed.as_secs_f64())
}

async fn round(
    place: &Place,
    entries: &Arc<Entries>,
    backlog: &Backlog,
    count: u64,
    raw_rate: f64,
) -> Outcome<Round> {
    let temporary = place.fresh_dir()?;
    let dir = temporary.path().join("store");
    let before = written_bytes();
    let (done, stats) = fill(&dir, entries, backlog.producers, count).await?;
    let filled = written_bytes();
    let full_bytes = allocated_bytes(&dir)?;
    if backlog.is_cold {
        drop_cache(&dir)?;
    }

    let receiver = Receiver::new(count, 1);
    let opened = Instant::now();
    let handoff = open_up(&dir, &receiver).await?;
    let first = receiver.first().await - opened;
    let total = receiver.all(done.bytes).await? - opened;
    settle(&handoff).await?;
    handoff.shutdown().await?;
    let drained = written_bytes();

    let of_payload = |bytes: u64| bytes as f64 / done.bytes as f64;
    let written = |from: Option<u64>, to: Option<u64>| Some(of_payload(to? - from?));
    Ok(Round {
        raw_rate,
        rate: count as f64 / total.as_secs_f64(),
        first_seconds: first.as_secs_f64(),
        on_disk_full: of_payload(full_bytes),
        on_disk_drained: of_payload(allocated_bytes(&dir)?),
        handed: of_payload(stats.store.engine_bytes),
        written_by_append: written(before, filled),
        written_by_drain: written(filled, drained),
    })
}
