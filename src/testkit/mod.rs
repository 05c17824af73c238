//! For tests of this crate and of databases that embed it: the store by itself, a writer that does as it is told, and
//! the switches that make storage fail.
//!
//! Behind the feature `testkit`, and not part of the stable interface.

mod scripted_writer;

pub use crate::store::{
    AppendDone, CommitFault, Leave, Mark, NewHint, NodeQueues, OnDurable, Peek, PeekLimits,
    PeekedHint, QueueRef, Reader, SCHEMA_VERSION, Store, StoredHint,
};
pub use scripted_writer::{Reply, ScriptedWriter, Seen};
