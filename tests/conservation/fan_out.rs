//! A random story of a fan-out: writes to several owners that take, refuse, fail, hang and answer
//! late, below limits, with clean ends and crashes in between. After every step each copy of a
//! write is in exactly one place: at its owner, pending, a dead letter, in the journal, or
//! withdrawn since every owner refused the write; and the hints of each node add up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    AnswerWhen, Config,
    ConsistencyLevel::{All, Any, One, Quorum},
    LossReason, NodeId, NodeStats, PointsWriteError, PointsWriter, Shard, ShardId,
    internals::{CommitFault, WallClock},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::advance;

use crate::{
    Counts,
    common::{
        copy::copy_of,
        frozen::{Frozen, freeze},
    },
    ledger::{number, number_of, pending},
    life::{Life, breathe, config},
    receiver::{Mood, Nodes},
};

const NODES: [u64; 3] = [1, 2, 3];
const START: u64 = 1_700_000_000_000;
/// By then the fate of every copy is known: a send and the wait for one that is aborted.
const ALL_BY: Duration = Duration::from_secs(12);

/// How a write was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Success,
    Refused,
    /// Its level was not reached, or a copy was not stored. All copies go on all the same.
    Error,
}

struct Write {
    shard: u64,
    owners: Vec<u64>,
    /// The process died before it was answered, or its copies may be missing: nothing is promised.
    is_forgotten: bool,
}

/// Where copies are, by node and number; what was lost, by node and shard.
#[derive(Default)]
struct Found {
    pending: BTreeSet<(u64, u64)>,
    dead: BTreeSet<(u64, u64)>,
    lost: BTreeMap<(u64, u64), u64>,
}

pub struct FanOutStory {
    random: fastrand::Rng,
    dir: TempDir,
    life: Life,
    nodes: Arc<Nodes>,
    clock: WallClock,
    writes: BTreeMap<u64, Write>,
    answers: Arc<Mutex<BTreeMap<u64, Answer>>>,
    next: u64,
    /// Hints that were pending of each node when this life began.
    found_at_open: BTreeMap<u64, i64>,
    counts: Counts,
    _frozen: Frozen,
}

fn fan_out(dir: &std::path::Path, random: &mut fastrand::Rng) -> Config {
    let hint_after = [0, 100, 100, 3_000][random.usize(..4)];
    Config {
        answer: [AnswerWhen::Accounted, AnswerWhen::Level][random.usize(..2)],
        hint_after: Duration::from_millis(hint_after),
        max_outstanding: [1, 1024][random.usize(..2)],
        fail_early: random.bool(),
        max_age: Duration::ZERO,
        ..config(dir, random)
    }
}

/// How many hints there must have been when the store was opened, for those of now to add up.
fn found_at_open(node: &NodeStats) -> i64 {
    let there = [
        node.delivered,
        node.lost,
        node.dead_lettered,
        node.withdrawn,
        node.pending,
    ];
    let there: u64 = there.iter().map(|it| it.hints).sum();
    there as i64 - node.enqueued.hints as i64
}

impl FanOutStory {
    pub async fn begin(seed: u64) -> FanOutStory {
        let frozen = freeze();
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let (nodes, clock) = (Nodes::new(seed), WallClock::new(START));
        let life = Life::begin(fan_out(dir.path(), &mut random), &clock, &nodes).await;
        FanOutStory {
            random,
            dir,
            life,
            nodes,
            clock,
            writes: BTreeMap::new(),
            answers: Arc::default(),
            next: 1,
            found_at_open: BTreeMap::new(),
            counts: Counts::new(),
            _frozen: frozen,
        }
    }

    pub async fn step(&mut self) {
        match self.random.u32(..100) {
            0..55 => self.write().await,
            55..70 => {
                let moods = [Mood::Well, Mood::Moody, Mood::Moody, Mood::Down];
                let mood = moods[self.random.usize(..moods.len())];
                self.nodes.set(NODES[self.random.usize(..3)], mood);
            }
            70..85 => {
                let seconds = self.random.u64(1..20);
                self.pass(Duration::from_secs(seconds)).await;
            }
            85..93 => {
                self.life.shut_down(&self.nodes).await;
                self.begin_anew().await;
                self.count("reopened", 1);
            }
            _ => self.crash().await,
        }
        self.audit().await;
    }

    pub async fn end(mut self) -> Counts {
        NODES
            .iter()
            .for_each(|node| self.nodes.set(*node, Mood::Well));
        self.pass(Duration::from_secs(60)).await;
        self.audit().await;
        self.life.shut_down(&self.nodes).await;
        self.counts
    }

    fn count(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    async fn pass(&mut self, time: Duration) {
        // Sends of replay take turns: each may take its time.
        for _ in 0..6 {
            advance(time / 6).await;
            self.life.settle(&self.nodes).await;
        }
    }

    /// Begins some writes at once, most of them to shards that have no other, so that the journal
    /// tells which they were.
    fn begin_writes(&mut self) {
        let writer = PointsWriter::new(self.life.handoff.clone(), Arc::clone(&self.life.receiver));
        for _ in 0..self.random.usize(1..6) {
            let number = self.next;
            self.next += 1;
            let shard = match self.random.u32(..4) {
                0 => self.random.u64(1..4),
                _ => 100 + number,
            };
            let first = self.random.usize(..3);
            let owners = NODES
                .iter()
                .cycle()
                .skip(first)
                .take(self.random.usize(1..4));
            let owners: Vec<u64> = owners.copied().collect();
            let level = [Any, One, Quorum, All][self.random.usize(..4)];
            let mut points = number.to_be_bytes().to_vec();
            points.resize(8 + self.random.usize(..250), number as u8);
            let (writer, answers) = (writer.clone(), Arc::clone(&self.answers));
            let (id, nodes) = (ShardId(shard), owners.iter().copied().map(NodeId).collect());
            tokio::spawn(async move {
                let shard = Shard { id, owners: nodes };
                let answer = match writer.write(&shard, level, Bytes::from(points)).await {
                    Ok(_) => Answer::Success,
                    Err(PointsWriteError::Refused(_)) => Answer::Refused,
                    Err(_) => Answer::Error,
                };
                answers.lock().insert(number, answer);
            });
            let write = Write {
                shard,
                owners,
                is_forgotten: false,
            };
            self.writes.insert(number, write);
            self.count("writes", 1);
        }
    }

    async fn write(&mut self) {
        self.begin_writes();
        for (times, time) in [(3, Duration::from_millis(200)), (4, ALL_BY / 4)] {
            for _ in 0..times {
                self.life.settle(&self.nodes).await;
                self.check_answered().await;
                advance(time).await;
            }
        }
        self.life.settle(&self.nodes).await;
    }

    async fn begin_anew(&mut self) {
        let config = fan_out(self.dir.path(), &mut self.random);
        self.life = Life::begin(config, &self.clock, &self.nodes).await;
        let nodes = self.life.handoff.stats().nodes.into_iter();
        self.found_at_open = nodes.map(|it| (it.node.0, found_at_open(&it))).collect();
    }

    /// What a crash leaves. The disk hangs before, while writes are under way, and some are
    /// answered.
    async fn crash(&mut self) {
        let first = self.next;
        self.begin_writes();
        for _ in 0..self.random.u32(..4) {
            advance(Duration::from_millis(self.random.u64(1..150))).await;
            self.life.settle(&self.nodes).await;
        }
        self.life.handoff.inject(CommitFault::Hang);
        self.begin_writes();
        for _ in 0..self.random.u32(..4) {
            advance(Duration::from_millis(self.random.u64(1..700))).await;
            for _ in 0..5 {
                breathe().await;
                tokio::task::spawn_blocking(|| {}).await.unwrap();
            }
        }
        self.life.receiver.cut();
        let answered = self.answers.lock().clone();
        let copy = copy_of(self.dir.path());
        self.life.handoff.disk_works_again();
        self.life.shut_down(&self.nodes).await;
        // Nobody heard what was answered later.
        *self.answers.lock() = answered;
        let is_accounted = self.life.config.answer == AnswerWhen::Accounted;
        for (number, write) in self.writes.range_mut(first..) {
            let answer = self.answers.lock().get(number).copied();
            let is_promised = answer == Some(Answer::Success) && is_accounted;
            write.is_forgotten = !is_promised;
        }
        self.dir = copy;
        self.begin_anew().await;
        for node in NODES {
            for hint in pending(&self.life.store(), node) {
                self.nodes.comes_again((node, number(&hint)));
            }
        }
        self.count("crashed", 1);
    }

    async fn find(&self) -> Found {
        self.life.sync().await.unwrap();
        let (store, mut found) = (self.life.store(), Found::default());
        for node in NODES {
            for hint in pending(&store, node) {
                found.pending.insert((node, number(&hint)));
            }
            let letters = store.letters(NodeId(node), None, usize::MAX);
            for (place, _) in letters.unwrap_or_default() {
                let id = crate::common::letters::id_of(&store, place);
                let (_, _, hint) = store.letter(NodeId(node), id).unwrap().unwrap();
                found.dead.insert((node, number_of(&hint.payload)));
            }
        }
        for (_, loss) in store.losses(0).unwrap().entries {
            let is_expected = matches!(
                loss.reason,
                LossReason::NotStored
                    | LossReason::Obsolete
                    | LossReason::Quota
                    | LossReason::DeadLetterQuota
            );
            assert!(is_expected, "{loss:?}");
            let sum = found.lost.entry((loss.node.0, loss.shard.unwrap().0));
            *sum.or_default() += loss.amount.hints;
        }
        found
    }

    /// What was answered as accounted is accounted for now, although sends are under way.
    async fn check_answered(&self) {
        if self.life.config.answer == AnswerWhen::Level {
            return;
        }
        let found = self.find().await;
        let answers = self.answers.lock().clone();
        let successes = answers.into_iter().filter(|(_, it)| *it == Answer::Success);
        self.check_places(&found, successes.map(|(number, _)| number).collect());
    }

    /// Each copy of these is somewhere.
    fn check_places(&self, found: &Found, numbers: Vec<u64>) {
        let mut lost = found.lost.clone();
        for number in numbers {
            let write = &self.writes[&number];
            for node in write.owners.iter().filter(|_| !write.is_forgotten) {
                let copy = (*node, number);
                if self.nodes.has(copy)
                    || found.pending.contains(&copy)
                    || found.dead.contains(&copy)
                {
                    continue;
                }
                let covered = lost.entry((*node, write.shard)).or_default();
                assert!(*covered > 0, "{number} is nowhere for {node}");
                *covered -= 1;
            }
        }
    }

    /// With no write under way: each copy is in one place, and the hints of each node add up.
    async fn audit(&mut self) {
        self.life.settle(&self.nodes).await;
        let found = self.find().await;
        let answers = self.answers.lock().clone();
        let is_kept = |number: &u64| answers.get(number) != Some(&Answer::Refused);
        let kept = self.writes.keys().copied().filter(is_kept).collect();
        self.check_places(&found, kept);
        for (number, write) in &self.writes {
            for copy in write.owners.iter().map(|node| (*node, *number)) {
                let (pending, dead) = (found.pending.contains(&copy), found.dead.contains(&copy));
                let lost = write.shard > 100 && found.lost.contains_key(&(copy.0, write.shard));
                // An answer that was lost, or an acknowledgement that a crash undid, has it there
                // again.
                let delivered = self.nodes.was_heard(copy);
                let places = [pending, dead, lost, delivered].map(u64::from);
                assert!(
                    places.iter().sum::<u64>() <= 1,
                    "{copy:?} is pending, dead, lost and delivered: {places:?}"
                );
            }
        }
        let (mut dead_on_arrival, mut withdrawn) = (0, 0);
        for it in self.life.handoff.stats().nodes {
            let before = self.found_at_open.get(&it.node.0).copied().unwrap_or(0);
            assert_eq!(found_at_open(&it), before, "{it:?}");
            withdrawn += it.withdrawn.hints;
        }
        for (_, number) in &found.dead {
            dead_on_arrival += self
                .nodes
                .seen(|seen| u64::from(!seen.sends.contains_key(number)));
        }
        let losses = self.life.store().losses(0).unwrap().by_reason;
        let not_stored = losses.get(&LossReason::NotStored).map_or(0, |it| it.hints);
        let refused = answers
            .values()
            .filter(|it| **it == Answer::Refused)
            .count();
        for (what, count) in [
            ("withdrawn", withdrawn),
            ("dead on arrival", dead_on_arrival),
            ("not stored", not_stored),
            ("refused", refused as u64),
        ] {
            // What there was at most at a time.
            let most = self.counts.entry(what).or_default();
            *most = count.max(*most);
        }
    }
}
