//! A random story of a store: what is done to it, and what that means for every hint.

#[path = "holding.rs"]
mod holding;
#[path = "undelivered.rs"]
mod undelivered;

use std::{collections::BTreeMap, path::Path, sync::mpsc, time::Duration};

use hinted_handoff::{
    Config, HandoffError, Health, HintId, LossReason, NodeId, ShardId, WriteId,
    internals::{CommitFault, Held, Hint, PeekedHint, Place, Store},
};
use tempfile::TempDir;

use crate::{
    barriers::Marked,
    common::{
        self,
        copy::copy_of,
        letters::{cause, id_of},
        sync,
    },
    ledger::{Entry, Ledger, Whereabouts, number, pending},
};

const PATIENCE: Duration = Duration::from_secs(20);
const NODES: [u64; 3] = [1, 2, 3];
/// Dead letters of a node: few, so that the quota is met.
const LETTERS: u64 = 2;

pub struct Story {
    random: fastrand::Rng,
    dir: TempDir,
    store: Option<Store>,
    next: u64,
    ledger: Ledger,
    /// By the numbers of their hints, which may be gone with their node.
    held: BTreeMap<u64, Held>,
    barriers: Vec<Marked>,
    counts: BTreeMap<&'static str, u64>,
}

fn config(dir: &Path) -> Config {
    Config {
        max_dead_letters: LETTERS,
        ..common::config(dir)
    }
}

fn open(dir: &Path) -> Store {
    Store::open(&config(dir), Box::new(|_| {})).unwrap()
}

impl Story {
    pub fn begin(seed: u64) -> Story {
        let dir = tempfile::tempdir().unwrap();
        Story {
            random: fastrand::Rng::with_seed(seed),
            store: Some(open(dir.path())),
            dir,
            next: 1,
            ledger: Ledger::default(),
            held: BTreeMap::new(),
            barriers: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub fn step(&mut self) {
        let node = NODES[self.random.usize(..NODES.len())];
        match self.random.u32(..115) {
            0..24 => self.append(node),
            24..28 => self.append_undelivered(node),
            28..30 => self.note_not_stored(node),
            30..50 => self.deliver(node),
            50..58 => self.make_dead_letter(node),
            58..66 => self.lose(node),
            66..72 => self.redrive(node),
            72..77 => self.discard(node),
            77..79 => sync(self.store()),
            79..82 => self.mark_barrier(node),
            82..84 => self.take_back(node),
            84..88 => self.rename(node),
            88..91 => self.reopen(),
            91..94 => self.crash(),
            94..96 => self.fail(node),
            96..97 => self.fail_undelivered(node),
            97..105 => self.hold(node),
            105..112 => self.end_a_hold(),
            _ => self.remove(node),
        }
        let store = self.store.as_ref().unwrap();
        self.ledger.check(store, &NODES);
        self.check_held();
        for marked in &self.barriers {
            marked.check(store, &self.ledger);
        }
    }

    fn mark_barrier(&mut self, node: u64) {
        let made = self.told(|store, done| store.barrier([NodeId(node)].into(), done));
        let marked = Marked::new(made.unwrap(), &self.ledger);
        self.barriers.push(marked);
        self.count("barriers", 1);
        // The newest few are enough to look at after every step.
        if self.barriers.len() > 8 {
            self.barriers.remove(self.random.usize(..8));
        }
    }

    /// The hints of one node become another's, with its dead letters.
    fn rename(&mut self, from: u64) {
        let to = NODES[self.random.usize(..NODES.len())];
        let pending = self.ledger.all(from, Whereabouts::Pending).len() as u64;
        let renamed = self.told(|store, done| store.rename_node(NodeId(from), NodeId(to), done));
        match renamed {
            Ok(moved) => assert_eq!(moved.hints, pending),
            Err(HandoffError::SameNode { .. }) => return assert_eq!(from, to),
            Err(HandoffError::UnknownNode { .. }) => return assert_eq!(pending, 0),
            Err(error) => panic!("{error}"),
        }
        self.ledger.renamed(from, to);
        self.count("renamed nodes", 1);
    }

    pub fn end(mut self) -> BTreeMap<&'static str, u64> {
        self.reopen();
        self.ledger.check(self.store(), &NODES);
        self.counts.insert("hints", self.ledger.hints.len() as u64);
        std::mem::take(&mut self.counts)
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn count(&mut self, what: &'static str, count: usize) {
        *self.counts.entry(what).or_default() += count as u64;
    }

    /// Hands something to the store and waits for what it says.
    fn told<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store, Box<dyn FnOnce(Result<T, HandoffError>) + Send>),
    ) -> Result<T, HandoffError> {
        let (tell, told) = mpsc::channel();
        ask(
            self.store(),
            Box::new(move |result| tell.send(result).unwrap()),
        );
        told.recv_timeout(PATIENCE).unwrap()
    }

    fn new_hint(&mut self) -> (u64, Hint) {
        let number = self.next;
        self.next += 1;
        let mut payload = number.to_be_bytes().to_vec();
        let more = match self.random.u32(..20) {
            0 => 40_000,
            _ => self.random.usize(..300),
        };
        payload.resize(8 + more, number as u8);
        let hint = Hint {
            shard: ShardId(self.random.u64(1..4)),
            format: 0,
            enqueued_unix_ms: 1,
            payload: payload.into(),
            origin: None,
            write: self.random.bool().then_some(WriteId {
                boot: 7,
                counter: number,
            }),
            lifetime_ms: number.is_multiple_of(5).then_some(number),
        };
        (number, hint)
    }

    fn append(&mut self, node: u64) {
        let (tell, told) = mpsc::channel();
        let mut handed = Vec::new();
        for _ in 0..self.random.usize(1..12) {
            let (number, hint) = self.new_hint();
            handed.push((number, hint.clone()));
            let tell = tell.clone();
            let done = move |result| tell.send((number, result)).unwrap();
            self.store().append(NodeId(node), hint, Box::new(done));
        }
        for _ in 0..handed.len() {
            let (number, result) = told.recv_timeout(PATIENCE).unwrap();
            let (_, hint) = handed.iter().find(|(it, _)| *it == number).unwrap();
            self.enter(node, number, hint, result.unwrap(), Whereabouts::Pending);
        }
    }

    pub fn enter(&mut self, node: u64, number: u64, hint: &Hint, id: HintId, at: Whereabouts) {
        let entry = Entry {
            node,
            shard: hint.shard.0,
            id,
            bytes: hint.payload.len() as u64,
            origin: None,
            write: hint.write,
            at,
            fresh: false,
        };
        self.ledger.hints.insert(number, entry);
    }

    /// Some of what is pending and not held, claimed.
    fn claimed(&mut self, node: u64, max: usize) -> Vec<PeekedHint> {
        let mut hints = pending(self.store(), node);
        hints.retain(|hint| !self.held.contains_key(&number(hint)));
        self.random.shuffle(&mut hints);
        hints.truncate(self.random.usize(..=max));
        hints.sort_by_key(|hint| hint.mark.place());
        let before = hints.len();
        self.store().claim(NodeId(node), &mut hints);
        assert_eq!(hints.len(), before, "nobody else claims");
        let mut again = hints.clone();
        self.store().claim(NodeId(node), &mut again);
        assert!(again.is_empty(), "a hint is claimed once");
        hints
    }

    fn deliver(&mut self, node: u64) {
        let hints = self.claimed(node, 30);
        let left = self.store().deliver(NodeId(node), &hints).unwrap();
        assert_eq!(left.hints, hints.len() as u64);
        self.mark(&hints, Whereabouts::Delivered);
        self.count("delivered", hints.len());
        // Once more changes nothing.
        assert_eq!(self.store().deliver(NodeId(node), &hints).unwrap().hints, 0);
    }

    fn mark(&mut self, hints: &[PeekedHint], at: Whereabouts) {
        for hint in hints {
            let entry = self.ledger.hints.get_mut(&number(hint)).unwrap();
            entry.at = at;
            entry.fresh = matches!(at, Whereabouts::Delivered | Whereabouts::Withdrawn);
        }
    }

    fn take_back(&mut self, node: u64) {
        let hints = self.claimed(node, 10);
        self.store().release(NodeId(node), &hints);
        self.count("released", hints.len());
    }

    fn make_dead_letter(&mut self, node: u64) {
        for hint in self.claimed(node, 3) {
            let (number, letter) = (number(&hint), hint.clone());
            let dead_lettered = self.told(|store, done| {
                store.make_dead_letter(NodeId(node), letter, cause("no such field"), done)
            });
            dead_lettered.unwrap();
            self.mark(&[hint], Whereabouts::Dead);
            self.count("dead-lettered", 1);
            self.evict(node, number);
        }
    }

    /// The quota takes the oldest, by the order in which the queues have had dead letters.
    fn evict(&mut self, node: u64, newest: u64) {
        let letters = self
            .store()
            .letters(NodeId(node), None, usize::MAX)
            .unwrap();
        let there: Vec<_> = letters
            .iter()
            .map(|(place, _)| id_of(self.store(), *place))
            .collect();
        let dead = self.ledger.all(node, Whereabouts::Dead);
        let gone: Vec<_> = dead
            .iter()
            .filter(|it| !there.contains(&self.ledger.hints[it].id))
            .copied()
            .collect();
        assert_eq!(gone.len(), dead.len().saturating_sub(LETTERS as usize));
        assert!(!gone.contains(&newest));
        for number in &gone {
            let entry = self.ledger.hints.get_mut(number).unwrap();
            entry.at = Whereabouts::Journalled(LossReason::DeadLetterQuota);
        }
        self.count("evicted", gone.len());
    }

    fn lose(&mut self, node: u64) {
        let hints = self.claimed(node, 12);
        let reason = match self.random.bool() {
            true => LossReason::Expired,
            false => LossReason::Obsolete,
        };
        let handed = hints.clone();
        let lost = self.told(|store, done| store.lose(NodeId(node), handed, reason, done));
        assert_eq!(lost.unwrap().hints, hints.len() as u64);
        self.mark(&hints, Whereabouts::Journalled(reason));
        self.count("lost", hints.len());
    }

    fn letter(&mut self, node: u64) -> Option<(u64, Place, Hint)> {
        let dead = self.ledger.all(node, Whereabouts::Dead);
        let number = *self.random.choice(&dead)?;
        let wanted = self.ledger.hints[&number].id;
        let (place, _, hint) = self.store().letter(NodeId(node), wanted).unwrap().unwrap();
        let hint = Hint {
            shard: hint.shard,
            format: hint.format,
            enqueued_unix_ms: 2,
            payload: hint.payload,
            origin: hint.origin.or(Some((place.queue.queue, place.sequence))),
            write: hint.write,
            lifetime_ms: hint.lifetime_ms,
        };
        Some((number, place, hint))
    }

    fn redrive(&mut self, node: u64) {
        let Some((number, place, hint)) = self.letter(node) else {
            return;
        };
        let again = hint.clone();
        let redriven = self.told(|store, done| store.redrive(NodeId(node), place, hint, done));
        let entry = self.ledger.hints.get_mut(&number).unwrap();
        entry.origin = entry.origin.or(Some(entry.id));
        entry.id = redriven.unwrap().unwrap();
        entry.at = Whereabouts::Pending;
        let twice = self.told(|store, done| store.redrive(NodeId(node), place, again, done));
        assert_eq!(twice.unwrap(), None, "it is no dead letter any more");
        self.count("redriven", 1);
    }

    fn discard(&mut self, node: u64) {
        let Some((number, place, _)) = self.letter(node) else {
            return;
        };
        let twice = vec![place, place];
        let discarded = self.told(|store, done| store.discard(NodeId(node), twice, done));
        assert_eq!(discarded.unwrap().hints, 1);
        let entry = self.ledger.hints.get_mut(&number).unwrap();
        entry.at = Whereabouts::Journalled(LossReason::Discarded);
        self.count("discarded", 1);
    }

    fn remove(&mut self, node: u64) {
        let pending = self.ledger.all(node, Whereabouts::Pending);
        match self.told(|store, done| store.remove_node(NodeId(node), done)) {
            Ok(removed) => assert_eq!(removed.hints, pending.len() as u64),
            Err(HandoffError::UnknownNode { .. }) => assert!(pending.is_empty()),
            Err(error) => panic!("{error}"),
        }
        let dead = self.ledger.all(node, Whereabouts::Dead);
        for number in pending.into_iter().chain(dead) {
            let entry = self.ledger.hints.get_mut(&number).unwrap();
            entry.at = Whereabouts::Journalled(LossReason::Discarded);
        }
        self.count("removed nodes", 1);
    }

    fn reopen(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.store = Some(open(self.dir.path()));
        // Those of the life before stand for nothing in this one.
        self.held.clear();
        assert_eq!(self.store().stats().damage, []);
        self.ledger
            .hints
            .values_mut()
            .for_each(|it| it.fresh = false);
        self.count("reopened", 1);
    }

    /// What a crash leaves: all that is durable, and perhaps what is not.
    fn crash(&mut self) {
        let copy = copy_of(self.dir.path());
        drop(self.store.take());
        self.dir = copy;
        let store = open(self.dir.path());
        self.ledger.reconcile(&store, &NODES);
        self.store = Some(store);
        self.held.clear();
        self.count("crashed", 1);
    }

    fn until_reopened(&mut self, reopens: u64) {
        while self.store().reopens() == reopens || !matches!(self.store().health(), Health::Serving)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ledger.reconcile(self.store.as_ref().unwrap(), &NODES);
        self.count("storage failures", 1);
    }

    /// The storage fails while hints leave; the store reopens itself, and all of them left or
    /// none.
    fn fail(&mut self, node: u64) {
        let hints = self.claimed(node, 5);
        let reopens = self.store().reopens();
        self.store().inject(CommitFault::Fail);
        let handed = hints.clone();
        let lost = self.told(|store, done| {
            store.lose(NodeId(node), handed, LossReason::Quota, done);
        });
        // With nothing to lose, nothing is written.
        assert!(lost.is_err() || hints.is_empty());
        self.store().inject(CommitFault::None);
        if lost.is_ok() {
            return;
        }
        self.until_reopened(reopens);
        let there: Vec<u64> = pending(self.store(), node).iter().map(number).collect();
        let is_lost = hints
            .iter()
            .filter(|it| !there.contains(&number(it)))
            .count();
        assert!(
            is_lost == 0 || is_lost == hints.len(),
            "{is_lost} of {}",
            hints.len()
        );
        if is_lost > 0 {
            self.mark(&hints, Whereabouts::Journalled(LossReason::Quota));
        }
    }
}
