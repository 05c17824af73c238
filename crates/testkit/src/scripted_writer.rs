//! A `ShardWriter` that does as it is told and remembers what it saw.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use hinted_handoff::{HintId, NodeId, Pong, ShardId, ShardWrite, ShardWriter, WriteError};

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Take it.
    Take,
    /// Take it after a while.
    Slow(Duration),
    /// Fail in a way that is worth a retry.
    Retry,
    /// Fail, and ask to be left alone for so long.
    RetryAfter(Duration),
    /// Refuse it for good.
    Reject,
    /// Refuse it for good after a while.
    RejectLate(Duration),
    /// Say that the shard is gone.
    Obsolete,
    /// Take the first so many batches only.
    Partial(usize),
    /// Never answer.
    Hang,
    /// Panic.
    Panic,
}

/// A call that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it came.
    pub at: Instant,
    /// For whom.
    pub node: NodeId,
    /// For which shard.
    pub shard: ShardId,
    /// The ids of the hints; empty for a direct write.
    pub hints: Vec<HintId>,
    /// The payloads, in order.
    pub points: Vec<Bytes>,
    /// What was answered.
    pub reply: Reply,
}

impl Seen {
    /// The payloads that were taken, once the reply is given.
    pub fn taken(&self) -> &[Bytes] {
        let taken = self.reply.taken().min(self.points.len());
        self.points.split_at(taken).0
    }
}

impl Reply {
    /// How many batches it takes at most.
    fn taken(self) -> usize {
        match self {
            Reply::Take | Reply::Slow(_) => usize::MAX,
            Reply::Partial(taken) => taken,
            _ => 0,
        }
    }
}

type Script = Box<dyn FnMut(&ShardWrite<Bytes>) -> Reply + Send>;
type PingScript = Box<dyn FnMut(NodeId) -> Reply + Send>;

/// A writer that follows a script.
///
/// `script` and `on_ping` each guard their closure while it decides, `seen` the list of calls; none
/// is held while another is taken or across an await.
pub struct ScriptedWriter {
    script: Mutex<Script>,
    on_ping: Mutex<PingScript>,
    /// Whether pings are scripted.
    asks: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    pings: Mutex<Vec<(Instant, NodeId)>>,
    taken: watch::Sender<usize>,
}

impl fmt::Debug for ScriptedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedWriter").finish_non_exhaustive()
    }
}

impl ScriptedWriter {
    /// A writer that takes everything.
    pub fn taking() -> Self {
        Self::new(|_| Reply::Take)
    }

    /// A writer whose nodes cannot be reached.
    pub fn down() -> Self {
        Self::new(|_| Reply::Retry).with_pings(|_| Reply::Retry)
    }

    /// A writer that asks `script` what to answer to each write; pings succeed.
    pub fn new(script: impl FnMut(&ShardWrite<Bytes>) -> Reply + Send + 'static) -> Self {
        ScriptedWriter {
            script: Mutex::new(Box::new(script)),
            on_ping: Mutex::new(Box::new(|_| Reply::Take)),
            asks: AtomicBool::new(false),
            seen: Mutex::default(),
            pings: Mutex::default(),
            taken: watch::Sender::new(0),
        }
    }

    /// Asks `script` what to answer to each ping.
    pub fn with_pings(self, script: impl FnMut(NodeId) -> Reply + Send + 'static) -> Self {
        *self.on_ping.lock() = Box::new(script);
        self
    }

    /// Changes the script.
    pub fn follow(&self, script: impl FnMut(&ShardWrite<Bytes>) -> Reply + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    /// Changes what pings are answered. Before this, what is no error asks nobody.
    pub fn follow_pings(&self, script: impl FnMut(NodeId) -> Reply + Send + 'static) {
        self.asks.store(true, Relaxed);
        *self.on_ping.lock() = Box::new(script);
    }

    /// All writes seen so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// When each node was pinged.
    pub fn pings(&self) -> Vec<(Instant, NodeId)> {
        self.pings.lock().clone()
    }

    /// The payloads that were taken, in order.
    pub fn taken(&self) -> Vec<Bytes> {
        let seen = self.seen.lock();
        seen.iter().flat_map(Seen::taken).cloned().collect()
    }

    /// Waits until `payloads` were taken. The caller bounds the wait.
    pub async fn until_taken(&self, payloads: usize) {
        let mut taken = self.taken.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = taken.wait_for(|taken| *taken >= payloads).await;
    }

    async fn answer(reply: Reply) -> Result<(), WriteError> {
        match reply {
            Reply::Take => Ok(()),
            Reply::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Reply::Retry => Err(WriteError::retry("scripted: down")),
            Reply::RetryAfter(after) => Err(WriteError::retry_after(after, "scripted: busy")),
            Reply::Reject => Err(WriteError::reject("scripted: field type conflict")),
            Reply::RejectLate(delay) => {
                tokio::time::sleep(delay).await;
                Err(WriteError::reject("scripted: field type conflict"))
            }
            Reply::Obsolete => Err(WriteError::obsolete("scripted: shard dropped")),
            Reply::Partial(taken) => Err(WriteError::partial(taken, "scripted: disk full")),
            Reply::Hang => std::future::pending().await,
            #[allow(clippy::panic)]
            Reply::Panic => panic!("scripted: panic"),
        }
    }
}

impl ShardWriter<Bytes> for ScriptedWriter {
    async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
        self.pings.lock().push((Instant::now(), node));
        let pong = match self.asks.load(Relaxed) {
            true => Pong::Answered,
            false => Pong::NotAsked,
        };
        let reply = (self.on_ping.lock())(node);
        Self::answer(reply).await.map(|()| pong)
    }

    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let reply = (self.script.lock())(&write);
        let payloads = write.batches.len();
        self.seen.lock().push(Seen {
            at: Instant::now(),
            node: write.node,
            shard: write.shard,
            hints: write
                .batches
                .iter()
                .filter_map(|batch| batch.hint)
                .collect(),
            points: write
                .batches
                .into_iter()
                .map(|batch| batch.points)
                .collect(),
            reply,
        });
        let answer = Self::answer(reply).await;
        let payloads = reply.taken().min(payloads);
        self.taken.send_modify(|taken| *taken += payloads);
        answer
    }
}
