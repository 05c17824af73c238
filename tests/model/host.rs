//! Carries the operations out on a store, and tells the model.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::PathBuf,
    sync::{Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, EnqueueError, FailedOutcome, HandoffError, HintId, NodeId, Sequence, ShardId, WriteId,
    internals::{CommitFault, Fate, Hint, Leave, Mark, PeekLimits, PeekedHint, Reader, Store},
};
use hinted_handoff_testkit::{HintNumber, QueueModel};
use proptest_state_machine::StateMachineTest;
use tempfile::TempDir;

use crate::{
    common::{generation, letters::cause, open},
    operation::{Failing, NODES, Operation, Payload, Plan},
    runner::{Counts, Findings},
};

/// Whoever waits longer waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// As a node's task peeks.
const BATCH: PeekLimits = PeekLimits {
    hints: 64,
    payload_bytes: 1 << 20,
};

pub static COUNTS: Counts = Mutex::new(BTreeMap::new());

pub struct Model;

/// A store under test, and what is expected of it.
pub struct Host {
    pub root: TempDir,
    pub dir: PathBuf,
    pub store: Option<Store>,
    /// As a node's task does, each outlives what happens to the queue behind it.
    readers: BTreeMap<u64, Reader>,
    pub model: QueueModel,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    waiting: HashSet<HintNumber>,
    /// The storage was told to fail, so hints may be refused or of unknown outcome.
    pub failing: bool,
    pub found: Findings,
}

struct Told {
    number: HintNumber,
    answer: Result<HintId, EnqueueError>,
}

impl StateMachineTest for Model {
    type SystemUnderTest = Host;
    type Reference = Plan;

    fn init_test(_: &Plan) -> Host {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let store = open(&dir);
        let (tell, told) = mpsc::channel();
        Host {
            root,
            dir,
            model: QueueModel::new(store.id()),
            store: Some(store),
            readers: BTreeMap::new(),
            tell,
            told,
            waiting: HashSet::new(),
            failing: false,
            found: Findings::default(),
        }
    }

    fn apply(mut host: Host, _: &Plan, operation: Operation) -> Host {
        host.found.count("operations", 1);
        host.carry_out(&operation);
        host.check();
        host
    }

    fn teardown(mut host: Host, _: Plan) {
        host.take_everything();
        host.found.add_to(&COUNTS);
    }
}

impl Drop for Host {
    /// A store that hangs would not close.
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.inject(CommitFault::None);
        }
    }
}

/// Told apart by their content: half of it compresses, half does not.
fn payload(number: u64, bytes: usize) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize_with(bytes.max(8), || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state & 1 == 0 { 0 } else { state as u8 }
    });
    // The number's low bytes are kept.
    payload.split_off(8 - bytes.min(8)).into()
}

impl Host {
    fn carry_out(&mut self, operation: &Operation) {
        match operation {
            Operation::Append { node, payloads } => drop(self.append(*node, payloads)),
            Operation::Buffer { node, payloads } => {
                payloads.iter().for_each(|it| self.buffer(*node, *it));
            }
            Operation::Peek { node, hints, bytes } => {
                let limits = PeekLimits {
                    hints: *hints,
                    payload_bytes: *bytes,
                };
                self.peek(*node, limits);
            }
            Operation::Ack { node, percent } => self.ack(*node, *percent),
            Operation::AckAhead { node, by } => self.ack_ahead(*node, *by),
            Operation::Sync => {
                let synced = self.sync();
                self.found.expect_ok("sync", synced);
                self.model.synced();
            }
            Operation::Remove { node } => self.remove(*node),
            Operation::Reopen { clean } => self.reopen(*clean),
            Operation::Crash {
                in_flight,
                removing,
                log_percent,
            } => self.crash(in_flight, *removing, *log_percent),
            Operation::Fail(Failing::Close) => self.fail_to_close(),
            Operation::Fail(failing) => self.fail(failing),
            Operation::Panic { node, payload } => self.panic(*node, *payload),
        }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn check(&mut self) {
        self.hear();
        let store = self.store.as_ref().unwrap();
        self.model.check(store);
        let stats = store.stats();
        let (damage, rebuilt) = (stats.damage, stats.moved_aside);
        self.found
            .expect(damage.is_empty() && rebuilt.is_none(), || {
                format!("damage: {damage:?}, moved aside: {rebuilt:?}")
            });
        let broken: Vec<_> = self
            .found
            .broken
            .iter()
            .chain(self.model.violations())
            .collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    fn hint(&mut self, node: u64, bytes: usize) -> Hint {
        self.found.count("hints", 1);
        let number = self.found.counts["hints"];
        Hint {
            shard: ShardId(node * 10 + number % 3),
            format: number as u16,
            enqueued_unix_ms: number,
            payload: payload(number, bytes),
            origin: None,
            // Some have one, so that there are blocks and groups of both.
            write: (number.is_multiple_of(5)).then_some(WriteId {
                boot: 7,
                counter: number,
            }),
            // And some a lifetime.
            lifetime_ms: number.is_multiple_of(7).then_some(number),
        }
    }

    /// What the model is told, and whom the store is to tell.
    fn hand_in(
        &mut self,
        node: u64,
        hint: &Hint,
        leaves: bool,
    ) -> (
        HintNumber,
        impl FnOnce(Result<HintId, EnqueueError>) + Send + 'static,
    ) {
        let (id, copy) = (NodeId(node), hint.clone());
        let number = match leaves {
            true => self.model.hand_in_undelivered(id, copy),
            false => self.model.hand_in(id, copy),
        };
        self.waiting.insert(number);
        let tell = self.tell.clone();
        // Nobody listens any more after a crash.
        let done = move |answer| drop(tell.send(Told { number, answer }));
        (number, done)
    }

    fn heard(&mut self, told: Told) {
        let Told { number, answer } = told;
        self.waiting.remove(&number);
        self.model.answered(number, &answer);
        match answer.as_ref().map_err(EnqueueError::outcome) {
            Ok(_) => {}
            Err(FailedOutcome::Refused) => self.found.count("refused", 1),
            Err(FailedOutcome::Unknown) => self.found.count("unknown", 1),
        }
        if !self.failing && answer.is_err() {
            self.found.broken.push(format!("{number:?}: {answer:?}"));
        }
    }

    /// Takes in what the store has told by now.
    pub fn hear(&mut self) {
        while let Ok(told) = self.told.try_recv() {
            self.heard(told);
        }
    }

    /// One burst, and all answers to it.
    pub fn append(&mut self, node: u64, payloads: &[Payload]) -> Vec<Result<HintId, EnqueueError>> {
        let mut burst = HashSet::new();
        for payload in payloads {
            let hint = self.hint(node, payload.bytes);
            let (number, done) = self.hand_in(node, &hint, payload.leaves);
            burst.insert(number);
            match payload.leaves {
                true => self.append_undelivered(node, hint, done),
                false => self.store().append(NodeId(node), hint, Box::new(done)),
            }
        }
        let mut answers = Vec::new();
        while answers.len() < payloads.len() {
            let told = self.told.recv_timeout(PATIENCE).expect("no answer");
            if burst.contains(&told.number) {
                answers.push(told.answer.clone());
            }
            self.heard(told);
        }
        answers
    }

    fn append_undelivered(
        &mut self,
        node: u64,
        hint: Hint,
        done: impl FnOnce(Result<HintId, EnqueueError>) + Send + 'static,
    ) {
        self.found.count("undelivered", 1);
        let fate = Fate::Dead(cause("refused by one owner alone"));
        let node = NodeId(node);
        self.store()
            .append_undelivered(node, hint, fate, Box::new(done));
    }

    pub fn buffer(&mut self, node: u64, payload: Payload) {
        let hint = self.hint(node, payload.bytes);
        let (number, done) = self.hand_in(node, &hint, payload.leaves);
        if payload.leaves {
            return self.append_undelivered(node, hint, done);
        }
        let taken = self
            .store()
            .append_buffered(NodeId(node), hint, Box::new(done));
        if let Err(error) = taken {
            let answer = Err(error);
            self.heard(Told { number, answer });
        }
    }

    fn peek(&mut self, node: u64, limits: PeekLimits) -> Vec<PeekedHint> {
        self.hear();
        let store = self.store.as_ref().unwrap();
        let reader = self.readers.entry(node).or_default();
        self.model.peek(store, reader, NodeId(node), limits)
    }

    /// Acknowledges the first of what a peek shows, then again, then less: neither changes
    /// anything.
    fn ack(&mut self, node: u64, percent: u8) {
        let peeked = self.peek(node, BATCH);
        let count = (peeked.len() * usize::from(percent)).div_ceil(100);
        let Some(last) = count.checked_sub(1).map(|index| &peeked[index]) else {
            return;
        };
        let node = NodeId(node);
        let leave = |mark| self.store().ack(node, mark, Leave::Delivered).unwrap();
        let left = [last, last, &peeked[0]].map(|hint| leave(hint.mark));
        let mark = last.mark;
        let mut expected = [Amount::default(); 3];
        expected[0] = self.model.ack(node, mark.queue.queue, mark.sequence);
        self.found.count("acknowledged", left[0].hints);
        self.found.expect(left == expected, || {
            format!("{left:?} left with {mark:?}, expected {expected:?}")
        });
    }

    /// An acknowledgement of what is not there changes nothing.
    fn ack_ahead(&mut self, node: u64, by: u64) {
        let nodes: BTreeMap<_, _> = self.store().nodes().into_iter().collect();
        let queue = nodes
            .get(&NodeId(node))
            .and_then(|queues| queues.queues.back());
        let Some(queue) = queue else { return };
        // What is not answered yet may become durable meanwhile.
        let ahead = self.waiting.len() as u64 + by;
        let mark = Mark {
            queue: queue.at,
            sequence: Sequence(queue.watermark.0 + ahead),
            bytes_through: queue.bytes + ahead,
        };
        let left = self.store().ack(NodeId(node), mark, Leave::Delivered);
        let left = left.unwrap();
        self.found.expect(left == Amount::default(), || {
            format!("{left:?} left with {mark:?}, which is not there")
        });
    }

    pub fn sync(&mut self) -> Result<(), HandoffError> {
        let (tell, told) = mpsc::channel();
        self.store().sync(move |result| drop(tell.send(result)));
        let result = told.recv_timeout(PATIENCE).expect("a sync hangs");
        self.hear();
        result
    }

    pub fn try_to_remove(&mut self, node: u64) -> Result<Amount, HandoffError> {
        let (tell, told) = mpsc::channel();
        let done = move |result| drop(tell.send(result));
        self.store().remove_node(NodeId(node), done);
        let result = told.recv_timeout(PATIENCE).expect("a removal hangs");
        self.hear();
        result
    }

    fn remove(&mut self, node: u64) {
        let removed = self.try_to_remove(node);
        let is_known = self.model.knows(NodeId(node));
        let expected = self.model.removed(NodeId(node));
        self.found.count("discarded", expected.hints);
        let kept = match &removed {
            Ok(amount) => *amount == expected,
            Err(HandoffError::UnknownNode { .. }) => !is_known,
            Err(_) => false,
        };
        self.found.expect(kept, || {
            format!("node {node}: {removed:?} were discarded, expected {expected:?}")
        });
    }

    fn reopen(&mut self, clean: bool) {
        let closed = self.store().close();
        self.hear();
        self.found.expect_ok("close", closed);
        self.model.closed();
        if clean {
            self.found.count("clean stops", 1);
        } else {
            fs::remove_file(generation(&self.dir).join("CLEAN")).unwrap();
            self.found.count("unclean stops", 1);
            self.model.stopped_uncleanly();
        }
        self.open();
    }

    /// Drops what is left of the store before, and opens the one in `dir` as another process would.
    pub fn open(&mut self) {
        self.store = None;
        (self.tell, self.told) = mpsc::channel();
        self.waiting.clear();
        self.readers.clear();
        self.failing = false;
        self.store = Some(open(&self.dir));
    }

    /// What is left comes to an end, all of it as it was handed in.
    fn take_everything(&mut self) {
        self.carry_out(&Operation::Sync);
        for node in NODES {
            while self.model.pending(NodeId(node)).hints > 0 {
                self.ack(node, 100);
                self.check();
            }
        }
        self.reopen(true);
        self.check();
        let settled = self.model.settled();
        self.found.count("stops settled", settled.stops);
        self.found.count("unanswered and there", settled.found);
        self.found.count("unanswered and gone", settled.gone);
        self.found.count("acknowledgements undone", settled.undone);
    }
}
