//! Carries the operations out on a shared database, and holds what comes of them against the model.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, atomic::AtomicU64},
    task::{Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, Consumer, Durability, FailedOutcome, HintId, HintedHandoff, NodeId,
    TransactionError, database_config, open_database,
    sled::{Db, IVec},
    testkit::{CommitFault, ScriptedWriter},
};
use proptest_state_machine::StateMachineTest;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    history::{History, Judged, Verdict},
    operation::{Ending, MANUAL, Operation, Plan, Row, Step, TREES},
    runner::Counts,
    script::{Context, Run},
    valves::Valves,
    waiting::{Answer, Waiting},
};

/// Whoever waits longer waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub static COUNTS: Counts = Mutex::new(BTreeMap::new());
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
});

pub struct Model;

/// A database, the handoff in it, and what is expected of them.
pub struct Host {
    pub root: TempDir,
    pub dir: PathBuf,
    pub durability: Durability,
    /// `None` only while it is opened again.
    pub open: Option<Open>,
    pub valves: Valves,
    pub history: History,
    /// Since the handoff was opened.
    pub went: BTreeMap<u64, Went>,
    /// The storage was told to fail.
    pub failing: bool,
    pub broken: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// All handles of an open database.
pub struct Open {
    pub consumers: BTreeMap<u64, Consumer<Bytes>>,
    pub context: Context,
    pub db: Db,
}

/// Hints that came and went since the handoff was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Went {
    pub enqueued: Amount,
    pub delivered: Amount,
    pub lost: Amount,
}

/// Wakes the thread of a case.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl StateMachineTest for Model {
    type SystemUnderTest = Host;
    type Reference = Plan;

    fn init_test(plan: &Plan) -> Host {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("database");
        let valves = Valves::new();
        let db = open_database(&database_config(&dir)).unwrap();
        let config = config(&dir, plan.durability);
        let open = Open::new(db, config, Arc::clone(&valves.writer), Arc::default());
        Host {
            root,
            dir,
            durability: plan.durability,
            history: History::new(open.context.handoff.stats().store.store),
            open: Some(open),
            valves,
            went: BTreeMap::new(),
            failing: false,
            broken: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn apply(mut host: Host, _: &Plan, operation: Operation) -> Host {
        host.count("operations", 1);
        host.carry_out(&operation);
        host.check();
        host
    }

    fn teardown(mut host: Host, _: Plan) {
        host.take_everything();
        let mut counts = COUNTS.lock().unwrap();
        for (what, count) in &host.counts {
            *counts.entry(what).or_default() += count;
        }
    }
}

impl Drop for Host {
    /// A store that hangs would not close.
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.context.handoff.inject(CommitFault::None);
        }
    }
}

pub fn config(dir: &std::path::Path, durability: Durability) -> Config {
    Config {
        durability,
        manual_nodes: MANUAL.map(NodeId).collect(),
        retry_interval: Duration::from_millis(1),
        retry_max_interval: Duration::from_millis(4),
        free_space_reserve_bytes: 0,
        ..Config::new(dir)
    }
}

impl Open {
    pub fn new(
        db: Db,
        config: Config,
        writer: Arc<ScriptedWriter>,
        contents: Arc<AtomicU64>,
    ) -> Self {
        let trees = (0..TREES).map(|number| db.open_tree(format!("tree-{number}")).unwrap());
        let trees = trees.collect();
        let runtime = RUNTIME.handle().clone();
        let handoff = HintedHandoff::open_in_blocking(&db, config, writer, runtime).unwrap();
        let consumers = MANUAL.map(|node| (node, handoff.consumer(NodeId(node)).unwrap()));
        Open {
            consumers: consumers.collect(),
            context: Context {
                handoff,
                trees,
                peeked: BTreeMap::new(),
                acked: BTreeMap::new(),
                contents,
            },
            db,
        }
    }

    pub fn rows(&self) -> Result<BTreeMap<Row, IVec>, String> {
        let mut rows = BTreeMap::new();
        for (number, tree) in self.context.trees.iter().enumerate() {
            for entry in tree {
                let (key, value) = entry.map_err(|error| format!("tree {number}: {error}"))?;
                let row = Row::of(number, &key);
                let row = row.ok_or(format!(
                    "tree {number} has a row that nobody wrote: {key:?}"
                ))?;
                rows.insert(row, value);
            }
        }
        Ok(rows)
    }
}

impl Host {
    fn carry_out(&mut self, operation: &Operation) {
        match operation {
            Operation::Together(requests) => {
                let context = self.context().clone();
                let begun = requests.iter().map(|it| Waiting::new(&context, it));
                let begun = begun.collect();
                self.drive(begun);
            }
            Operation::Conflict {
                row,
                script,
                interferences,
            } => {
                let mut script = script.clone();
                script.steps.insert(0, Step::Get(*row));
                self.count("interferences", interferences.len() as u64);
                let interfering = Some((*row, interferences.clone()));
                let context = self.context().clone();
                self.drive(vec![Waiting::transaction(context, script, interfering)]);
            }
            Operation::Consume {
                node,
                peeked,
                acked,
            } => self.consume(*node, *peeked, *acked),
            Operation::Deliver { node, replies } => self.deliver(*node, replies),
            Operation::RemoveNode(node) => self.remove(*node),
            Operation::Sync => self.sync(),
            Operation::Reopen { database } => self.reopen(*database),
            Operation::Crash {
                in_flight,
                delivered,
                log_percent,
            } => self.crash(in_flight, delivered.as_ref(), *log_percent),
            Operation::Fail { in_flight } => self.fail(in_flight),
        }
    }

    pub fn count(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    pub fn expect(&mut self, kept: bool, broken: impl FnOnce() -> String) {
        if !kept {
            self.broken.push(broken());
        }
    }

    pub fn expect_ok<E: Debug>(&mut self, what: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.broken.push(format!("{what}: {error:?}"));
        }
    }

    pub fn open(&mut self) -> &mut Open {
        self.open.as_mut().unwrap()
    }

    pub fn context(&self) -> &Context {
        &self.open.as_ref().unwrap().context
    }

    pub fn handoff(&self) -> &HintedHandoff<Bytes> {
        &self.context().handoff
    }

    /// Lets one go on, and has the model judge what is handed in by that.
    pub fn poll(&mut self, waiting: &mut Waiting) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for proposed in waiting.poll(&waker) {
            self.broken.extend(proposed.run.broken.iter().cloned());
            let judged = self.history.propose(&proposed.run);
            if judged.verdict == Verdict::Applied {
                self.applied(&proposed.run);
            }
            match proposed.answer {
                Some(answer) => self.answered(&[judged], answer),
                None => waiting.judged.push(judged),
            }
        }
    }

    /// What stats must say of it.
    fn applied(&mut self, run: &Run) {
        for (node, _, payload) in &run.hints {
            let bytes = payload.len() as u64;
            let enqueued = &mut self.went.entry(*node).or_default().enqueued;
            add(enqueued, Amount { hints: 1, bytes });
        }
        for (node, id) in &run.acks {
            let bytes = self.payload_bytes(*node, *id);
            self.acknowledged(*node, Amount { hints: 1, bytes });
        }
    }

    fn payload_bytes(&self, node: u64, id: HintId) -> u64 {
        let mut peeked = self.context().peeked.get(&node).into_iter().flatten();
        let hint = peeked.find(|hint| hint.id == id);
        hint.map_or(0, |hint| hint.points.len() as u64)
    }

    /// Hands all in, and waits for all answers.
    pub fn drive(&mut self, mut all: Vec<Waiting>) {
        let started = Instant::now();
        loop {
            for waiting in &mut all {
                self.poll(waiting);
            }
            let (done, left): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|it| it.answer.is_some());
            all = left;
            let any = !done.is_empty();
            for waiting in done {
                let answer = waiting.answer.unwrap();
                self.answered(&waiting.judged, answer);
            }
            if all.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "no answer");
            if !any {
                thread::park_timeout(Duration::from_millis(200));
            }
        }
    }

    /// Holds an answer against what the model made of the runs.
    pub fn answered(&mut self, runs: &[Judged], answer: Answer) {
        self.count("transactions", 1);
        if self.failing && self.failed(runs, &answer) {
            return;
        }
        let Some((last, lost)) = runs.split_last() else {
            return self.broken.push(format!("{answer:?} without a run"));
        };
        self.count("run again", lost.len() as u64);
        let needless = lost.iter().any(|run| run.verdict != Verdict::Conflict);
        self.expect(!needless, || format!("run again needlessly: {lost:?}"));
        let told = match (&last.verdict, &answer) {
            (Verdict::Applied, Ok(done)) => {
                let read_it = done.reads.as_ref().is_none_or(|it| *it == last.reads);
                self.expect(read_it, || {
                    format!("{done:?} is not what the last run read")
                });
                self.expect_ids(last, done.hints.as_deref());
                Some("committed")
            }
            (Verdict::NotNext(expected), Err(TransactionError::NotNext { hint })) => {
                (expected == hint).then_some("not next")
            }
            (Verdict::GivesUp(ending), Err(error)) => gave_up(*ending, error),
            _ => None,
        };
        match told {
            Some(what) => self.count(what, 1),
            None => self.broken.push(format!("{answer:?}, expected {last:?}")),
        }
    }

    fn expect_ids(&mut self, run: &Judged, ids: Option<&[HintId]>) {
        let Some(ids) = ids else { return };
        self.count("hints", ids.len() as u64);
        self.expect(ids.len() == run.hints.len(), || {
            format!("{ids:?} for {run:?}")
        });
        for (hint, id) in run.hints.iter().zip(ids) {
            let learnt = self.history.learn(hint, *id);
            self.expect_ok("ids", learnt);
        }
    }

    /// Whether this is what storage that fails makes of it.
    fn failed(&mut self, runs: &[Judged], answer: &Answer) -> bool {
        let Err(error @ TransactionError::Enqueue(_)) = answer else {
            return false;
        };
        match error.outcome() {
            FailedOutcome::Unknown => self.count("unknown", 1),
            FailedOutcome::Refused => {
                self.count("refused", 1);
                if let Some(run) = runs.last() {
                    self.history.refused(run.number);
                }
            }
        }
        true
    }
}

pub fn add(sum: &mut Amount, more: Amount) {
    sum.hints += more.hints;
    sum.bytes += more.bytes;
}

/// What a closure gave up with is told as what it is.
fn gave_up(ending: Ending, error: &TransactionError) -> Option<&'static str> {
    match (ending, error) {
        (Ending::Abort, TransactionError::Aborted(cause)) if cause.to_string() == "told to" => {
            Some("aborted")
        }
        (Ending::Panic, TransactionError::Panicked(text)) if text == "injected by a test" => {
            Some("panicked")
        }
        // Which it is was looked at within the closure.
        (
            Ending::TooLarge(_),
            TransactionError::TransactionTooLarge { .. } | TransactionError::Enqueue(_),
        ) => Some("too large"),
        _ => None,
    }
}
