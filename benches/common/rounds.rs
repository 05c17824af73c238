//! One round of durable appends, in fresh files: to the raw file, and to ours.

use std::{sync::Arc, time::Instant};

use super::{
    Outcome,
    entries::Entries,
    machine::{Place, written_bytes},
    ours::{Appender, check_pending, open_down, open_up, settle},
    producers::{Done, Until, produce},
    raw::Log,
    receiver::Receiver,
};

pub struct Round {
    pub done: Done,
    /// Bytes sent to the disk for each byte of payload.
    pub written: Option<f64>,
    /// Bytes handed to sled for each byte of payload, where it is the store.
    pub handed: Option<f64>,
    pub entries_a_group: Option<f64>,
    /// Entries a second until the last one was delivered, where they were.
    pub delivered: Option<f64>,
}

/// Appends to a raw file, which a thread reads along if `drains`.
pub async fn raw_round(
    place: &Place,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
    drains: bool,
) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let log = Log::create(dir.path())?;
    let reading = match drains {
        true => Some(log.read_along(dir.path())?),
        false => None,
    };
    let (before, started) = (written_bytes(), Instant::now());
    let done = produce(&log.writer(), entries, producers, until).await?;
    let written = written_since(before, &done);
    log.close()?;
    let mut delivered = None;
    if let Some(reading) = reading {
        let reader = reading.join().map_err(|_| "the raw reader panicked")??;
        delivered = Some(done.entries as f64 / started.elapsed().as_secs_f64());
        if (reader.entries, reader.bytes) != (done.entries, done.bytes) {
            return Err("LOST: the raw reader has not seen all".into());
        }
    }
    Ok(Round {
        done,
        written,
        handed: None,
        entries_a_group: None,
        delivered,
    })
}

/// Appends to a store of ours: for `nodes` that are down, in turn, or, if `drains`, that answer at
/// once.
pub async fn our_round(
    place: &Place,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
    nodes: u64,
    drains: bool,
) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let path = dir.path().join("store");
    let receiver = Receiver::unending();
    let handoff = match drains {
        true => open_up(&path, &receiver).await?,
        false => open_down(&path).await?,
    };
    let (before, started) = (written_bytes(), Instant::now());
    let target = Appender::new(&handoff, nodes);
    let done = produce(&target, entries, producers, until).await?;
    let written = written_since(before, &done);
    let (stats, mut delivered) = (handoff.stats().store, None);
    if drains {
        receiver.expect(done.entries);
        let all = receiver.all(done.bytes).await?;
        delivered = Some(done.entries as f64 / (all - started).as_secs_f64());
        settle(&handoff).await?;
    } else {
        check_pending(&handoff, &done)?;
    }
    handoff.shutdown().await?;
    Ok(Round {
        done,
        written,
        handed: Some(stats.engine_bytes as f64 / done.bytes as f64),
        entries_a_group: Some(done.entries as f64 / stats.groups as f64),
        delivered,
    })
}

fn written_since(before: Option<u64>, done: &Done) -> Option<f64> {
    Some((written_bytes()? - before?) as f64 / done.bytes as f64)
}
