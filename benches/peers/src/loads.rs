//! The loads, one round of one subject each: entries a second.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    common::{
        Outcome,
        entries::Entries,
        machine::{Place, drop_cache},
        ours,
        producers::Until,
        raw::{Reader, write_log},
        receiver::Receiver,
        rounds::{our_round, raw_round},
        runtime,
    },
    peer::{drain, produce, produce_and_drain},
    subjects::{Kind, Subject},
};

const ROUND: Duration = Duration::from_millis(700);
/// A slow drain is ended after this, and judged by what it came to.
const DRAIN_LIMIT: Duration = Duration::from_millis(1000);

#[derive(Clone, Copy)]
pub enum Load {
    /// So many producers.
    Append(usize),
    /// The same while a consumer takes away what it finds.
    Draining(usize),
    /// A backlog of which nothing is cached is taken away, from the call of open on.
    Drain,
}

/// What a round came to.
pub struct Rates {
    pub rate: f64,
    /// Entries that the consumer took a second meanwhile, where there is one.
    pub delivered: Option<f64>,
}

pub struct Bench {
    pub place: Place,
    pub scale: f64,
    pub entries: Arc<Entries>,
    /// Entries of a backlog.
    pub backlog: u64,
}

impl Bench {
    pub fn round(&self, subject: &Subject, load: Load) -> Outcome<Rates> {
        let (producers, drains) = match load {
            Load::Append(producers) => (producers, false),
            Load::Draining(producers) => (producers, true),
            Load::Drain => return self.drain(subject),
        };
        let until = Until::Elapsed(ROUND.mul_f64(self.scale));
        let (place, entries) = (&self.place, &self.entries);
        let round = match &subject.kind {
            Kind::Raw => {
                runtime()?.block_on(raw_round(place, entries, producers, until, drains))?
            }
            Kind::Ours => {
                runtime()?.block_on(our_round(place, entries, producers, until, 1, drains))?
            }
            Kind::Peer(open) => {
                let dir = place.fresh_dir()?;
                let peer = open(&dir.path().join("queue"))?;
                if drains {
                    let (done, delivered) = produce_and_drain(&*peer, entries, producers, until)?;
                    return Ok(Rates {
                        rate: done.per_second(),
                        delivered: Some(delivered),
                    });
                }
                let done = produce(&*peer, entries, producers, until)?;
                return Ok(Rates {
                    rate: done.per_second(),
                    delivered: None,
                });
            }
        };
        Ok(Rates {
            rate: round.done.per_second(),
            delivered: round.delivered,
        })
    }

    fn drain(&self, subject: &Subject) -> Outcome<Rates> {
        let dir = self.place.fresh_dir()?;
        let rate = match &subject.kind {
            Kind::Raw => self.drain_raw(dir.path())?,
            Kind::Ours => runtime()?.block_on(self.drain_ours(&dir.path().join("store")))?,
            Kind::Peer(open) => {
                let dir = dir.path().join("queue");
                let bytes = open(&dir)?.fill(&self.entries, self.backlog)?;
                drop_cache(&dir)?;
                let started = Instant::now();
                let peer = open(&dir)?;
                let limit = DRAIN_LIMIT.mul_f64(self.scale);
                let taken = drain(&*peer, self.backlog, bytes, limit)?;
                taken as f64 / started.elapsed().as_secs_f64()
            }
        };
        Ok(Rates {
            rate,
            delivered: None,
        })
    }

    fn drain_raw(&self, dir: &Path) -> Outcome<f64> {
        let bytes = write_log(dir, &self.entries, self.backlog)?;
        drop_cache(dir)?;
        let started = Instant::now();
        let mut reader = Reader::open(dir)?;
        reader.read_all()?;
        let elapsed = started.elapsed();
        if (reader.entries, reader.bytes) != (self.backlog, bytes) {
            return Err("LOST: the raw reader has not seen all".into());
        }
        Ok(self.backlog as f64 / elapsed.as_secs_f64())
    }

    async fn drain_ours(&self, dir: &Path) -> Outcome<f64> {
        let (done, _) = ours::fill(dir, &self.entries, 64, self.backlog).await?;
        drop_cache(dir)?;
        let receiver = Receiver::new(self.backlog, 1);
        let started = Instant::now();
        let handoff = ours::open_up(dir, &receiver).await?;
        let elapsed = receiver.all(done.bytes).await? - started;
        ours::settle(&handoff).await?;
        handoff.shutdown().await?;
        Ok(self.backlog as f64 / elapsed.as_secs_f64())
    }
}
