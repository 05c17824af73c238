//! Resident memory with 10 GiB waiting: while filling, after it, in a new process after opening, and while draining.

use std::{path::Path, sync::Arc};

use crate::{
    GIB, Outcome, Settings,
    child::{Running, tell},
    entries::Entries,
    machine::{Place, allocated_bytes, resident_bytes, resident_bytes_max},
    ours::{Appender, check_pending, open_down, open_up, settle},
    producers::{Done, Until, produce},
    receiver::Receiver,
    report::{Table, mib},
};

const LOGICAL_GIB: f64 = 10.0;
/// The fill is told in this many parts.
const PARTS: u64 = 10;
/// Compressed and with sled's slack it took less than this of the logical size wherever it was measured.
const DISK_OF_LOGICAL: f64 = 0.8;

pub fn run(settings: &Settings, place: &Place, entries: &Entries) -> Outcome<()> {
    let logical_bytes = LOGICAL_GIB * settings.scale * GIB as f64;
    let count = (logical_bytes as u64 / entries.mean_bytes()).next_multiple_of(PARTS);
    let (needed, free) = (
        (logical_bytes * DISK_OF_LOGICAL) as u64,
        place.free_bytes()?,
    );
    if free < needed {
        println!(
            "memory: skipped, it needs about {} MiB of disk and {} are free; HH_BENCH_SCALE makes it smaller",
            mib(Some(needed)),
            mib(Some(free))
        );
        return Ok(());
    }
    let temporary = place.fresh_dir()?;
    let dir = temporary.path().join("store");
    let mut table = Table::new(&["process, moment", "resident MiB", "highest so far MiB"]);
    let mut row = |name: String, figures: Vec<u64>| {
        let figure = |place: usize| mib(figures.get(place).copied());
        table.row([name, figure(0), figure(1)]);
    };

    let mut filling = Running::start("memory-fill", &dir, &[count])?;
    row("1, before open".to_owned(), filling.fact("resident")?);
    for part in 1..=PARTS {
        row(
            format!("1, {part} of {PARTS} parts filled"),
            filling.fact("resident")?,
        );
    }
    let payload_bytes = filling.figure("payload_bytes")?;
    filling.end()?;
    let disk_bytes = allocated_bytes(&dir)?;

    let mut draining = Running::start("memory-drain", &dir, &[count, payload_bytes])?;
    for moment in [
        "before open",
        "opened, first delivery held back",
        "draining (the highest of all)",
        "drained",
    ] {
        row(format!("2, {moment}"), draining.fact("resident")?);
    }
    draining.end()?;
    table.print(&format!(
        "Resident memory with {} MiB of payload waiting in {} MiB on disk; goal: under 200 MB",
        mib(Some(payload_bytes)),
        mib(Some(disk_bytes))
    ));
    Ok(())
}

fn tell_resident() -> Outcome<()> {
    let figures = [resident_bytes(), resident_bytes_max()];
    tell("resident", &figures.map(Option::unwrap_or_default))
}

/// Child: fills the store part by part.
pub async fn fill(dir: &Path, entries: &Arc<Entries>, count: u64) -> Outcome<()> {
    tell_resident()?;
    let handoff = open_down(dir).await?;
    let target = Appender::new(&handoff, 1);
    let mut all = Done::default();
    for _ in 0..PARTS {
        let done = produce(&target, entries, 64, Until::Entries(count / PARTS)).await?;
        all.entries += done.entries;
        all.bytes += done.bytes;
        tell_resident()?;
    }
    check_pending(&handoff, &all)?;
    handoff.shutdown().await?;
    tell("payload_bytes", &[all.bytes])
}

/// Child: opens, drains, and checks that all is there.
pub async fn drain(dir: &Path, count: u64, payload_bytes: u64) -> Outcome<()> {
    tell_resident()?;
    let waiting = Receiver::holding();
    let handoff = open_up(dir, &waiting).await?;
    waiting.first().await;
    tell_resident()?;
    // The send held back is abandoned, and made again to the next receiver.
    handoff.shutdown().await?;
    drop(handoff);

    let receiver = Receiver::new(count, 1);
    let handoff = open_up(dir, &receiver).await?;
    receiver.all(payload_bytes).await?;
    tell_resident()?;
    settle(&handoff).await?;
    handoff.shutdown().await?;
    tell_resident()
}
