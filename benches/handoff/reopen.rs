//! A process with 1 GiB waiting is killed; how long does the next one take to its first delivery?

use std::{future::pending, path::Path, sync::Arc, time::Instant};

use crate::{
    GIB, Outcome, Settings,
    child::{Running, tell},
    entries::Entries,
    machine::{Place, allocated_bytes, drop_cache},
    ours::{Appender, check_pending, open_down, open_up, settle},
    producers::{Until, produce},
    receiver::Receiver,
    report::{Spread, Table, mib, thousands},
};

const ROUNDS: usize = 3;

pub fn run(settings: &Settings, place: &Place, entries: &Entries) -> Outcome<()> {
    let count = (GIB as f64 * settings.scale) as u64 / entries.mean_bytes();
    let (mut cold, mut warm, mut drained) = (Vec::new(), Vec::new(), Vec::new());
    let (mut payload_bytes, mut disk_bytes) = (0, 0);
    for _ in 0..ROUNDS {
        let temporary = place.fresh_dir()?;
        let dir = temporary.path().join("store");
        let mut filling = Running::start("reopen-fill", &dir, &[count])?;
        payload_bytes = filling.figure("payload_bytes")?;
        filling.kill()?;
        disk_bytes = allocated_bytes(&dir)?;
        drop_cache(&dir)?;

        let mut first = Running::start("reopen-first", &dir, &[])?;
        cold.push(first.figure("first_us")? as f64 / 1e6);
        first.kill()?;

        let mut draining = Running::start("reopen-drain", &dir, &[count, payload_bytes])?;
        warm.push(draining.figure("first_us")? as f64 / 1e6);
        drained.push(count as f64 * 1e6 / draining.figure("drained_us")? as f64);
        draining.end()?;
    }
    let mut table = Table::new(&["after SIGKILL", "median (min..max)", "goal"]);
    let mut row = |name: &str, figure: String, goal: &str| {
        table.row([name.to_owned(), figure, goal.to_owned()]);
    };
    row("waiting, MiB of payload", mib(Some(payload_bytes)), "1024");
    row("entries", thousands(count as f64), "");
    row("on disk, MiB", mib(Some(disk_bytes)), "");
    row(
        "open to first delivery, s, nothing cached",
        Spread::of(cold).seconds(),
        "1",
    );
    row(
        "open to first delivery, s, killed again, cached",
        Spread::of(warm).seconds(),
        "1",
    );
    row(
        "drained, entries/s, open included",
        Spread::of(drained).rate(),
        "",
    );
    table.print("Reopen after SIGKILL");
    Ok(())
}

/// Child: fills the store, tells, and waits to be killed.
pub async fn fill(dir: &Path, entries: &Arc<Entries>, count: u64) -> Outcome<()> {
    let handoff = open_down(dir).await?;
    let target = Appender::new(&handoff, 1);
    let done = produce(&target, entries, 64, Until::Entries(count)).await?;
    check_pending(&handoff, &done)?;
    tell("payload_bytes", &[done.bytes])?;
    pending().await
}

/// Child: tells when the first hint arrives, takes none, and waits to be killed.
pub async fn first(dir: &Path) -> Outcome<()> {
    let receiver = Receiver::holding();
    let opened = Instant::now();
    let _handoff = open_up(dir, &receiver).await?;
    let first = receiver.first().await - opened;
    tell("first_us", &[first.as_micros() as u64])?;
    pending().await
}

/// Child: drains, and checks that all is there.
pub async fn drain(dir: &Path, count: u64, payload_bytes: u64) -> Outcome<()> {
    let receiver = Receiver::new(count, 1);
    let opened = Instant::now();
    let handoff = open_up(dir, &receiver).await?;
    let first = receiver.first().await - opened;
    tell("first_us", &[first.as_micros() as u64])?;
    let all = receiver.all(payload_bytes).await? - opened;
    settle(&handoff).await?;
    tell("drained_us", &[all.as_micros() as u64])?;
    Ok(handoff.shutdown().await?)
}
