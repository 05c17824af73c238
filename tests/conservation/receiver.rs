//! Nodes that answer as a seed says: they take, fail, reject, take a part, answer late or never,
//! panic, or have dropped the shard. What they took is written down here, apart from the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{HintId, NodeId, Pong, ShardWrite, ShardWriter, WriteError, WriteId};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use parking_lot::Mutex;

use crate::{Counts, ledger::number_of};

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything but what is poisoned.
    Well,
    /// It answers anything.
    Moody,
    /// It takes nothing and does not answer pings.
    Down,
}

/// Hints that a node took with one answer, in order.
#[derive(Debug, Clone)]
pub struct Taken {
    pub node: u64,
    pub shard: u64,
    pub hints: Vec<(u64, HintId)>,
    pub heard: Heard,
}

/// Whether the answer to a send came, so that its hints are done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Yes,
    /// The storage failed meanwhile: if that was after the send began the answer does not count.
    Perhaps,
    No,
}

/// What the nodes saw, by the number of each hint.
#[derive(Debug, Default)]
pub struct Seen {
    /// Since it was asked last.
    pub taken: Vec<Taken>,
    /// The id under which each came last.
    pub ids: BTreeMap<u64, HintId>,
    /// The write of each that came.
    pub writes: BTreeMap<u64, Option<WriteId>>,
    /// In how many sends it was.
    pub sends: BTreeMap<u64, u32>,
    /// Rejected with no other beside it.
    pub rejected: BTreeSet<u64>,
    /// In a send that was answered with the shard being gone.
    pub obsolete: BTreeSet<u64>,
    /// Sends of replay to each node, and pings.
    pub calls: BTreeMap<u64, u64>,
    /// Direct writes that a node took, or will never take.
    pub settled_directly: usize,
    /// Copies that a node has, and whether the answer came, however they came to it.
    pub at: BTreeMap<(u64, u64), Heard>,
    /// How often each answer was given.
    pub answers: Counts,
}

/// Outlives the lives of the service. `moods`, `seen` and `cured` are each held for a look only,
/// and none within another.
pub struct Nodes {
    seed: u64,
    moods: Mutex<BTreeMap<u64, Mood>>,
    seen: Mutex<Seen>,
    /// Hints that were poisoned once.
    cured: Mutex<BTreeSet<u64>>,
    /// Failures of the storage.
    failures: AtomicU64,
}

/// The nodes as one life of the service sees them.
pub struct Receiver {
    nodes: Arc<Nodes>,
    scripted: ScriptedWriter,
    /// The process has died: nothing of it reaches anybody.
    is_cut: AtomicBool,
}

impl Nodes {
    pub fn new(seed: u64) -> Arc<Nodes> {
        Arc::new(Nodes {
            seed,
            moods: Mutex::default(),
            seen: Mutex::default(),
            cured: Mutex::default(),
            failures: AtomicU64::new(0),
        })
    }

    pub fn set(&self, node: u64, mood: Mood) {
        self.moods.lock().insert(node, mood);
    }

    pub fn mood(&self, node: u64) -> Mood {
        let mood = self.moods.lock().get(&node).copied();
        mood.unwrap_or(Mood::Moody)
    }

    /// Its node will take it from now on.
    pub fn cure(&self, number: u64) {
        self.cured.lock().insert(number);
    }

    pub fn note_failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Some are for all nodes, some for every second one.
    fn is_poison(&self, number: u64, node: u64) -> bool {
        let is_poison = match number.wrapping_sub(self.seed) % 8 {
            0 => true,
            3 => node.is_multiple_of(2),
            _ => false,
        };
        is_poison && !self.cured.lock().contains(&number)
    }

    /// Whether a node has a copy.
    pub fn has(&self, copy: (u64, u64)) -> bool {
        self.seen.lock().at.contains_key(&copy)
    }

    /// What a node took of it was undone: it gets it again.
    pub fn comes_again(&self, copy: (u64, u64)) {
        let mut seen = self.seen.lock();
        seen.at.entry(copy).and_modify(|heard| *heard = Heard::No);
    }

    /// Whether it said so, and was heard.
    pub fn was_heard(&self, copy: (u64, u64)) -> bool {
        self.seen.lock().at.get(&copy) == Some(&Heard::Yes)
    }

    /// How often a node was called by replay.
    pub fn calls(&self, node: u64) -> u64 {
        let seen = self.seen.lock();
        seen.calls.get(&node).copied().unwrap_or(0)
    }

    /// What was taken since this was asked last.
    pub fn taken(&self) -> Vec<Taken> {
        std::mem::take(&mut self.seen.lock().taken)
    }

    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock())
    }

    /// Depends on the seed, the first hint and how often that was sent before, so not on who is
    /// faster.
    fn reply(&self, write: &ShardWrite<Bytes>) -> Reply {
        let (node, numbers) = (write.node.0, numbers(write));
        let before = self.seen.lock().sends.get(&numbers[0]).copied();
        let salt = numbers[0].wrapping_mul(0x9e37_79b9) ^ u64::from(before.unwrap_or(0)) << 40;
        let mut random = fastrand::Rng::with_seed(self.seed ^ salt ^ node << 56);
        let mood = self.mood(node);
        let is_poisoned = mood != Mood::Down && numbers.iter().any(|it| self.is_poison(*it, node));
        let (reply, name) = match (mood, random.u32(..100)) {
            _ if is_poisoned => (Reply::Reject, "rejects"),
            (Mood::Down, 0..80) | (Mood::Moody, 54..64) => (Reply::Retry, "retries"),
            (Mood::Well, _) | (_, 0..40) => (Reply::Take, "takes"),
            (Mood::Down, _) | (_, 80..86) => (Reply::Hang, "hangs"),
            (_, 40..54) => {
                let after = Duration::from_millis(random.u64(200..9_000));
                (Reply::Slow(after), "late answers")
            }
            (_, 64..69) => (Reply::RetryAfter(Duration::from_secs(2)), "retries later"),
            (_, 69..80) => (Reply::Partial(random.usize(..=numbers.len())), "partials"),
            (_, 86..90) => (Reply::Panic, "panics"),
            _ => (Reply::Obsolete, "obsoletes"),
        };
        *self.seen.lock().answers.entry(name).or_default() += 1;
        if reply == Reply::Hang && mood == Mood::Moody && random.bool() {
            self.note_taken(write, usize::MAX, Heard::No);
        }
        reply
    }

    /// A direct write that is taken is nobody's any more; one whose answer is lost comes as a hint,
    /// as if for the first time.
    fn note_taken(&self, write: &ShardWrite<Bytes>, count: usize, heard: Heard) {
        let mut seen = self.seen.lock();
        for number in numbers(write).into_iter().take(count) {
            seen.at.insert((write.node.0, number), heard);
        }
        if !write.is_replay() {
            return;
        }
        seen.taken.push(Taken {
            node: write.node.0,
            shard: write.shard.0,
            hints: hints(write).into_iter().take(count).collect(),
            heard,
        });
    }
}

impl Receiver {
    pub fn of(nodes: &Arc<Nodes>) -> Receiver {
        let (asked, pinged) = (Arc::clone(nodes), Arc::clone(nodes));
        let script = move |write: &ShardWrite<Bytes>| asked.reply(write);
        let pings = move |node: NodeId| match pinged.mood(node.0) {
            Mood::Down => Reply::Retry,
            _ => Reply::Take,
        };
        Receiver {
            nodes: Arc::clone(nodes),
            scripted: ScriptedWriter::new(script).with_pings(pings),
            is_cut: AtomicBool::new(false),
        }
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Relaxed);
    }

    fn check_cut(&self) -> Result<(), WriteError> {
        match self.is_cut.load(Relaxed) {
            true => Err(WriteError::retry("the process has died")),
            false => Ok(()),
        }
    }
}

fn numbers(write: &ShardWrite<Bytes>) -> Vec<u64> {
    let batches = write.batches.iter();
    batches.map(|batch| number_of(&batch.points)).collect()
}

fn hints(write: &ShardWrite<Bytes>) -> Vec<(u64, HintId)> {
    let ids = write.batches.iter().map(|batch| batch.hint.unwrap());
    numbers(write).into_iter().zip(ids).collect()
}

impl ShardWriter<Bytes> for Receiver {
    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        self.check_cut()?;
        *self.nodes.seen.lock().calls.entry(node.0).or_default() += 1;
        self.scripted.ping(node).await
    }

    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        self.check_cut()?;
        if write.is_replay() {
            let mut seen = self.nodes.seen.lock();
            *seen.calls.entry(write.node.0).or_default() += 1;
            let writes = write.batches.iter().map(|batch| batch.write);
            seen.writes.extend(numbers(&write).into_iter().zip(writes));
            for (number, id) in hints(&write) {
                *seen.sends.entry(number).or_default() += 1;
                seen.ids.insert(number, id);
            }
        }
        let failures = self.nodes.failures.load(Relaxed);
        let answer = self.scripted.write_shard(write.clone()).await;
        self.check_cut()?;
        let heard = match failures == self.nodes.failures.load(Relaxed) {
            true => Heard::Yes,
            false => Heard::Perhaps,
        };
        let is_retried = matches!(
            answer,
            Err(WriteError::Retry { .. } | WriteError::Partial { taken: 0, .. })
        );
        if !write.is_replay() && !is_retried {
            self.nodes.seen.lock().settled_directly += 1;
        }
        let numbers = numbers(&write);
        match &answer {
            Ok(()) => self.nodes.note_taken(&write, usize::MAX, heard),
            Err(WriteError::Partial { taken, .. }) => {
                self.nodes.note_taken(&write, *taken, heard);
            }
            Err(WriteError::Reject { .. }) if numbers.len() == 1 => {
                self.nodes.seen.lock().rejected.extend(numbers);
            }
            Err(WriteError::Obsolete { .. }) => self.nodes.seen.lock().obsolete.extend(numbers),
            Err(_) => {}
        }
        answer
    }
}
