//! What is remembered of the last hour, for the page: samples of the backlog, and the last events.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hinted_handoff::{Event, HintedHandoff, NodeId, Payload, Stats, WeakHandoff};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    disk::{Filling, filling, room},
    form::now_unix_ms,
    summary::plus,
};

/// How far samples are apart.
pub const EVERY: Duration = Duration::from_secs(10);
/// An hour of them.
const SAMPLES: usize = 361;
/// Events that are remembered.
const EVENTS: usize = 50;

/// The store at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    /// Pending hints.
    pub pending: u64,
    /// Delivered since open.
    delivered: u64,
    /// Hints delivered a second, since the sample before.
    pub rate: f64,
    /// Bytes of the disk until nothing is accepted, as far as that is known.
    room: Option<u64>,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Told {
    Event(Event),
    /// So many came faster than they could be remembered.
    Missed(u64),
}

#[derive(Debug, Default)]
struct Seen {
    samples: VecDeque<Sample>,
    /// The newest first, with the wall clock.
    told: VecDeque<(u64, Told)>,
    /// Nodes that were said to have trouble, and not yet to be well.
    in_trouble: BTreeSet<NodeId>,
    /// How often it was told that hints were lost, or may have been.
    losses_told: u64,
    /// The task came to its end as it should.
    is_over: bool,
}

/// The memory, and the task that fills it.
#[derive(Debug)]
pub struct Watch {
    /// Guards what was seen, for a copy or a sample.
    seen: Arc<Mutex<Seen>>,
    task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Begins to watch. The task ends with the service, with `stop`, or when this is dropped.
    pub fn begin<P: Payload>(
        handoff: &HintedHandoff<P>,
        runtime: &Handle,
        stop: CancellationToken,
    ) -> Watch {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let events = handoff.events();
        let task = watch(handoff.downgrade(), events, Arc::clone(&seen), stop);
        Watch {
            seen,
            task: AbortOnDropHandle::new(runtime.spawn(task)),
        }
    }

    /// The samples of the last hour, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.seen.lock().samples.iter().copied().collect()
    }

    /// Whether the disk fills, by the samples of the last minutes.
    pub fn filling(&self) -> Filling {
        let seen = self.seen.lock();
        let known = seen.samples.iter().filter_map(|it| Some((it.at, it.room?)));
        let known: Vec<(Instant, u64)> = known.collect();
        drop(seen);
        filling(&known, Instant::now())
    }

    /// As if these samples had been taken, of room on the disk at moments.
    #[cfg(test)]
    pub fn pretend(&self, room: &[(Instant, u64)]) {
        let samples = room.iter().map(|(at, bytes)| Sample {
            at: *at,
            pending: 0,
            delivered: 0,
            rate: 0.0,
            room: Some(*bytes),
        });
        self.seen.lock().samples = samples.collect();
    }

    /// The last events, the newest first, each with when it was told, in milliseconds since 1970.
    pub fn told(&self) -> Vec<(u64, Told)> {
        self.seen.lock().told.iter().cloned().collect()
    }

    /// How often it was told that hints were lost, or may have been. While that stays the same, so
    /// does the loss journal.
    pub fn losses_told(&self) -> u64 {
        self.seen.lock().losses_told
    }

    /// Whether the task ended before its time.
    pub fn has_failed(&self) -> bool {
        self.task.is_finished() && !self.is_over()
    }

    /// Whether the task came to its end as it should.
    pub fn is_over(&self) -> bool {
        self.seen.lock().is_over
    }
}

async fn watch<P: Payload>(
    handoff: WeakHandoff<P>,
    mut events: Receiver<Event>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => match handoff.upgrade() {
                Some(handoff) => {
                    let stats = handoff.stats();
                    let room = room(&stats.store, handoff.config().max_disk_bytes);
                    seen.lock().sample(&stats, room, Instant::now());
                }
                None => break,
            },
            told = events.recv() => match told {
                Ok(event) => seen.lock().tell(event, now_unix_ms()),
                Err(RecvError::Lagged(missed)) => seen.lock().miss(missed, now_unix_ms()),
                Err(RecvError::Closed) => break,
            },
        }
    }
    seen.lock().is_over = true;
}

/// Whether one is the same again.
fn is_more_of(told: &Told, before: &Told) -> bool {
    match (told, before) {
        (Told::Event(Event::Lost(a)), Told::Event(Event::Lost(b))) => {
            (a.node, a.reason) == (b.node, b.reason)
        }
        (
            Told::Event(Event::NotStored { node: a, .. }),
            Told::Event(Event::NotStored { node: b, .. }),
        ) => a == b,
        (Told::Missed(_), Told::Missed(_)) => true,
        _ => false,
    }
}

fn join(told: &mut Told, before: &Told) {
    match (told, before) {
        (Told::Event(Event::Lost(a)), Told::Event(Event::Lost(b))) => {
            a.amount = plus(a.amount, b.amount);
        }
        (
            Told::Event(Event::NotStored { copies: a, .. }),
            Told::Event(Event::NotStored { copies: b, .. }),
        ) => *a = plus(*a, *b),
        (Told::Missed(a), Told::Missed(b)) => *a = a.saturating_add(*b),
        _ => {}
    }
}

impl Seen {
    fn sample(&mut self, stats: &Stats, room: Option<u64>, at: Instant) {
        let delivered = stats.nodes.iter().map(|it| it.delivered.hints).sum();
        let rate = self.samples.back().map_or(0.0, |before: &Sample| {
            let seconds = at.duration_since(before.at).as_secs_f64();
            // A node that was removed takes its count with it.
            let more = u64::saturating_sub(delivered, before.delivered) as f64;
            if seconds > 0.0 { more / seconds } else { 0.0 }
        });
        self.samples.push_back(Sample {
            at,
            pending: stats.store.pending.hints,
            delivered,
            rate,
            room,
        });
        while self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    fn tell(&mut self, event: Event, unix_ms: u64) {
        match &event {
            // A node that is well goes to and fro with every hint.
            Event::Replaying { .. } => return,
            Event::CaughtUp { node, .. } if !self.in_trouble.remove(node) => return,
            Event::NodeDown { node, .. } | Event::NodeFailing { node, .. } => {
                self.in_trouble.insert(*node);
            }
            Event::Lost(_) | Event::NotStored { .. } => self.losses_told += 1,
            _ => {}
        }
        self.remember(Told::Event(event), unix_ms);
    }

    fn miss(&mut self, missed: u64, unix_ms: u64) {
        self.losses_told += 1;
        self.remember(Told::Missed(missed), unix_ms);
    }

    fn remember(&mut self, mut told: Told, unix_ms: u64) {
        // Losses come by the thousand: those of a node for one reason are told together.
        let before = self
            .told
            .iter()
            .position(|(_, before)| is_more_of(&told, before));
        if let Some((_, before)) = before.and_then(|at| self.told.remove(at)) {
            join(&mut told, &before);
        }
        self.told.push_front((unix_ms, told));
        self.told.truncate(EVENTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the library tells it, which alone can make one.
    fn missed(missed: u64) -> Told {
        Told::Missed(missed)
    }

    #[test]
    fn what_came_too_fast_is_told_once_with_its_sum() {
        let mut seen = Seen::default();
        seen.miss(3, 1);
        seen.tell(Event::Reopened, 2);
        seen.miss(4, 3);
        let told: Vec<_> = seen
            .told
            .iter()
            .map(|(at, told)| (*at, format!("{told:?}")))
            .collect();
        let expected = [
            (3, format!("{:?}", missed(7))),
            (2, "Event(Reopened)".to_owned()),
        ];
        assert_eq!(told, expected);
        for at in 0..1_000 {
            seen.tell(Event::Reopened, at);
        }
        assert_eq!(seen.told.len(), EVENTS);
    }
}
