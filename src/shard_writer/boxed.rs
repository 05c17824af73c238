//! Writers of any type behind one.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::{Pong, ShardWrite, ShardWriter, WriteError};
use crate::{payload::Payload, types::NodeId};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, WriteError>> + Send + 'a>>;

/// [`ShardWriter`] with futures in boxes, which a trait object can have.
trait AnyShardWriter<P: Payload>: Send + Sync + 'static {
    fn ping_boxed(&self, node: NodeId) -> Answer<'_, Pong>;
    fn write_shard_boxed(&self, write: ShardWrite<P>) -> Answer<'_, ()>;
}

impl<P: Payload, W: ShardWriter<P>> AnyShardWriter<P> for W {
    fn ping_boxed(&self, node: NodeId) -> Answer<'_, Pong> {
        Box::pin(self.ping(node))
    }

    fn write_shard_boxed(&self, write: ShardWrite<P>) -> Answer<'_, ()> {
        Box::pin(self.write_shard(write))
    }
}

/// A [`ShardWriter`] of any type: for a host that chooses its writer at run time, or keeps writers
/// of several types together. Cloning is cheap; all clones are the same writer. Each call costs one
/// allocation more than the writer's own.
///
/// ```
/// # use hinted_handoff::*;
/// # struct Tcp; struct Pipe;
/// # impl ShardWriter<String> for Tcp {
/// #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> { Ok(()) }
/// # }
/// # impl ShardWriter<String> for Pipe {
/// #     async fn write_shard(&self, _: ShardWrite<String>) -> Result<(), WriteError> { Ok(()) }
/// # }
/// fn writer(is_local: bool) -> BoxShardWriter<String> {
///     match is_local {
///         true => BoxShardWriter::new(Pipe),
///         false => BoxShardWriter::new(Tcp),
///     }
/// }
/// # let _ = [writer(true), writer(false)];
/// ```
pub struct BoxShardWriter<P: Payload>(Arc<dyn AnyShardWriter<P>>);

impl<P: Payload> BoxShardWriter<P> {
    /// Puts a writer into a box.
    pub fn new(writer: impl ShardWriter<P>) -> Self {
        BoxShardWriter(Arc::new(writer))
    }
}

impl<P: Payload> Clone for BoxShardWriter<P> {
    fn clone(&self) -> Self {
        BoxShardWriter(Arc::clone(&self.0))
    }
}

impl<P: Payload> fmt::Debug for BoxShardWriter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxShardWriter").finish_non_exhaustive()
    }
}

impl<P: Payload> ShardWriter<P> for BoxShardWriter<P> {
    fn ping(&self, node: NodeId) -> impl Future<Output = Result<Pong, WriteError>> + Send {
        self.0.ping_boxed(node)
    }

    fn write_shard(
        &self,
        write: ShardWrite<P>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send {
        self.0.write_shard_boxed(write)
    }
}
