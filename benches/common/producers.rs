//! Producers: tasks that each append one entry, wait until it is durable, and only then append the
//! next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Outcome, entries::Entries};

/// Where entries go.
pub trait Target: Clone + Send + Sync + 'static {
    /// Returns once `entry` is durable.
    fn append(&self, entry: Bytes) -> impl Future<Output = Outcome<()>> + Send;

    /// What the producer of this number, from 0 on, appends to.
    fn of_producer(&self, _number: u64) -> Self {
        self.clone()
    }
}

/// When producers stop.
#[derive(Clone, Copy)]
pub enum Until {
    Elapsed(Duration),
    Entries(u64),
}

/// What they got done.
#[derive(Clone, Copy, Default)]
pub struct Done {
    pub entries: u64,
    pub bytes: u64,
    pub elapsed: Duration,
}

impl Done {
    pub fn per_second(&self) -> f64 {
        self.entries as f64 / self.elapsed.as_secs_f64()
    }
}

pub async fn produce<T: Target>(
    target: &T,
    entries: &Arc<Entries>,
    producers: usize,
    until: Until,
) -> Outcome<Done> {
    let begun = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..producers {
        let target = target.of_producer(number as u64);
        let (entries, begun) = (Arc::clone(entries), Arc::clone(&begun));
        tasks.spawn(async move {
            let mut done = Done::default();
            while match until {
                Until::Elapsed(limit) => started.elapsed() < limit,
                Until::Entries(count) => begun.fetch_add(1, Relaxed) < count,
            } {
                let entry = entries.next();
                done.bytes += entry.len() as u64;
                target.append(entry).await?;
                done.entries += 1;
            }
            Outcome::Ok(done)
        });
    }
    let mut all = Done::default();
    while let Some(ended) = tasks.join_next().await {
        let one = ended??;
        all.entries += one.entries;
        all.bytes += one.bytes;
    }
    all.elapsed = started.elapsed();
    Ok(all)
}
