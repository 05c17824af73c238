//! A host that shares its database with its hints, as a child process: transactions, plain rows,
//! plain hints, a consumer; it shuts down, opens again, and tells its parent.

mod consuming;
mod failure;
pub(super) mod manual_node;
mod rows;
mod writing;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::{failure::Failure, manual_node::MANUAL_NODE};
use super::{
    event::{Event, tell},
    row_event::RowEvent,
    workload::{Node, to_its_end},
};
use hinted_handoff::{Config, Health, HintedHandoff, database_config, open_database, sled::Db};
use rows::Tables;

/// Tasks that write, each to a shard of its own, so that the order of its numbers is the order of
/// the shard.
const WRITERS: u64 = 4;

/// How the host writes a row and its hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// In transactions, as it should.
    Transactions,
    /// First the row, then the hint: for a control.
    TwoSteps,
    /// In transactions, and many other rows directly to sled, which bounds its log by nothing: for
    /// a control.
    DirectRows,
}

/// What a child is told to do.
#[derive(Debug, Clone)]
pub struct TransactionalWorkload {
    /// How to open the store; `dir` is that of the host's database.
    pub config: Config,
    /// Decides everything random in it.
    pub seed: u64,
    /// The first number it gives to a write.
    pub first_number: u64,
    /// Deliver and consume all that is pending, write nothing, close, and look once more at what is
    /// there.
    pub drain: bool,
    /// How long to work, in one or several openings of the store, if nothing stops it before.
    pub work_for: Duration,
    /// Of a hundred buffered writes, how many wait until they are durable.
    pub syncs_percent: u8,
    /// How rows and hints are written.
    pub manner: Manner,
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Work(Duration),
    Drain,
    Look,
}

/// From one opening of the store to the next.
struct Session {
    workload: TransactionalWorkload,
    handoff: HintedHandoff<Bytes>,
    node: Arc<Node>,
    tables: Tables,
    /// The next number, of the whole life.
    numbers: Arc<AtomicU64>,
    seed: u64,
    stop: AtomicBool,
}

impl TransactionalWorkload {
    /// Does it, in this process. The exit code is 0 if it came to its end and closed cleanly.
    pub fn run(self) -> ExitCode {
        to_its_end("the transactional workload", self.live())
    }

    async fn live(mut self) -> Result<(), Failure> {
        self.config.manual_nodes = [MANUAL_NODE].into();
        let mut random = fastrand::Rng::with_seed(self.seed);
        let numbers = Arc::new(AtomicU64::new(self.first_number));
        let until = Instant::now() + self.work_for;
        let mut database = None;
        let mut looks = false;
        loop {
            let db = match database.take() {
                Some(db) => db,
                None => open_database(&database_config(&self.config.dir))?,
            };
            let purpose = match self.drain {
                true if looks => Purpose::Look,
                true => Purpose::Drain,
                false => Purpose::Work(Duration::from_millis(random.u64(30..200))),
            };
            let closed = self
                .session(&db, purpose, random.u64(..), &numbers)
                .await?
                .shut_down()
                .await?;
            if !closed {
                // All of sled goes, and what comes next finds what is on disk.
                drop(db);
                tell(&Event::Reopened)?;
                continue;
            }
            tell(&Event::Closed)?;
            if purpose == Purpose::Look || (!self.drain && Instant::now() >= until) {
                return Ok(());
            }
            looks = self.drain;
            // Half of the time in the same database.
            database = random.bool().then_some(db);
        }
    }

    /// Opens the store, tells of all that is there, and does what it was opened for.
    async fn session(
        &self,
        db: &Db,
        purpose: Purpose,
        seed: u64,
        numbers: &Arc<AtomicU64>,
    ) -> Result<Session, Failure> {
        let tables = Tables::open(db)?;
        let node = Node::new(seed, purpose == Purpose::Drain);
        // Nothing is sent before what is there is told.
        let shut = node.gate.write().await;
        let handoff = HintedHandoff::open_in(db, self.config.clone(), Arc::clone(&node)).await?;
        let stats = handoff.stats();
        if let Some(damage) = stats.store.damage.first() {
            return Err(format!("damage at open: {damage:?}").into());
        }
        let pending = stats.nodes.iter().map(|node| node.pending.hints).sum();
        tell(&Event::Opened { pending })?;
        for node in &stats.nodes {
            let (node, hints) = (node.node, node.pending.hints);
            tell(&Event::Rows(RowEvent::Pending { node, hints }))?;
        }
        tables.tell_all()?;
        drop(shut);
        let session = Arc::new(Session {
            workload: self.clone(),
            handoff,
            node,
            tables,
            numbers: Arc::clone(numbers),
            seed,
            stop: AtomicBool::new(false),
        });
        match purpose {
            Purpose::Work(time) => session.work(time).await?,
            Purpose::Drain => session.drain().await?,
            Purpose::Look => {}
        }
        Arc::into_inner(session).ok_or_else(|| "a task of the workload lives on".into())
    }
}

impl Session {
    fn goes_on(&self) -> bool {
        !self.stop.load(Acquire) && matches!(self.handoff.health(), Health::Serving)
    }

    fn random(&self, task: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed ^ (task << 32))
    }

    fn next_numbers(&self, count: u64) -> u64 {
        self.numbers.fetch_add(count, Relaxed)
    }

    /// Everything at once, until the time is over or the store fails.
    async fn work(self: &Arc<Self>, time: Duration) -> Result<(), Failure> {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..WRITERS {
            let session = Arc::clone(self);
            tasks.spawn(async move { session.write(task).await });
        }
        let session = Arc::clone(self);
        tasks.spawn(async move { session.consume().await });
        let session = Arc::clone(self);
        tasks.spawn(async move { session.settle_now_and_then().await });
        if self.workload.manner == Manner::DirectRows {
            let session = Arc::clone(self);
            tasks.spawn_blocking(move || session.write_directly());
        }
        let until = Instant::now() + time;
        while self.goes_on() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.store(true, Release);
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Until nothing is pending. The parent bounds this wait.
    async fn drain(self: &Arc<Self>) -> Result<(), Failure> {
        let session = Arc::clone(self);
        let consuming = tokio::spawn(async move { session.consume().await });
        let is_pending = || {
            let stats = self.handoff.stats();
            stats.nodes.iter().any(|node| node.pending.hints > 0)
        };
        while is_pending() && !consuming.is_finished() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.stop.store(true, Release);
        consuming.await??;
        let nodes = self.handoff.stats().nodes;
        let delivered = nodes.iter().map(|node| node.delivered.hints).sum();
        Ok(tell(&Event::CaughtUp { delivered })?)
    }

    async fn settle_now_and_then(&self) -> Result<(), Failure> {
        let mut random = self.random(100);
        while self.goes_on() {
            tokio::time::sleep(Duration::from_millis(random.u64(1..40))).await;
            if random.u8(..100) < self.workload.syncs_percent {
                self.node.settle(&self.handoff).await?;
            }
        }
        Ok(())
    }

    /// False if the store had failed: then the database must be opened again, which is the host's
    /// to do.
    async fn shut_down(self) -> Result<bool, Failure> {
        let closed = self.handoff.shutdown().await;
        match (self.handoff.health(), closed) {
            (Health::RestartRequired(cause), _) => Err(Box::new(cause)),
            (_, closed) => Ok(closed.is_ok()),
        }
    }
}
