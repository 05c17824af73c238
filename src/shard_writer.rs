//! What the host implements: how to reach a node.

mod boxed;
mod write;

use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

pub use boxed::BoxShardWriter;
pub use write::{Batch, ShardWrite};

use crate::{
    error::with_causes,
    payload::Payload,
    types::{NodeId, ShardId},
};

/// How the host reaches a node. One implementation serves direct writes and replay alike.
///
/// A direct write is given at most [`Config::write_timeout`](crate::Config::write_timeout), a ping
/// and a send of replay [`Config::send_timeout`](crate::Config::send_timeout); what takes longer is
/// cancelled by dropping its future. A panic inside counts as a failure that is worth a retry.
///
/// Replay calls it for several shards of a node at once
/// ([`Config::max_in_flight`](crate::Config::max_in_flight)), but never twice at a time for one
/// shard of it.
///
/// A host that chooses among several at run time puts each into a [`BoxShardWriter`]. One that
/// needs the handoff it is given to keeps a [`WeakHandoff`](crate::WeakHandoff).
///
/// ```
/// use hinted_handoff::{NodeId, Pong, ShardWrite, ShardWriter, WriteError};
/// # struct Client;
/// # enum Answer { Done, Busy, BadRequest(String), NoSuchShard }
/// # impl Client {
/// #     async fn post(&self, _: NodeId, _: &ShardWrite<String>) -> std::io::Result<Answer> {
/// #         Ok(Answer::Done)
/// #     }
/// #     async fn get_health(&self, _: NodeId) -> std::io::Result<()> { Ok(()) }
/// # }
///
/// struct Cluster {
///     client: Client, // your connections
/// }
///
/// impl ShardWriter<String> for Cluster {
///     async fn ping(&self, node: NodeId) -> Result<Pong, WriteError> {
///         self.client.get_health(node).await.map_err(WriteError::retry)?;
///         Ok(Pong::Answered)
///     }
///
///     async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
///         let answer = self.client.post(write.node, &write).await;
///         match answer.map_err(WriteError::retry)? {
///             Answer::Done => Ok(()),
///             Answer::Busy => Err(WriteError::retry("the node is busy")),
///             Answer::BadRequest(why) => Err(WriteError::reject(why)), // a dead letter
///             Answer::NoSuchShard => Err(WriteError::obsolete("the shard was dropped")),
///         }
///     }
/// }
/// ```
pub trait ShardWriter<P: Payload>: Send + Sync + 'static {
    /// Is the node worth trying? Called before a replay round. An error says no, until the next
    /// one. The default asks nobody, and says yes.
    fn ping(&self, node: NodeId) -> impl Future<Output = Result<Pong, WriteError>> + Send {
        let _ = node;
        std::future::ready(Ok(Pong::NotAsked))
    }

    /// Writes the batches (one or more, all of the same shard, in order) to the node.
    ///
    /// `Ok` means that all of them are safe there: replay then forgets the hints. [`WriteError`]
    /// says what becomes of them otherwise.
    fn write_shard(
        &self,
        write: ShardWrite<P>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// What a [`ping`](ShardWriter::ping) found of a node that is worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pong {
    /// It answered. A node that does so and fails sends is [`Failing`](crate::NodeState::Failing),
    /// not down.
    Answered,
    /// It was not asked.
    NotAsked,
}

impl<P: Payload, W: ShardWriter<P>> ShardWriter<P> for Arc<W> {
    fn ping(&self, node: NodeId) -> impl Future<Output = Result<Pong, WriteError>> + Send {
        W::ping(self, node)
    }

    fn write_shard(
        &self,
        write: ShardWrite<P>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send {
        W::write_shard(self, write)
    }
}

/// Why a write to a node failed, and what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// The node may take it later. `after`, where given, is the node's own wish (a `Retry-After`)
    /// and overrules the backoff once. In replay only this shard waits, unless sends fail whatever
    /// the shard; a hint whose sends failed [`Config::max_attempts`](crate::Config::max_attempts)
    /// times becomes a dead letter.
    Retry {
        /// How long the node asks to be left alone.
        after: Option<Duration>,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node will never accept this write. Sent directly by a
    /// [`PointsWriter`](crate::PointsWriter) it becomes a dead letter if another owner takes it,
    /// and is refused else. When several hints are rejected together, replay sends them again in
    /// halves until it knows which one it is; that one becomes a dead letter, and the others are
    /// delivered.
    Reject {
        /// What the node said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The shard is gone, nobody needs the write any more. Hints are discarded, counted and logged
    /// with their range.
    Obsolete {
        /// How that is known.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node took the first `taken` batches, and the others not. Replay forgets those and goes
    /// on with the next one at once. Nothing taken is a [`Retry`](WriteError::Retry), everything
    /// taken is `Ok`; so a direct write, which is one batch, is one of these.
    Partial {
        /// How many of the batches are safe at the node, from the first one on.
        taken: usize,
        /// Why the next one is not.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl WriteError {
    /// A failure that is worth a retry.
    pub fn retry(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        WriteError::Retry {
            after: None,
            source: source.into(),
        }
    }

    /// A failure that is worth a retry, but not before `after`: between 10 ms and an hour, whatever
    /// is asked for.
    pub fn retry_after(after: Duration, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        WriteError::Retry {
            after: Some(after),
            source: source.into(),
        }
    }

    /// A write that will never be accepted.
    pub fn reject(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        WriteError::Reject {
            source: source.into(),
        }
    }

    /// A write to a shard that no longer exists.
    pub fn obsolete(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        WriteError::Obsolete {
            source: source.into(),
        }
    }

    /// A write of which the first `taken` batches are safe at the node.
    pub fn partial(taken: usize, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        WriteError::Partial {
            taken,
            source: source.into(),
        }
    }

    /// Whether the same write, or what is left of it, may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, WriteError::Retry { .. } | WriteError::Partial { .. })
    }

    /// What an answer to a write of so many batches comes to: how many were taken, or why none was.
    pub(crate) fn settle(
        answer: Result<(), WriteError>,
        batches: usize,
        node: NodeId,
        shard: ShardId,
    ) -> Result<usize, Self> {
        match answer {
            Ok(()) => Ok(batches),
            Err(WriteError::Partial { taken: 0, source }) => Err(WriteError::Retry {
                after: None,
                source,
            }),
            Err(WriteError::Partial { taken, source }) => {
                tracing::debug!(
                    node = node.0, shard = shard.0, taken, batches, error = %with_causes(source.as_ref()),
                    "a write was taken in part"
                );
                Ok(taken.min(batches))
            }
            Err(error) => Err(error),
        }
    }

    fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        match self {
            WriteError::Retry { source, .. }
            | WriteError::Reject { source }
            | WriteError::Obsolete { source }
            | WriteError::Partial { source, .. } => source.as_ref(),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Retry { after: None, .. } => f.write_str("the node may take it later"),
            WriteError::Retry {
                after: Some(after), ..
            } => write!(
                f,
                "the node asks to be left alone for {}",
                humantime::format_duration(*after)
            ),
            WriteError::Reject { .. } => f.write_str("the node will never accept it"),
            WriteError::Obsolete { .. } => f.write_str("the shard is gone"),
            WriteError::Partial { taken, .. } => {
                write!(f, "the node took the first {taken} batches only")
            }
        }
    }
}

impl Error for WriteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause())
    }
}
