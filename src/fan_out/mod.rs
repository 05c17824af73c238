//! Fan-out: a write to all owners of a shard at once, with a consistency level, and a hint for each
//! owner that missed it.

mod answer;
mod error;
mod keeping;
mod replica;
mod sending;
mod write;

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    blocking::block_on,
    payload::Payload,
    service::{NoRoom, handoff::HintedHandoff},
    shard_writer::ShardWriter,
    types::{ConsistencyLevel, NodeId, ShardId},
};
use answer::Asked;
pub use error::{OwnerError, PointsWriteError, Tally, WriteOutcome};
use replica::Replica;
use write::Write;

/// A shard and the nodes that own a copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The shard.
    pub id: ShardId,
    /// Its owners, each once.
    pub owners: Vec<NodeId>,
}

/// Writes to all owners of a shard, and hints for those that miss it.
///
/// ```
/// # use hinted_handoff::*;
/// use std::sync::Arc;
///
/// struct Cluster;
///
/// impl ShardWriter<String> for Cluster {
///     async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
///         match write.node {
///             NodeId(3) => Err(WriteError::retry("connection refused")),
///             _ => Ok(()),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut config = Config::new(dir.path().join("hints"));
/// config.answer = AnswerWhen::Accounted; // wait until the missed copy is a durable hint
/// let cluster = Arc::new(Cluster);
/// let handoff = HintedHandoff::open(config, Arc::clone(&cluster)).await?;
/// let writer = PointsWriter::new(handoff.clone(), cluster);
///
/// let shard = Shard { id: ShardId(7), owners: vec![NodeId(1), NodeId(2), NodeId(3)] };
/// writer.write(&shard, ConsistencyLevel::Quorum, "cpu v=1".to_owned()).await?;
/// let missed = handoff.stats().nodes.into_iter().find(|it| it.node == NodeId(3));
/// assert_eq!(missed.map(|it| it.pending.hints), Some(1));
/// # handoff.shutdown().await?;
/// # Ok(())
/// # }
/// ```
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

impl<P: Payload, W> fmt::Debug for PointsWriter<P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PointsWriter")
            .field("handoff", &self.handoff)
            .finish_non_exhaustive()
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

    /// Writes `points` to all owners of `shard` at once and returns as soon as `level` is reached,
    /// or cannot be reached any more ([`Config::fail_early`](crate::Config::fail_early)).
    ///
    /// **Each copy** goes on by itself, whether the caller waits or not. Its owner has
    /// [`Config::write_timeout`](crate::Config::write_timeout) to answer. If it fails in a way that
    /// is worth a retry, or does not answer, there is a hint, at every level. Nothing is sent to an
    /// owner that is known not to answer ([`NodeStats::gate`](crate::NodeStats::gate)), or to which
    /// [`Config::max_outstanding`](crate::Config::max_outstanding) writes are under way. The hint
    /// of a copy that failed or was not tried is made as soon as another owner has the write, or
    /// all have answered, and at the latest after half of
    /// [`Config::hint_after`](crate::Config::hint_after). A send that takes longer than
    /// `hint_after` has its hint made while it goes on; that waits, with all later hints of its
    /// (node, shard), until the send has ended, and is never sent if that succeeds.
    ///
    /// **A copy that its owner refuses**, while another owner takes the write, becomes a dead
    /// letter. If every owner whose fate is known refused it, the write is
    /// [`Refused`](PointsWriteError::Refused), and hints made for others leave as withdrawn; an
    /// owner that did not answer in time keeps its hint. **A copy that could be neither sent nor
    /// hinted** is recorded in the loss journal
    /// ([`LossReason::NotStored`](crate::LossReason::NotStored)), and may make the write an error
    /// ([`Config::on_not_stored`](crate::Config::on_not_stored)).
    ///
    /// **What an answer promises.** With [`AnswerWhen::Level`](crate::AnswerWhen::Level), the
    /// default, copies that the level did not wait for are in memory for at most `hint_after` and a
    /// commit: a process that dies in that time loses them, never below the level that was
    /// answered. With [`AnswerWhen::Accounted`](crate::AnswerWhen::Accounted) none is ever lost
    /// without a record.
    ///
    /// **The id.** All copies of a write bear the same [`WriteId`](crate::WriteId) in
    /// [`Batch::write`](crate::Batch::write), whether they are sent directly or as a hint.
    /// A client that repeats a write makes another one, with another id.
    ///
    /// With [`WriteOrdering::Strict`](crate::WriteOrdering::Strict) writes to a (node, shard) are
    /// in the order in which their futures were first polled. An owner for which older writes to
    /// the shard wait gets a hint at once, so at `One` and above it counts as one that was missed
    /// until it has caught up. A write may wait for the one before it until that is answered, or
    /// its hint is durable.
    ///
    /// Writes of 64 MiB in all may be under way, with their last copies; a call waits for room, for
    /// `write_timeout` at most.
    ///
    /// # Errors
    /// [`PointsWriteError`], which tells a partial write, a timeout, a refusal and a write that no
    /// owner could be reached for apart, and says how many hints will be delivered all the same.
    pub async fn write(
        &self,
        shard: &Shard,
        level: ConsistencyLevel,
        points: P,
    ) -> Result<WriteOutcome, PointsWriteError> {
        check_owners(shard)?;
        let pulse = self.handoff.replays().pulse();
        pulse.check().map_err(PointsWriteError::ReplayStopped)?;
        let counted = self.handoff.begin_write();
        let counted = counted.ok_or(PointsWriteError::ShutDown)?;
        let hint = self.handoff.encode(shard.id, &points);
        let mut hint = hint.map_err(PointsWriteError::BadPoints)?;
        hint.write = Some(self.handoff.next_write_id());
        let bytes = hint.payload_bytes();
        let copies = shard.owners.iter().map(|node| {
            // The place in line is taken here, not in the task: the next call must not come first.
            let place = self.handoff.line_up(*node, shard.id);
            Replica::new(*node, self.handoff.links().of(*node), place)
        });
        let copies: Vec<Replica> = copies.collect();
        // Behind the places: turns come in the order of the calls, and so does room.
        let room = self.handoff.room_for_write(bytes).await;
        let room = room.map_err(|none| match none {
            NoRoom::Full { bytes } => PointsWriteError::TooManyWrites { bytes },
            NoRoom::ShutDown => PointsWriteError::ShutDown,
            NoRoom::Stopped(why) => PointsWriteError::ReplayStopped(why),
        })?;
        let (tell, told) = oneshot::channel();
        let config = self.handoff.config();
        let asked = Asked {
            level,
            answer: config.answer,
            on_not_stored: config.on_not_stored,
            fail_early: config.fail_early,
        };
        let (handoff, writer) = (self.handoff.clone(), Arc::clone(&self.writer));
        self.handoff.runtime().spawn(async move {
            // Here, since its times are those of this runtime.
            let (points, caller) = ((points, hint), (tell, (counted, room)));
            let write = Write::new(handoff, writer, asked, points, copies, caller);
            write.run().await;
        });
        tokio::select! {
            biased;
            // The task ends untold only with its runtime.
            told = told => told.unwrap_or(Err(PointsWriteError::Abandoned)),
            _ = pulse.stopped() => Err(PointsWriteError::Abandoned),
        }
    }

    /// [`write`](PointsWriter::write) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `write`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `write` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn write_blocking(
        &self,
        shard: &Shard,
        level: ConsistencyLevel,
        points: P,
    ) -> Result<WriteOutcome, PointsWriteError> {
        block_on(self.write(shard, level, points))
    }
}

fn check_owners(shard: &Shard) -> Result<(), PointsWriteError> {
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
        _ => Ok(()),
    }
}
