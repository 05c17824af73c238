//! An embedded, crash-safe hinted-handoff queue for databases.
//!
//! When a replica of a distributed database does not answer, the coordinator keeps the write as a
//! *hint* and delivers it later. This crate keeps hints in [sled], in order and numbered without
//! gaps, through crashes and power cuts. It sends them through the host's [`ShardWriter`] as soon
//! as the node answers again.
//!
//! ```
//! use hinted_handoff::{
//!     Config, ConsistencyLevel, HintedHandoff, NodeId, PointsWriter, Shard, ShardId, ShardWrite,
//!     ShardWriter, WriteError, WriteOutcome,
//! };
//! use std::sync::{Arc, atomic::{AtomicBool, Ordering::Relaxed}};
//! use std::time::Duration;
//!
//! /// Three replicas, of which node 3 may be away.
//! #[derive(Default)]
//! struct Cluster {
//!     node_3_is_up: AtomicBool,
//! }
//!
//! impl ShardWriter<String> for Cluster {
//!     async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
//!         if write.node == NodeId(3) && !self.node_3_is_up.load(Relaxed) {
//!             return Err(WriteError::retry("connection refused"));
//!         }
//!         Ok(()) // all of `write.batches` are safe at `write.node`
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     let mut config = Config::new(dir.path().join("hints"));
//!     config.retry_interval = Duration::from_millis(5);
//!     let cluster = Arc::new(Cluster::default());
//!     let handoff = HintedHandoff::open(config, Arc::clone(&cluster)).await?;
//!     let writer = PointsWriter::new(handoff.clone(), Arc::clone(&cluster));
//!
//!     // Two of three owners take the write: it is written, and node 3 gets a hint.
//!     let shard = Shard { id: ShardId(7), owners: vec![NodeId(1), NodeId(2), NodeId(3)] };
//!     let points = "cpu,host=a usage=0.64".to_owned();
//!     let outcome = writer.write(&shard, ConsistencyLevel::Quorum, points.clone()).await?;
//!     assert!(matches!(outcome, WriteOutcome::Written { .. }));
//!
//!     // A hint without a direct write. It is durable when the call returns.
//!     handoff.write_shard(NodeId(3), ShardId(7), &points).await?;
//!
//!     // Node 3 is back. `drain` waits until it has every hint.
//!     cluster.node_3_is_up.store(true, Relaxed);
//!     handoff.drain(NodeId(3), Duration::from_secs(10)).await?;
//!     handoff.shutdown().await?;
//!     Ok(())
//! }
//! ```
//!
//! # Where to go next
//!
//! | to | see |
//! |---|---|
//! | open a queue, hint a write, operate nodes | [`HintedHandoff`], [`Config`] |
//! | say how a node is reached | [`ShardWriter`], [`ShardWrite`], [`WriteError`] |
//! | write to all owners of a shard | [`PointsWriter`], [`ConsistencyLevel`], [`WriteOutcome`] |
//! | queue a type of your own | [`Payload`], [`Postcard`], [`Expiring`], [`Traced`] |
//! | store rows and hints as one | [`HintedHandoff::open_in`], [`HintedHandoff::transaction`] |
//! | take hints by hand: outbox, jobs | [`Consumer`] |
//! | apply each hint once at the receiver | [`AppliedHints`], [`AppliedWrites`] |
//! | wait until hints are delivered | [`Barrier`], [`HintedHandoff::drain`] |
//! | watch | [`Health`], [`Stats`], [`Event`] |
//! | handle hints that were not delivered | [`DeadLetter`], [`Losses`] |
//! | rescue a store that does not open | [`salvage`], [`OnUnopenable`] |
//!
//! The guides in `docs/` of the source have the promises, the failure model, the limits and
//! measured figures.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
// What the testkit shows of the inside is for our own tests.
#![cfg_attr(not(feature = "internals"), warn(missing_debug_implementations))]

mod admission;
mod ageing;
mod blocking;
mod clock;
mod config;
mod consumer;
mod error;
mod events;
mod fan_out;
mod import;
#[cfg(feature = "internals")]
pub mod internals;
mod limits;
mod links;
mod millis;
pub mod offline;
mod payload;
mod peeked;
mod replay;
mod service;
mod shard_writer;
mod stats;
mod store;
mod transaction;
mod types;

pub use config::{
    AnswerWhen, Config, MAX_ENTRY_BYTES_CEILING, OnNotStored, OnUnopenable, WhenFull, WriteOrdering,
};
pub use consumer::Consumer;
pub use error::{
    ConfigError, DatabaseProblem, DirectoryGone, DirectoryProblem, EnqueueError, FailedOutcome,
    HandoffError, ImportError, Limit, LockKind, OpenError, ReplayStopped, ReplayTask,
    RuntimeProblem, StorageError, TransactionError, TreeProblem, UnopenableReason,
};
pub use events::Event;
pub use fan_out::{OwnerError, PointsWriteError, PointsWriter, Shard, Tally, WriteOutcome};
#[cfg(feature = "json")]
pub use payload::Json;
pub use payload::{EncodeError, Expiring, Payload, PayloadError, Postcard, TraceParent, Traced};
pub use peeked::PeekedPoints;
pub use service::{
    Accepted, DeadLetter, DeadLetterContent, HintsMeant, PendingHint, Redriven,
    handoff::{HintedHandoff, WeakHandoff},
};
pub use shard_writer::{Batch, BoxShardWriter, Pong, ShardWrite, ShardWriter, WriteError};
pub use sled;
pub use stats::{
    Damage, DirectStats, DurationBucket, Durations, Gate, Health, NodeState, NodeStats, Stats,
    StoreStats, UnknownFormat, WriteStats,
};
pub use store::{
    AppliedHints, AppliedWrites, Barrier, BarrierLosses, BarrierQueue, BarrierState, DeadReason,
    Loss, LossReason, Losses, LostOfQueue, LostRange, NotStoredOfNode, Retained, RowBatch, Rows,
    database_config, make_durable, open_database, repair_database, salvage,
};
pub use transaction::{Abort, Committed, Hints};
pub use types::{
    Amount, ConsistencyLevel, Durability, HintId, NodeId, ParseError, Pause, QueueId, Sequence,
    ShardId, StoreId, WriteId,
};

/// The examples of the README and of the guides are compiled and run.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/failure-model.md")]
    mod failure_model {}
    #[doc = include_str!("../docs/figures.md")]
    mod figures {}
    #[doc = include_str!("../docs/operating.md")]
    mod operating {}
    #[doc = include_str!("../docs/ordering.md")]
    mod ordering {}
    #[doc = include_str!("../docs/sled.md")]
    mod sled_rules {}
    #[doc = include_str!("../docs/testing.md")]
    mod testing {}
    #[doc = include_str!("../docs/tracing.md")]
    mod tracing {}
    #[doc = include_str!("../docs/transactions.md")]
    mod transactions {}
}
