//! What every other queue here must do, with calls that block their thread.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Outcome,
    entries::Entries,
    producers::{Done, Until},
};

/// Entries that a consumer takes at a time, where the crate can: as often the raw file's reader
/// fsyncs its cursor.
pub const TAKEN_AT_A_TIME: usize = 64;
/// How long a consumer sleeps that has found nothing.
const IDLE: Duration = Duration::from_micros(100);

pub trait Peer: Send + Sync {
    /// Returns when the crate says that the entry is safe.
    fn append(&self, entry: &[u8]) -> Outcome<()>;

    /// Takes away up to 64 of the oldest entries, as durably as the crate does. None if nothing is
    /// there now.
    fn take(&self) -> Outcome<Taken>;

    /// Appends a backlog, by the fastest way that the crate has.
    fn fill(&self, entries: &Arc<Entries>, count: u64) -> Outcome<u64>;
}

#[derive(Clone, Copy, Default)]
pub struct Taken {
    pub entries: u64,
    pub bytes: u64,
}

impl Taken {
    pub fn note(&mut self, entry: &[u8]) {
        self.entries += 1;
        self.bytes += entry.len() as u64;
    }
}

/// Producers on a thread each, which append one entry after the other.
pub fn produce(
    peer: &dyn Peer,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
) -> Outcome<Done> {
    let begun = AtomicU64::new(0);
    let started = Instant::now();
    let one = || {
        let mut done = Done::default();
        while match until {
            Until::Elapsed(limit) => started.elapsed() < limit,
            Until::Entries(count) => begun.fetch_add(1, Relaxed) < count,
        } {
            let entry = entries.next();
            peer.append(&entry)?;
            done.entries += 1;
            done.bytes += entry.len() as u64;
        }
        Outcome::Ok(done)
    };
    let mut all = Done::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..producers).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            let one = thread.join().map_err(|_| "a producer panicked")??;
            all.entries += one.entries;
            all.bytes += one.bytes;
        }
        Outcome::Ok(())
    })?;
    all.elapsed = started.elapsed();
    Ok(all)
}

/// The same while a consumer takes away what it finds. Also returns how many it took a second.
pub fn produce_and_drain(
    peer: &dyn Peer,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
) -> Outcome<(Done, f64)> {
    let is_over = AtomicBool::new(false);
    let consume = || {
        let mut all = Taken::default();
        while !is_over.load(Relaxed) {
            let taken = peer.take()?;
            all.entries += taken.entries;
            all.bytes += taken.bytes;
            if taken.entries == 0 {
                thread::sleep(IDLE);
            }
        }
        Outcome::Ok(all)
    };
    thread::scope(|scope| {
        let consumer = scope.spawn(consume);
        let done = produce(peer, entries, producers, until);
        is_over.store(true, Relaxed);
        let taken = consumer.join().map_err(|_| "a consumer panicked")??;
        let done = done?;
        if taken.entries > done.entries || taken.bytes > done.bytes {
            return Err("more was delivered than appended".into());
        }
        Ok((done, taken.entries as f64 / done.elapsed.as_secs_f64()))
    })
}

/// Takes away `count` entries of `bytes`, or as many as it comes to within `limit`. Returns how
/// many.
pub fn drain(peer: &dyn Peer, count: u64, bytes: u64, limit: Duration) -> Outcome<u64> {
    let started = Instant::now();
    let mut all = Taken::default();
    while all.entries < count && started.elapsed() < limit {
        let taken = peer.take()?;
        if taken.entries == 0 {
            return Err(format!("LOST: {} of {count} entries came, then none", all.entries).into());
        }
        all.entries += taken.entries;
        all.bytes += taken.bytes;
    }
    if all.entries == count && all.bytes != bytes {
        return Err(format!("LOST: {} of {bytes} bytes came", all.bytes).into());
    }
    Ok(all.entries)
}
