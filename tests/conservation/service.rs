//! A random story of a service: what its host does with it, and what the nodes do meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hinted_handoff::{LossReason, Pause, internals::WallClock};
use tempfile::TempDir;
use tokio::time::{Instant, advance};

use crate::{
    Counts,
    audit::{NODES, Step},
    barriers::Marked,
    common::frozen::{Frozen, freeze},
    ledger::{Entry, Ledger, Whereabouts},
    life::{Handoff, Life, config},
    operating::Waiting,
    receiver::{Mood, Nodes},
};

const START: u64 = 1_700_000_000_000;

/// What a hint went through, beside where it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Course {
    /// When the step began in which it was enqueued, by the wall clock.
    pub stamp: u64,
    pub taken: bool,
    /// Its node gets it again: the answer was lost, or an unclean stop undid it.
    pub again: bool,
}

pub struct ServiceStory {
    pub random: fastrand::Rng,
    pub dir: TempDir,
    pub life: Life,
    /// The life that ended in this step.
    pub ended: Option<Life>,
    pub nodes: Arc<Nodes>,
    pub clock: WallClock,
    pub ledger: Ledger,
    pub courses: BTreeMap<u64, Course>,
    pub barriers: Vec<Marked>,
    /// Hints of this step whose ids nobody was told, nor perhaps whether they are stored.
    pub unknown: BTreeMap<u64, Entry>,
    /// How many of these are stored, where that is known.
    pub stored: Option<usize>,
    /// Copies so far that could be neither sent nor stored.
    pub unstored: usize,
    pub losses_seen: u64,
    pub paused: BTreeMap<u64, Pause>,
    pub paused_all: Option<Pause>,
    /// Nodes that are not in the cluster, and since when, where they were parked in this life.
    pub parked: BTreeMap<u64, Option<Instant>>,
    /// Nodes that something waits for and that are not held.
    pub waiting: BTreeMap<u64, Waiting>,
    /// Calls of nodes that were held when the step before ended.
    pub calls_held: BTreeMap<u64, u64>,
    pub next: u64,
    /// When this step began, by the wall clock.
    began_unix_ms: u64,
    counts: Counts,
    _frozen: Frozen,
}

impl ServiceStory {
    pub async fn begin(seed: u64) -> ServiceStory {
        let frozen = freeze();
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let (nodes, clock) = (Nodes::new(seed), WallClock::new(START));
        let life = Life::begin(config(dir.path(), &mut random), &clock, &nodes).await;
        ServiceStory {
            random,
            dir,
            life,
            ended: None,
            nodes,
            clock,
            ledger: Ledger::default(),
            courses: BTreeMap::new(),
            barriers: Vec::new(),
            unknown: BTreeMap::new(),
            stored: None,
            unstored: 0,
            losses_seen: 0,
            paused: BTreeMap::new(),
            paused_all: None,
            parked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls_held: BTreeMap::new(),
            next: 1,
            began_unix_ms: START,
            counts: Counts::new(),
            _frozen: frozen,
        }
    }

    pub async fn step(&mut self) {
        let node = NODES[self.random.usize(..NODES.len())];
        self.began_unix_ms = self.clock.unix_ms();
        let step = match self.random.u32(..100) {
            0..26 => self.write(node).await,
            26..33 => self.write_points().await,
            33..51 => self.let_time_pass().await,
            51..58 => self.change_mood(node),
            58..62 => self.redrive(node).await,
            62..64 => self.discard(node).await,
            64..68 => self.mark_barrier(node).await,
            68..72 => self.drain(node).await,
            72..78 => self.pause_or_resume(node).await,
            78..82 => self.rename(node).await,
            82..87 => self.retain().await,
            87..91 => self.remove(node).await,
            91..94 => self.reopen().await,
            94..97 => self.crash().await,
            _ => self.fail(node).await,
        };
        self.audit(step).await;
    }

    /// What it came to.
    pub async fn end(mut self) -> Counts {
        let step = self.reopen().await;
        self.audit(step).await;
        self.life.shut_down(&self.nodes).await;
        self.count("hints", self.ledger.hints.len());
        for entry in self.ledger.hints.values() {
            let what = match entry.at {
                Whereabouts::Pending => "pending at the end",
                Whereabouts::Delivered => "delivered",
                Whereabouts::Withdrawn => "withdrawn",
                Whereabouts::Dead => "dead at the end",
                Whereabouts::Journalled(LossReason::Expired) => "expired",
                Whereabouts::Journalled(LossReason::Quota) => "dropped",
                Whereabouts::Journalled(LossReason::Purged) => "purged",
                Whereabouts::Journalled(LossReason::DeadLetterQuota) => "evicted",
                Whereabouts::Journalled(LossReason::Obsolete) => "obsolete",
                Whereabouts::Journalled(_) => "discarded",
            };
            *self.counts.entry(what).or_default() += 1;
        }
        self.counts
            .extend(self.nodes.seen(|seen| seen.answers.clone()));
        self.counts
    }

    pub fn count(&mut self, what: &'static str, count: usize) {
        *self.counts.entry(what).or_default() += count as u64;
    }

    pub fn handoff(&self) -> Handoff {
        self.life.handoff.clone()
    }

    /// Those of this step.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.ended.iter().chain([&self.life])
    }

    /// A hint that is stored.
    pub fn enter(&mut self, number: u64, entry: Entry) {
        let course = Course {
            stamp: self.began_unix_ms,
            ..Course::default()
        };
        self.courses.insert(number, course);
        self.ledger.hints.insert(number, entry);
    }

    async fn let_time_pass(&mut self) -> Step {
        let (steps, of) = match self.random.u32(..10) {
            0..4 => (self.random.u32(1..8), Duration::from_secs(1)),
            4..7 => (self.random.u32(2..8), Duration::from_secs(15)),
            _ => (self.random.u32(3..10), Duration::from_secs(90)),
        };
        for _ in 0..steps {
            advance(of).await;
            self.life.settle(&self.nodes).await;
        }
        self.count("minutes", (of * steps).as_secs() as usize / 60);
        Step::default()
    }

    fn change_mood(&mut self, node: u64) -> Step {
        let moods = [Mood::Well, Mood::Moody, Mood::Moody, Mood::Down];
        let mood = moods[self.random.usize(..moods.len())];
        self.nodes.set(node, mood);
        Step::default()
    }
}

/// Those of a set that are drawn.
pub fn some_of(random: &mut fastrand::Rng, from: &[u64]) -> BTreeSet<u64> {
    let from = from.iter().copied();
    from.filter(|_| random.u32(..3) > 0).collect()
}
