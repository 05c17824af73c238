#![doc = include_str!("../README.md")]
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
#[cfg(feature = "internals")]
pub mod internals;
mod limits;
mod links;
mod millis;
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
    HandoffError, Limit, LockKind, OpenError, ReplayStopped, ReplayTask, RuntimeProblem,
    StorageError, TransactionError, TreeProblem, UnopenableReason,
};
pub use events::Event;
pub use fan_out::{OwnerError, PointsWriteError, PointsWriter, Shard, Tally, WriteOutcome};
#[cfg(feature = "json")]
pub use payload::Json;
pub use payload::{EncodeError, Expiring, Payload, PayloadError, Postcard};
pub use peeked::PeekedPoints;
pub use service::{
    Accepted, DeadLetter, DeadLetterContent, Redriven,
    handoff::{HintedHandoff, WeakHandoff},
};
pub use shard_writer::{Batch, BoxShardWriter, Pong, ShardWrite, ShardWriter, WriteError};
pub use sled;
pub use stats::{
    Damage, DirectStats, Gate, Health, NodeState, NodeStats, Stats, StoreStats, UnknownFormat,
    WriteStats,
};
pub use store::{
    AppliedHints, AppliedWrites, Barrier, BarrierLosses, BarrierQueue, BarrierState, DeadReason,
    Loss, LossReason, Losses, LostOfQueue, LostRange, NotStoredOfNode, Retained, RowBatch, Rows,
    database_config, make_durable, mend_database, open_database, salvage,
};
pub use transaction::{Abort, Committed, Hints};
pub use types::{
    Amount, ConsistencyLevel, Durability, HintId, NodeId, ParseError, Pause, QueueId, Sequence,
    ShardId, StoreId, WriteId,
};
