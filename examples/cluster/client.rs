//! A client: writes the points of one series, in order, and repeats what may have gone down with
//! the coordinator.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hinted_handoff::ShardId;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::{
    points::Point,
    protocol::{COORDINATOR, Connection, CoordinatorAnswer, CoordinatorRequest, Failure},
};

/// Points a write.
const WRITE_POINTS: usize = 5;
/// From one write of a client to its next one: slow enough for the story to be watched.
const PACE: Duration = Duration::from_millis(25);
/// Longer than the coordinator takes for a write in the worst case.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Before a coordinator that is gone is tried again.
const RECONNECT: Duration = Duration::from_millis(50);

/// What all clients did so far.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Points that are acknowledged and need not be repeated, as far as is known.
    pub points: AtomicU64,
    /// Writes acknowledged, repeated ones included.
    pub acknowledged: AtomicU64,
    /// Writes that were acknowledged but not settled when the coordinator died, and so written
    /// again.
    pub repeated: AtomicU64,
    /// Writes that did not reach their level, and were tried again.
    pub refused: AtomicU64,
}

pub struct Client {
    root: PathBuf,
    shard: ShardId,
    writes: Vec<Write>,
    ledger: Arc<Ledger>,
    connection: Option<Connection>,
}

struct Write {
    lines: String,
    points: u64,
}

impl Client {
    pub fn new(root: PathBuf, shard: ShardId, points: &[Point], ledger: Arc<Ledger>) -> Self {
        let writes = points.chunks(WRITE_POINTS).map(|points| {
            let lines: Vec<String> = points.iter().map(Point::line).collect();
            Write {
                lines: lines.join("\n"),
                points: points.len() as u64,
            }
        });
        Client {
            root,
            shard,
            writes: writes.collect(),
            ledger,
            connection: None,
        }
    }

    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Returns when every write is acknowledged and settled.
    ///
    /// A quorum is not all: when the coordinator dies, the third copy of a write acknowledged a
    /// moment ago may be neither at its replica nor in a hint. So the client goes back to the first
    /// write that was not settled. Repeating a write is harmless, since a point is an upsert; the
    /// replicas count these as redundant.
    pub async fn run(mut self) -> Result<(), Failure> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = 0;
        // Writes right before `next` that are acknowledged but not settled: their numbers at the
        // coordinator.
        let mut unsettled: VecDeque<u64> = VecDeque::new();
        loop {
            pace.tick().await;
            let request = match self.writes.get(next) {
                Some(write) => CoordinatorRequest::Write {
                    shard: self.shard,
                    lines: write.lines.clone(),
                },
                None if unsettled.is_empty() => return Ok(()),
                None => CoordinatorRequest::Status,
            };
            let settled = match self.ask(&request).await {
                Ok(CoordinatorAnswer::Written { number, settled }) => {
                    unsettled.push_back(number);
                    self.acknowledge(next);
                    next += 1;
                    settled
                }
                Ok(CoordinatorAnswer::Status(status)) => status.settled,
                Ok(CoordinatorAnswer::NotWritten(_)) => {
                    self.ledger.refused.fetch_add(1, Relaxed);
                    continue;
                }
                Ok(CoordinatorAnswer::Closed) => {
                    return Err("the coordinator was shut down before all was written".into());
                }
                // The coordinator is gone, and what becomes of the write in flight is unknown.
                Err(_) => {
                    self.connection = None;
                    while unsettled.pop_back().is_some() {
                        next -= 1;
                        self.take_back(next);
                    }
                    sleep(RECONNECT).await;
                    continue;
                }
            };
            while unsettled.front().is_some_and(|number| *number <= settled) {
                unsettled.pop_front();
            }
        }
    }

    async fn ask(&mut self, request: &CoordinatorRequest) -> Result<CoordinatorAnswer, Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let opened = Connection::open(&self.root, COORDINATOR).await?;
                self.connection.insert(opened)
            }
        };
        timeout(ANSWER_MAX, connection.call(request)).await?
    }

    fn acknowledge(&self, write: usize) {
        self.ledger.acknowledged.fetch_add(1, Relaxed);
        self.ledger.points.fetch_add(self.points(write), Relaxed);
    }

    fn take_back(&self, write: usize) {
        self.ledger.repeated.fetch_add(1, Relaxed);
        self.ledger.points.fetch_sub(self.points(write), Relaxed);
    }

    fn points(&self, write: usize) -> u64 {
        self.writes.get(write).map_or(0, |write| write.points)
    }
}
