//! How a fan-out write went, and why it did not reach its level.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{EnqueueError, ReplayStopped},
    shard_writer::WriteError,
    types::{NodeId, ShardId},
};

/// A write that reached its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteOutcome {
    /// So many owners had taken it when it was answered; the others go on being written to or
    /// hinted.
    Written {
        /// Owners that have it so far.
        owners: usize,
    },
    /// Only at [`ConsistencyLevel::Any`](crate::ConsistencyLevel::Any): no owner took it so far,
    /// but it is queued and will be delivered.
    Queued {
        /// Owners it is queued for.
        owners: usize,
    },
}

/// Why a write did not reach its level, or is an error all the same. What was hinted is delivered,
/// unless the write is [`Refused`](PointsWriteError::Refused); so a client that repeats the write
/// should expect it twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PointsWriteError {
    /// Some owners have it, but fewer than the level asks for.
    #[error("partially written: {}", .0.summary())]
    PartiallyWritten(#[source] Box<Tally>),
    /// No owner answered within the write timeout.
    #[error("timed out: {}", .0.summary())]
    TimedOut(#[source] Box<Tally>),
    /// Each owner that answered so far said that it will never accept the write. With nothing
    /// [`pending`](Tally::pending) that is the end of it: hints made for other owners are
    /// withdrawn, but for those that did not answer in time, which may have taken it. Otherwise the
    /// copies under way go on; if one of them is taken, the others are hints and dead letters.
    #[error("refused: {}", .0.summary())]
    Refused(#[source] Box<Tally>),
    /// No owner has it so far: those that answered failed, one way or another, and may take it
    /// later.
    #[error("not written: {}", .0.summary())]
    Failed(#[source] Box<Tally>),
    /// No owner was written to: each is known not to answer, or has as many writes outstanding as
    /// it may.
    #[error("not tried: {}", .0.summary())]
    Unreachable(#[source] Box<Tally>),
    /// No owner was written to, since that would have overtaken what waits for it
    /// ([`WriteOrdering::Strict`](crate::WriteOrdering::Strict)).
    #[error("queued behind a backlog: {}", .0.summary())]
    Backlogged(#[source] Box<Tally>),
    /// No owner has it and no hint could be stored; or, with
    /// [`OnNotStored::Fail`](crate::OnNotStored::Fail), one copy could be neither sent nor hinted.
    #[error("not stored: {}", .0.summary())]
    NotStored(#[source] Box<Tally>),
    /// The level was reached, but with [`AnswerWhen::Accounted`](crate::AnswerWhen::Accounted) a
    /// copy is not accounted for within twice
    /// [`Config::write_timeout`](crate::Config::write_timeout): the store does not serve, as a
    /// rule.
    #[error("not accounted for: {}", .0.summary())]
    Unaccounted(#[source] Box<Tally>),
    /// The task of the write did not answer: its runtime was shut down, or has run nothing for some
    /// ten seconds. What became of the copies is not known.
    #[error("outcome unknown: the runtime was shut down or stalled during the write")]
    Abandoned,
    /// The runtime that the store was opened on does not run. Nothing was sent.
    #[error("refused: writes need a runtime that does not run, and nothing was sent")]
    ReplayStopped(#[source] ReplayStopped),
    /// So many writes are under way already, their last copies included, and for
    /// [`Config::write_timeout`](crate::Config::write_timeout) none of them ended. Nothing was
    /// sent.
    #[error(
        "refused: {bytes} bytes of writes are under way, and nothing was sent; write more slowly"
    )]
    #[non_exhaustive]
    TooManyWrites {
        /// Payload bytes of writes that may be under way, each with a kilobyte at least.
        bytes: u64,
    },
    /// The service was shut down. Nothing was sent.
    #[error("refused: the hinted handoff is shut down, and nothing was sent; open it again")]
    ShutDown,
    /// The shard names no owner, or one twice.
    #[error("shard {shard} has {problem}; give each owner once")]
    #[non_exhaustive]
    BadOwners {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        problem: &'static str,
    },
    /// The points could not be hinted if an owner missed them: they do not encode, are empty or too
    /// large. Nothing was sent.
    #[error("refused: nothing was sent")]
    BadPoints(#[source] EnqueueError),
}

/// How a write went, owner by owner, when it was answered, and the first thing that went wrong; of
/// a write that was refused the first refusal.
#[derive(Debug, thiserror::Error)]
#[error("the first failure, of node {node}")]
#[non_exhaustive]
pub struct Tally {
    /// Owners that took it.
    pub written: usize,
    /// Owners it is queued for, as durably as the configuration asks, and that did not take it so
    /// far.
    pub hinted: usize,
    /// Owners that it could be neither sent to nor queued for.
    pub not_stored: usize,
    /// Owners of which nothing is known yet: the write, or the making of its hint, is under way and
    /// goes on.
    pub pending: usize,
    /// All owners.
    pub owners: usize,
    /// Owners that the level asks for.
    pub required: usize,
    /// The owner that failed first, or refused first.
    pub node: NodeId,
    /// What it said.
    #[source]
    pub cause: OwnerError,
}

/// Why an owner did not take a write directly.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The node failed or refused.
    #[error("the node did not take it")]
    Write(#[source] Arc<WriteError>),
    /// It did not answer in time.
    #[error("the node did not answer within write_timeout = {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// It has not answered yet, and the caller was not to wait for it.
    #[error("the node has not answered yet")]
    Unanswered,
    /// The write panicked in the host's `ShardWriter`.
    #[error("the shard writer panicked: {0}")]
    Panicked(String),
    /// It was not written to directly: older writes to the shard wait for it, or the store does not
    /// serve, so that nobody can tell ([`WriteOrdering::Strict`](crate::WriteOrdering::Strict)).
    #[error("the node has a backlog in this shard, and the write was to be queued behind it")]
    Backlogged,
    /// It was not written to directly: it is known not to answer
    /// ([`NodeStats::gate`](crate::NodeStats::gate)).
    #[error("the node does not answer, and the write was hinted without a try")]
    GateClosed,
    /// It was not written to directly: [`Config::max_outstanding`](crate::Config::max_outstanding)
    /// writes are under way to it.
    #[error(
        "max_outstanding writes are under way to the node, and the write was hinted without a try"
    )]
    TooManyOutstanding,
    /// It failed, and the hint could not be stored either.
    #[error("the node did not take it directly ({direct}) and its hint was not stored")]
    #[non_exhaustive]
    NotHinted {
        /// What the node said.
        direct: Box<OwnerError>,
        /// Why there is no hint.
        #[source]
        hint: EnqueueError,
    },
}

impl Tally {
    fn summary(&self) -> String {
        let Tally {
            written,
            hinted,
            not_stored,
            pending,
            owners,
            required,
            ..
        } = self;
        let mut text = format!("{written} of {owners} owners have it, {required} were asked for");
        let more = [
            (hinted, "are hinted"),
            (not_stored, "could be neither sent nor hinted"),
            (pending, "are under way"),
        ];
        for (count, what) in more.into_iter().filter(|(count, _)| **count > 0) {
            text = format!("{text}; {count} more {what}");
        }
        text
    }
}

impl OwnerError {
    /// What the node itself said, whatever became of the hint.
    fn direct(&self) -> &OwnerError {
        match self {
            OwnerError::NotHinted { direct, .. } => direct,
            other => other,
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.direct(), OwnerError::Write(error) if !error.is_retryable())
    }

    /// Whether the node may have taken it all the same.
    pub(super) fn may_be_taken(&self) -> bool {
        let direct = self.direct();
        matches!(direct, OwnerError::TimedOut(_) | OwnerError::Panicked(_))
    }
}

impl PointsWriteError {
    /// What a level that was not reached comes to, by what the owners said.
    pub(super) fn of(mut tally: Box<Tally>, failures: &[(NodeId, OwnerError)]) -> Self {
        let all = |is: fn(&OwnerError) -> bool| {
            !failures.is_empty() && failures.iter().all(|(_, error)| is(error.direct()))
        };
        let is_untried =
            |it: &OwnerError| matches!(it, OwnerError::GateClosed | OwnerError::TooManyOutstanding);
        if tally.written > 0 {
            PointsWriteError::PartiallyWritten(tally)
        } else if let Some((node, error)) = failures.iter().find(|(_, it)| it.is_refusal()) {
            // Why it is refused is not what an owner that is away says.
            (tally.node, tally.cause) = (*node, error.clone());
            PointsWriteError::Refused(tally)
        } else if tally.hinted + tally.pending == 0 {
            PointsWriteError::NotStored(tally)
        } else if all(|it| matches!(it, OwnerError::Backlogged)) {
            PointsWriteError::Backlogged(tally)
        } else if all(|it| matches!(it, OwnerError::TimedOut(_))) {
            PointsWriteError::TimedOut(tally)
        } else if all(is_untried) {
            PointsWriteError::Unreachable(tally)
        } else {
            PointsWriteError::Failed(tally)
        }
    }
}
