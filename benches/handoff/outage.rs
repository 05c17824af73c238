//! A long outage: 10 GiB of payload gather for a hundred nodes that are down, the process is
//! killed, the next one replays. How the append rate changes meanwhile, how long the reopen takes
//! to the first delivery, and how much memory is resident in all of it.

use std::{
    fs,
    future::pending,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Settings, TEMPORARY_DIR,
    child::{Running, tell},
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::{Place, allocated_bytes, drop_cache, resident_bytes, resident_bytes_max},
        ours::{Appender, check_pending, open_down, open_up, settle},
        producers::{Done, Until, produce},
        receiver::Receiver,
        report::{Spread, Table, mib, ratio, thousands},
        rounds::raw_round,
    },
    figures::Figures,
};

const LOGICAL_GIB: f64 = 10.0;
const GIB: u64 = 1 << 30;
const MIB: f64 = (1 << 20) as f64;
const NODES: u64 = 100;
/// The fill is told in this many parts, a round of the raw file before each.
const PARTS: u64 = 10;
const RAW_ROUND: Duration = Duration::from_millis(700);
/// It took a third of the logical size; where each hint was a block of its own, less than this.
const DISK_OF_LOGICAL: f64 = 1.5;

pub fn run(settings: &Settings, place: &Place, figures: &mut Figures) -> Outcome<()> {
    let mean_bytes = Entries::line_protocol(1000, POINTS)?.mean_bytes();
    let logical_bytes = LOGICAL_GIB * settings.scale * GIB as f64;
    // Each part brings each node equally many.
    let count = (logical_bytes as u64 / mean_bytes).next_multiple_of(PARTS * NODES);
    let needed = (logical_bytes * DISK_OF_LOGICAL) as u64;
    let free = place.free_bytes()?;
    if free < needed {
        let (needed, free) = (mib(Some(needed)), mib(Some(free)));
        eprintln!("outage: left out, it needs about {needed} MiB of disk and {free} are free");
        return Ok(());
    }
    let temporary = place.fresh_dir()?;
    let dir = temporary.path().join("store");

    let mut filling = Running::start("outage-fill", &dir, &[count])?;
    let (change, filled_max) = watch_fill(settings, &mut filling)?;
    let payload_bytes = filling.figure("payload_bytes")?;
    filling.kill()?;
    let full_bytes = allocated_bytes(&dir)?;
    drop_cache(&dir)?;

    let mut first = Running::start("outage-first", &dir, &[])?;
    let cold = first.figure("first_us")? as f64 / 1e6;
    let opened_max = first.figure("resident_max")?;
    first.kill()?;

    let mut draining = Running::start("outage-drain", &dir, &[count, payload_bytes])?;
    let cached = draining.figure("first_us")? as f64 / 1e6;
    let drained_us = draining.figure("drained_us")?;
    let drained_max = draining.figure("resident_max")?;
    draining.end()?;

    let mut table = Table::new(&["after SIGKILL", ""]);
    let mut row = |name: &str, figure: String| table.row([name.to_owned(), figure]);
    row("waiting, MiB of payload", mib(Some(payload_bytes)));
    row("on disk, MiB", mib(Some(full_bytes)));
    row(
        "open to first delivery, s, nothing cached",
        ratio(Some(cold)),
    );
    row(
        "the same, killed again: cached, and sled has a snapshot",
        ratio(Some(cached)),
    );
    let rate = count as f64 * 1e6 / drained_us as f64;
    row("drained, entries/s, open included", thousands(rate));
    row("resident MiB at most, filling", mib(Some(filled_max)));
    row("resident MiB at most, opened", mib(Some(opened_max)));
    row("resident MiB at most, replaying", mib(Some(drained_max)));
    let left = allocated_bytes(&dir)?;
    row("on disk, drained and shut down, MiB", mib(Some(left)));
    table.print("A long outage");

    figures.note("rate_change_percent", Spread::of([change]));
    figures.note("reopen_seconds", Spread::of([cold]));
    let resident = filled_max.max(opened_max).max(drained_max) as f64 / MIB;
    figures.note("resident_mib", Spread::of([resident]));
    Ok(())
}

/// By how many per cent the rate fell, of raw, from the first two parts to the last two; and the
/// most memory that was resident.
fn watch_fill(settings: &Settings, filling: &mut Running) -> Outcome<(f64, u64)> {
    let mut table = Table::new(&[
        "part",
        "raw/s",
        "ours/s",
        "of raw",
        "resident MiB",
        "at most MiB",
    ]);
    let mut points = String::from("waiting_gib,ours,raw\n");
    let (mut of_raw, mut highest) = (Vec::new(), 0);
    for part in 1..=PARTS {
        let figures = filling.fact("part")?;
        let [raw, ours, resident, resident_max] = figures.as_slice() else {
            return Err("a part of the fill was told in another way".into());
        };
        of_raw.push(*ours as f64 / *raw as f64);
        highest = *resident_max;
        table.row([
            part.to_string(),
            thousands(*raw as f64),
            thousands(*ours as f64),
            ratio(of_raw.last().copied()),
            mib(Some(*resident)),
            mib(Some(*resident_max)),
        ]);
        let waiting = LOGICAL_GIB * settings.scale * part as f64 / PARTS as f64;
        points.push_str(&format!("{waiting:.3},{ours},{raw}\n"));
    }
    table.print("Append by 64 producers for 100 nodes in turn while the backlog grows");
    fs::write(settings.target.join("bench-backlog.csv"), points)?;
    let mean = |parts: &[f64]| parts.iter().sum::<f64>() / parts.len() as f64;
    let (Some(early), Some(late)) = (of_raw.first_chunk::<2>(), of_raw.last_chunk::<2>()) else {
        return Err("a fill of less than two parts".into());
    };
    Ok(((1.0 - mean(late) / mean(early)) * 100.0, highest))
}

/// Child: fills the store part by part, with a round of the raw file before each, and waits to be
/// killed.
pub async fn fill(dir: &Path, entries: &Arc<Entries>, count: u64) -> Outcome<()> {
    let place = Place::find(TEMPORARY_DIR)?;
    let handoff = open_down(dir).await?;
    let target = Appender::new(&handoff, NODES);
    let mut all = Done::default();
    // What the first round alone would pay for.
    raw_round(&place, entries, 64, Until::Elapsed(RAW_ROUND), false).await?;
    for _ in 0..PARTS {
        let raw = raw_round(&place, entries, 64, Until::Elapsed(RAW_ROUND), false).await?;
        let done = produce(&target, entries, 64, Until::Entries(count / PARTS)).await?;
        all.entries += done.entries;
        all.bytes += done.bytes;
        let rates = [raw.done, done].map(|it| it.per_second() as u64);
        let resident = [resident_bytes(), resident_bytes_max()].map(Option::unwrap_or_default);
        tell("part", &[rates, resident].concat())?;
    }
    check_pending(&handoff, &all)?;
    tell("payload_bytes", &[all.bytes])?;
    pending().await
}

/// Child: tells when the first hint arrives, takes none, and waits to be killed.
pub async fn first(dir: &Path) -> Outcome<()> {
    let receiver = Receiver::holding();
    let opened = Instant::now();
    let _handoff = open_up(dir, &receiver).await?;
    let first = receiver.first().await - opened;
    tell("first_us", &[first.as_micros() as u64])?;
    tell_resident_max()?;
    pending().await
}

/// Child: drains, and checks that all is there.
pub async fn drain(dir: &Path, count: u64, payload_bytes: u64) -> Outcome<()> {
    let receiver = Receiver::new(count, NODES as usize);
    let opened = Instant::now();
    let handoff = open_up(dir, &receiver).await?;
    let first = receiver.first().await - opened;
    tell("first_us", &[first.as_micros() as u64])?;
    let all = receiver.all(payload_bytes).await? - opened;
    settle(&handoff).await?;
    tell("drained_us", &[all.as_micros() as u64])?;
    tell_resident_max()?;
    Ok(handoff.shutdown().await?)
}

fn tell_resident_max() -> Outcome<()> {
    tell("resident_max", &[resident_bytes_max().unwrap_or_default()])
}
