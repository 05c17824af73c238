//! Fan-out: a write to all owners of a shard at once, with a consistency level, and a hint for each owner that missed it.

use std::{error::Error, sync::Arc, sync::atomic::Ordering::Relaxed};

use tokio::{sync::mpsc, time::timeout};

use crate::{
    admission::Place,
    error::EnqueueError,
    payload::Payload,
    service::HintedHandoff,
    shard_writer::{Batch, ShardWrite, ShardWriter, WriteError},
    store::Hint,
    types::{ConsistencyLevel, NodeId, ShardId},
};

/// A shard and the nodes that own a copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The shard.
    pub id: ShardId,
    /// Its owners, each once.
    pub owners: Vec<NodeId>,
}

/// A write that reached its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// So many owners had taken it when the level was reached; the others go on being written to or hinted.
    Written {
        /// Owners that have it so far.
        owners: usize,
    },
    /// Only at [`ConsistencyLevel::Any`]: no owner took it, but it is queued and will be delivered.
    Queued {
        /// Owners it is queued for.
        owners: usize,
    },
}

/// Why a write did not reach its level. Whatever was hinted is delivered all the same, so a client that repeats the
/// write should expect it twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PointsWriteError {
    /// Some owners have it, but fewer than the level asks for.
    #[error("partially written: {} of {} owners have it, {} were asked for; {} more are hinted", .0.written, .0.owners, .0.required, .0.hinted)]
    PartiallyWritten(#[source] Tally),
    /// No owner answered within the write timeout.
    #[error("timed out: none of {} owners answered in time, {} were asked for; {} are hinted", .0.owners, .0.required, .0.hinted)]
    TimedOut(#[source] Tally),
    /// An owner said that it will never accept the write, and no owner has it.
    #[error("refused: none of {} owners took it, and at least one never will; {} are hinted", .0.owners, .0.hinted)]
    Refused(#[source] Tally),
    /// No owner could be reached.
    #[error("not written: none of {} owners could be reached, {} were asked for; {} are hinted", .0.owners, .0.required, .0.hinted)]
    Unreachable(#[source] Tally),
    /// No owner was written to, since that would have overtaken what waits for it
    /// ([`WriteOrdering::Strict`](crate::WriteOrdering::Strict)).
    #[error("queued: each of {} owners has a backlog in this shard, {} were asked for; behind it {} are hinted", .0.owners, .0.required, .0.hinted)]
    Backlogged(#[source] Tally),
    /// No owner has it, and it could not be queued for a single one: nothing will deliver it.
    #[error("not stored: none of {} owners took it and no hint could be stored", .0.owners)]
    NotStored(#[source] Tally),
    /// The shard names no owner, or one twice.
    #[error("shard {shard} has {problem}; give each owner once")]
    BadOwners {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        problem: &'static str,
    },
    /// The points could not be hinted if an owner missed them: they do not encode, are
    /// empty or too large. Nothing was sent.
    #[error("refused: nothing was sent")]
    BadPoints(#[source] EnqueueError),
}

/// How a write went, owner by owner, and the first thing that went wrong.
#[derive(Debug, thiserror::Error)]
#[error("the first failure, of node {node}")]
pub struct Tally {
    /// Owners that took it.
    pub written: usize,
    /// Owners it is queued for, as durably as the configuration asks.
    pub hinted: usize,
    /// All owners.
    pub owners: usize,
    /// Owners that the level asks for.
    pub required: usize,
    /// The owner that failed first.
    pub node: NodeId,
    /// What it said.
    #[source]
    pub cause: OwnerError,
}

/// Why an owner did not take a write directly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The node failed or refused.
    #[error("the node did not take it")]
    Write(#[source] WriteError),
    /// It did not answer in time.
    #[error("the node did not answer within write_timeout = {}", humantime::format_duration(*.0))]
    TimedOut(std::time::Duration),
    /// The write panicked in the host's `ShardWriter`.
    #[error("the shard writer panicked")]
    Panicked(#[source] Box<dyn Error + Send + Sync>),
    /// It was not written to directly: older writes to the shard wait for it, or the store does not serve, so that nobody can tell
    /// ([`WriteOrdering::Strict`](crate::WriteOrdering::Strict)).
    #[error("the node has a backlog in this shard, and the write was to be queued behind it")]
    Backlogged,
    /// It failed, and the hint could not be stored either.
    #[error("the node did not take it directly ({direct}) and its hint was not stored")]
    NotHinted {
        /// What the node said.
        direct: Box<OwnerError>,
        /// Why there is no hint.
        #[source]
        hint: EnqueueError,
    },
}

impl OwnerError {
    /// What the node itself said, whatever became of the hint.
    fn direct(&self) -> &OwnerError {
        match self {
            OwnerError::NotHinted { direct, .. } => direct,
            other => other,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            OwnerError::Write(error) => error.is_retryable(),
            _ => true,
        }
    }
}

/// What became of one owner's copy.
enum Copy {
    Written,
    Hinted(OwnerError),
    /// Neither written nor hinted.
    Missed(OwnerError),
}

/// Writes to all owners of a shard, and hints for those that miss it.
pub struct PointsWriter<P: Payload, W> {
    handoff: HintedHandoff<P>,
    writer: Arc<W>,
}

impl<P: Payload, W> Clone for PointsWriter<P, W> {
    fn clone(&self) -> Self {
        PointsWriter {
            handoff: self.handoff.clone(),
            writer: Arc::clone(&self.writer),
        }
    }
}

impl<P: Payload + Clone, W: ShardWriter<P>> PointsWriter<P, W> {
    /// A fan-out over `writer`, with hints in `handoff`.
    pub fn new(handoff: HintedHandoff<P>, writer: W) -> Self {
        PointsWriter {
            handoff,
            writer: Arc::new(writer),
        }
    }

    /// Writes `points` to all owners of `shard` at once and returns as soon as `level` is reached, or when it no longer
    /// can be and every owner's fate is known.
    ///
    /// An owner has [`Config::write_timeout`](crate::Config::write_timeout) to answer. One that fails in a way that is
    /// worth a retry, or does not answer, gets a hint, at every level. The copies run in tasks of their own: dropping
    /// this future leaves the writes going on and the hints being made.
    ///
    /// With [`WriteOrdering::Strict`](crate::WriteOrdering::Strict) writes to a (node, shard) are in the order in which their futures were
    /// first polled. An owner for which older writes to the shard wait gets a hint at once, so at `One` and above it counts as
    /// one that was missed until it has caught up. A write may wait for the one before it: up to twice `write_timeout`, should that
    /// not be answered, and for its hint.
    ///
    /// Copies that the level did not wait for are in memory until their owner answers or their hint is stored: a process
    /// that dies in that moment loses them, though never below the level that was answered. Ask for
    /// [`ConsistencyLevel::All`] where that is too little; its error says for how many owners a hint is stored.
    ///
    /// # Errors
    /// [`PointsWriteError`], which tells a partial write, a timeout, a refusal and a write that no owner could be
    /// reached for apart, and says how many hints will be delivered all the same.
    pub async fn write(
        &self,
        shard: &Shard,
        level: ConsistencyLevel,
        points: P,
    ) -> Result<WriteOutcome, PointsWriteError> {
        let owners = check_owners(shard)?;
        let required = level.required(owners);
        let hint = self.handoff.encode(shard.id, &points);
        let hint = hint.map_err(PointsWriteError::BadPoints)?;
        let (tell, mut told) = mpsc::channel(owners);
        for node in shard.owners.iter().copied() {
            let (this, tell) = (self.clone(), tell.clone());
            let (points, hint) = (points.clone(), hint.clone());
            // Here, not in the task: the next call must not come first.
            let place = self.handoff.line_up(node, shard.id);
            self.handoff.runtime().spawn(async move {
                let copy = this.copy_to(node, points, hint, place).await;
                // Nobody listens once the level is reached or the caller gave up.
                let _ = tell.send((node, copy)).await;
            });
        }
        drop(tell);

        let (mut written, mut hinted) = (0, 0);
        let mut failures: Vec<(NodeId, OwnerError)> = Vec::new();
        while let Some((node, copy)) = told.recv().await {
            match copy {
                Copy::Written => written += 1,
                Copy::Hinted(cause) => {
                    hinted += 1;
                    failures.push((node, cause));
                }
                Copy::Missed(cause) => failures.push((node, cause)),
            }
            if written >= required {
                return Ok(WriteOutcome::Written { owners: written });
            }
        }
        if level == ConsistencyLevel::Any && hinted > 0 {
            return Ok(WriteOutcome::Queued { owners: hinted });
        }
        Err(failure(written, hinted, owners, required, failures))
    }

    /// [`write`](PointsWriter::write) for any thread that does not drive the runtime of the handoff. Blocks it.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_blocking(
        &self,
        shard: &Shard,
        level: ConsistencyLevel,
        points: P,
    ) -> Result<WriteOutcome, PointsWriteError> {
        pollster::block_on(self.write(shard, level, points))
    }

    /// One owner's copy: directly, or as a hint. In its turn, if it has a place in line.
    async fn copy_to(&self, node: NodeId, points: P, hint: Hint, place: Option<Place>) -> Copy {
        let counters = self.handoff.write_counters();
        let shard = hint.shard;
        let turn = match place {
            Some(place) => Some(place.turn().await),
            None => None,
        };
        let is_clear = match &turn {
            Some(turn) => turn.is_clear(self.handoff.store()),
            None => true,
        };
        let sent = match is_clear {
            true => self.send(node, shard, points).await,
            false => Err(OwnerError::Backlogged),
        };
        let cause = match sent {
            Ok(()) => {
                counters.direct.fetch_add(1, Relaxed);
                return Copy::Written;
            }
            Err(cause) => cause,
        };
        if !cause.is_retryable() {
            counters.rejected.fetch_add(1, Relaxed);
            return Copy::Missed(cause);
        }
        // Behind a backlog nobody is let past by a hint that is on its way, so writers share groups. After a direct write the turn
        // is kept until its hint is durable.
        let (until_handed_in, until_durable) = match is_clear {
            true => (None, turn),
            false => (turn, None),
        };
        let handed_in = self.handoff.hand_in(node, hint, until_durable).await;
        drop(until_handed_in);
        let accepted = match handed_in {
            Ok(handed_in) => handed_in.answer().await,
            Err(refused) => Err(refused),
        };
        match accepted {
            Ok(_) => {
                counters.hinted.fetch_add(1, Relaxed);
                if !is_clear {
                    counters.backlogged.fetch_add(1, Relaxed);
                }
                Copy::Hinted(cause)
            }
            Err(hint) => {
                counters.unstored.fetch_add(1, Relaxed);
                tracing::error!(node = node.0, shard = shard.0, error = %hint, "a write missed its node and was not hinted");
                Copy::Missed(OwnerError::NotHinted {
                    direct: Box::new(cause),
                    hint,
                })
            }
        }
    }

    async fn send(&self, node: NodeId, shard: ShardId, points: P) -> Result<(), OwnerError> {
        let writer = Arc::clone(&self.writer);
        let write = ShardWrite {
            node,
            shard,
            retired_below: None,
            batches: vec![Batch {
                hint: None,
                redriven_from: None,
                write: None,
                points,
            }],
        };
        // In a task of its own, so that a panic in the host's writer still ends in a hint.
        let mut sending = tokio::spawn(async move { writer.write_shard(write).await });
        let limit = self.handoff.write_timeout();
        match timeout(limit, &mut sending).await {
            // One batch: it was taken, or it was not.
            Ok(Ok(answer)) => match WriteError::settle(answer, 1) {
                Ok(_) => Ok(()),
                Err(error) => Err(OwnerError::Write(error)),
            },
            Ok(Err(panicked)) => Err(OwnerError::Panicked(panicked.into())),
            Err(_) => {
                sending.abort();
                // It may be at work this very moment. Nobody else's turn comes before it is over, if order matters.
                if self.handoff.keeps_order()
                    && let Ok(Ok(answer)) = timeout(limit, sending).await
                {
                    let taken = WriteError::settle(answer, 1);
                    return taken.map(drop).map_err(OwnerError::Write);
                }
                Err(OwnerError::TimedOut(limit))
            }
        }
    }
}

fn check_owners(shard: &Shard) -> Result<usize, PointsWriteError> {
    let bad = |problem| PointsWriteError::BadOwners {
        shard: shard.id,
        problem,
    };
    let mut sorted = shard.owners.clone();
    sorted.sort_unstable();
    sorted.dedup();
    match sorted.len() {
        0 => Err(bad("no owner")),
        owners if owners < shard.owners.len() => Err(bad("an owner twice")),
        owners => Ok(owners),
    }
}

/// Every owner's fate is known, and the level was not reached.
fn failure(
    written: usize,
    hinted: usize,
    owners: usize,
    required: usize,
    failures: Vec<(NodeId, OwnerError)>,
) -> PointsWriteError {
    let refused = failures
        .iter()
        .any(|(_, error)| !error.direct().is_retryable());
    let timed_out = failures
        .iter()
        .all(|(_, error)| matches!(error.direct(), OwnerError::TimedOut(_)));
    let backlogged = failures
        .iter()
        .all(|(_, error)| matches!(error.direct(), OwnerError::Backlogged));
    let stored = written + hinted > 0;
    // A level that was not reached has a failure; an owner's task that vanished with its runtime left none.
    let (node, cause) = failures.into_iter().next().unwrap_or((
        NodeId(0),
        OwnerError::Panicked("the runtime shut down during the write".into()),
    ));
    let tally = Tally {
        written,
        hinted,
        owners,
        required,
        node,
        cause,
    };
    if written > 0 {
        PointsWriteError::PartiallyWritten(tally)
    } else if refused {
        PointsWriteError::Refused(tally)
    } else if !stored {
        PointsWriteError::NotStored(tally)
    } else if backlogged {
        PointsWriteError::Backlogged(tally)
    } else if timed_out {
        PointsWriteError::TimedOut(tally)
    } else {
        PointsWriteError::Unreachable(tally)
    }
}
