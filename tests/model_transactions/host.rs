//! Carries the operations out on a shared database, and holds what comes of them against the model.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Amount, Config, Consumer, Durability, HintedHandoff, NodeId, database_config,
    internals::CommitFault,
    open_database,
    sled::{Db, IVec},
};
use hinted_handoff_testkit::ScriptedWriter;
use proptest_state_machine::StateMachineTest;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    history::History,
    operation::{MANUAL, Operation, Plan, Row, Step, TREES},
    runner::{Counts, Findings},
    script::Context,
    valves::Valves,
    waiting::Waiting,
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
    /// The storage was told to fail, or the handoff is shut down: what is handed in may be refused.
    pub failing: bool,
    /// Commits hang.
    pub hanging: bool,
    pub found: Findings,
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
    pub dead_lettered: Amount,
    /// There now.
    pub letters: Amount,
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
            hanging: false,
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
        min_free_disk: 0,
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
                let waiting = self.hand_in(requests);
                self.drive(waiting);
            }
            Operation::Abandon(requests) => {
                drop(self.hand_in(requests));
                self.found.count("abandoned", requests.len() as u64);
                self.sync();
            }
            Operation::Conflict {
                row,
                after,
                script,
                interferences,
            } => {
                let mut script = script.clone();
                let after = (*after).min(script.steps.len());
                script.steps.insert(after, Step::Pause);
                script.steps.insert(0, Step::Get(*row));
                script.steps.push(Step::Get(*row));
                self.found
                    .count("interferences", interferences.len() as u64);
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
            Operation::Reopen {
                in_flight,
                database,
            } => self.reopen(in_flight, *database),
            Operation::Crash {
                in_flight,
                delivered,
                log_percent,
            } => self.crash(in_flight, delivered.as_ref(), *log_percent),
            Operation::Fail { in_flight, panics } => self.fail(in_flight, *panics),
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
}

pub fn add(sum: &mut Amount, more: Amount) {
    sum.hints += more.hints;
    sum.bytes += more.bytes;
}
