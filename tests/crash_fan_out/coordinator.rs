//! A coordinator: the process that is stopped. It writes by a `PointsWriter` to owners that live in
//! its parent, and says what it was answered. Or it has everything delivered, and says what is a
//! dead letter or in the loss journal.

use std::{
    collections::HashMap,
    io::{self, Stdout},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{
    Config,
    ConsistencyLevel::{All, Any, One, Quorum},
    HandoffError, HintId, HintedHandoff, NodeId, PointsWriter, Pong, Shard, ShardId, ShardWrite,
    ShardWriter, WriteError,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::wire::{Replied, Reply, Sent, Told, hear, points, say};

pub const NODES: u64 = 3;
/// Each writes one after the other, half of it to a shard of its own, whose number is the task's.
pub const TASKS: u64 = 24;
/// Of the shards that have one write each: the number of the write is added.
pub const OWN_SHARDS: u64 = 1_000;
/// How long one works that nobody stops.
const WORKS_FOR: Duration = Duration::from_millis(350);
/// Dead letters that are listed at a time.
const PAGE: usize = 100;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a coordinator is to do.
pub struct Orders {
    pub config: Config,
    pub seed: u64,
    /// The number of its first write.
    pub first: u64,
    /// Have everything delivered instead of writing.
    pub audits: bool,
}

impl Orders {
    pub fn to_arguments(&self) -> [String; 5] {
        let config = toml::to_string(&self.config).unwrap();
        let (seed, first) = (self.seed.to_string(), self.first.to_string());
        [
            "coordinator".to_owned(),
            config,
            seed,
            first,
            self.audits.to_string(),
        ]
    }

    fn of_arguments() -> Option<Orders> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [role, config, seed, first, audits] = arguments.as_slice() else {
            return None;
        };
        (role == "coordinator").then(|| Orders {
            config: toml::from_str(config).unwrap(),
            seed: seed.parse().unwrap(),
            first: first.parse().unwrap(),
            audits: audits.parse().unwrap(),
        })
    }
}

/// If this process is a coordinator, does its work. Call it first.
pub fn as_child() -> Option<ExitCode> {
    let orders = Orders::of_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    Some(match runtime.block_on(live(orders)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the coordinator ended early: {error}: {:?}", error.source());
            ExitCode::FAILURE
        }
    })
}

/// The owners, at the other end of the pipes. `out` and `calls` are held for a moment each, neither
/// within the other.
struct Owners {
    out: Mutex<Stdout>,
    calls: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next_call: AtomicU64,
}

impl Owners {
    fn connect() -> Arc<Owners> {
        let owners = Arc::new(Owners {
            out: Mutex::new(io::stdout()),
            calls: Mutex::default(),
            next_call: AtomicU64::new(0),
        });
        let heard_by = Arc::clone(&owners);
        std::thread::spawn(move || {
            let mut stdin = io::stdin().lock();
            while let Some(Replied { call, reply }) = hear(&mut stdin) {
                if let Some(caller) = heard_by.calls.lock().remove(&call) {
                    // It may have given up.
                    let _ = caller.send(reply);
                }
            }
        });
        owners
    }

    fn tell(&self, what: &Told) {
        if say(&mut *self.out.lock(), what).is_err() {
            // Whoever would judge is gone.
            std::process::exit(1);
        }
    }

    async fn call(&self, what: impl FnOnce(u64) -> Told) -> Result<(), WriteError> {
        let call = self.next_call.fetch_add(1, Relaxed);
        let (tell, told) = oneshot::channel();
        self.calls.lock().insert(call, tell);
        self.tell(&what(call));
        match told.await {
            Ok(Reply::Take) => Ok(()),
            Ok(Reply::Partial(taken)) => Err(WriteError::partial(taken, "enough")),
            Ok(Reply::Reject) => Err(WriteError::reject("poison")),
            Ok(Reply::Obsolete) => Err(WriteError::obsolete("the shard is gone")),
            Ok(Reply::Retry) | Err(_) => Err(WriteError::retry("not now")),
        }
    }
}

impl ShardWriter<Bytes> for Owners {
    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        let node = node.0;
        let answered = self.call(|call| Told::Ping { call, node }).await;
        answered.map(|()| Pong::Answered)
    }

    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let copies = write.batches.into_iter().map(|batch| Sent {
            is_hint: batch.hint.is_some(),
            write: batch.write,
            points: batch.points.to_vec(),
        });
        let copies = copies.collect();
        let (node, shard) = (write.node.0, write.shard.0);
        let send = |call| Told::Send {
            call,
            node,
            shard,
            copies,
        };
        self.call(send).await
    }
}

async fn live(orders: Orders) -> Result<(), Failure> {
    let owners = Owners::connect();
    let handoff = HintedHandoff::open(orders.config.clone(), Arc::clone(&owners)).await?;
    let damage = handoff.stats().store.damage;
    if !damage.is_empty() {
        return Err(format!("damage at open: {damage:?}").into());
    }
    owners.tell(&Told::Opened);
    match orders.audits {
        true => audit(&handoff, &owners).await?,
        false => work(&handoff, &owners, &orders).await,
    }
    handoff.shutdown().await?;
    owners.tell(&Told::Closed);
    Ok(())
}

async fn work(handoff: &HintedHandoff<Bytes>, owners: &Arc<Owners>, orders: &Orders) {
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(orders.first));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let client = Client {
            writer: PointsWriter::new(handoff.clone(), Arc::clone(owners)),
            owners: Arc::clone(owners),
            random: fastrand::Rng::with_seed(orders.seed ^ task << 8),
            task,
            next: Arc::clone(&next),
            stop: Arc::clone(&stop),
        };
        tasks.spawn(client.write_on());
    }
    let (handoff, owners, stopped) = (handoff.clone(), Arc::clone(owners), Arc::clone(&stop));
    tasks.spawn(async move {
        while !stopped.load(Relaxed) && handoff.sync().await.is_ok() {
            owners.tell(&Told::Alive);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(WORKS_FOR).await;
    stop.store(true, Relaxed);
    // Some are stopped in the middle by the shutdown.
    tokio::time::sleep(Duration::from_millis(orders.seed % 20)).await;
}

struct Client {
    writer: PointsWriter<Bytes, Arc<Owners>>,
    owners: Arc<Owners>,
    random: fastrand::Rng,
    task: u64,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn write_on(mut self) {
        while !self.stop.load(Relaxed) {
            let number = self.next.fetch_add(1, Relaxed);
            let shard = match self.random.bool() {
                true => self.task,
                false => OWN_SHARDS + number,
            };
            let bytes = match self.random.u8(..40) {
                0 => self.random.usize(..40_000),
                _ => self.random.usize(..400),
            };
            let level = [Any, One, One, Quorum, Quorum, All][self.random.usize(..6)];
            self.owners.tell(&Told::Tried { number, shard });
            let points = points(number, shard, bytes).into();
            let shard = Shard {
                id: ShardId(shard),
                owners: (1..=NODES).map(NodeId).collect(),
            };
            let write = self.writer.write(&shard, level, points);
            // A client that gives up, now and then.
            let patience = match self.random.u8(..20) {
                0 => Duration::from_micros(self.random.u64(..20_000)),
                _ => Duration::MAX,
            };
            let answer = tokio::time::timeout(patience, write).await;
            let is_ok = matches!(answer, Ok(Ok(_)));
            if answer.is_ok() {
                self.owners.tell(&Told::Answered { number, is_ok });
            }
            // Errors come early, as a rule.
            if !is_ok || self.random.u8(..4) == 0 {
                let wait = Duration::from_micros(self.random.u64(..10_000));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Waits until nothing is pending, for as long as the parent does.
async fn audit(handoff: &HintedHandoff<Bytes>, owners: &Owners) -> Result<(), Failure> {
    while handoff.stats().store.pending.hints > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for node in 1..=NODES {
        let mut after = None;
        loop {
            let letters = letters(handoff, NodeId(node), after).await?;
            for id in &letters {
                let letter = handoff.dead_letter(NodeId(node), *id).await?;
                let points = letter.raw.to_vec();
                owners.tell(&Told::Letter { node, points });
            }
            match letters.last() {
                Some(last) => after = Some(*last),
                None => break,
            }
        }
    }
    let losses = handoff.losses(0).await?;
    if !losses.unreadable.is_empty() || !losses.folded.is_empty() {
        return Err(format!("the loss journal is no longer all there: {losses:?}").into());
    }
    for (_, loss) in losses.entries {
        owners.tell(&Told::Lost {
            node: loss.node.0,
            shard: loss.shard.map(|shard| shard.0),
            reason: loss.reason,
            hints: loss.amount.hints,
        });
    }
    owners.tell(&Told::Audited);
    Ok(())
}

async fn letters(
    handoff: &HintedHandoff<Bytes>,
    node: NodeId,
    after: Option<HintId>,
) -> Result<Vec<HintId>, HandoffError> {
    match handoff.dead_letters(node, after, PAGE).await {
        Ok(letters) => Ok(letters.into_iter().map(|letter| letter.id).collect()),
        // Nothing was ever hinted for it.
        Err(HandoffError::UnknownNode { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
