//! A thousand nodes with a backlog each: how long an open takes, and how many threads there are.

use std::{
    future::pending,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    Settings,
    child::{Running, tell},
    common::{
        Outcome,
        entries::Entries,
        machine::{Place, threads},
        ours::{Appender, check_pending, open_down, open_up, settle},
        producers::{Until, produce},
        receiver::Receiver,
        report::{Table, thousands},
    },
};

const NODES: f64 = 1000.0;
const HINTS_A_NODE: u64 = 20;

pub fn run(settings: &Settings, place: &Place) -> Outcome<()> {
    let nodes = (NODES * settings.scale).max(1.0) as u64;
    let mut table = Table::new(&[
        "stopped by",
        "open s (goal 5)",
        "every node had its first hint, s",
        "all drained, s",
        "threads before",
        "threads at most",
    ]);
    for (name, is_killed) in [("a shutdown", false), ("SIGKILL", true)] {
        let temporary = place.fresh_dir()?;
        let dir = temporary.path().join("store");
        let mut filling = Running::start("nodes-fill", &dir, &[nodes, u64::from(is_killed)])?;
        let payload_bytes = filling.figure("payload_bytes")?;
        match is_killed {
            true => filling.kill()?,
            false => filling.end()?,
        }
        let mut opening = Running::start("nodes-drain", &dir, &[nodes, payload_bytes])?;
        let times = opening.fact("times_us")?;
        let counted = opening.fact("threads")?;
        opening.end()?;
        let seconds = times.iter().map(|us| format!("{:.3}", *us as f64 / 1e6));
        let counted = counted.iter().map(u64::to_string);
        table.row([name.to_owned()].into_iter().chain(seconds).chain(counted));
    }
    table.print(&format!(
        "{} nodes with {HINTS_A_NODE} hints each",
        thousands(nodes as f64)
    ));
    Ok(())
}

/// Child: fills, tells, and ends as it is told.
pub async fn fill(dir: &Path, entries: &Arc<Entries>, nodes: u64, is_killed: bool) -> Outcome<()> {
    let handoff = open_down(dir).await?;
    let target = Appender::new(&handoff, nodes);
    let done = produce(&target, entries, 64, Until::Entries(nodes * HINTS_A_NODE)).await?;
    check_pending(&handoff, &done)?;
    if is_killed {
        tell("payload_bytes", &[done.bytes])?;
        return pending().await;
    }
    handoff.shutdown().await?;
    tell("payload_bytes", &[done.bytes])
}

/// Child: opens and drains, and counts the threads of the process meanwhile.
pub async fn drain(dir: &Path, nodes: u64, payload_bytes: u64) -> Outcome<()> {
    let before = threads().unwrap_or_default();
    let most = Arc::new(AtomicU64::new(before));
    let counting = tokio::spawn({
        let most = Arc::clone(&most);
        async move {
            loop {
                most.fetch_max(threads().unwrap_or_default(), Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let receiver = Receiver::new(nodes * HINTS_A_NODE, nodes as usize);
    let started = Instant::now();
    let handoff = open_up(dir, &receiver).await?;
    let opened = started.elapsed();
    let all_nodes = receiver.all_nodes().await - started;
    let all = receiver.all(payload_bytes).await? - started;
    settle(&handoff).await?;
    counting.abort();
    let times = [opened, all_nodes, all].map(|time| time.as_micros() as u64);
    tell("times_us", &times)?;
    tell("threads", &[before, most.load(Relaxed)])?;
    Ok(handoff.shutdown().await?)
}
