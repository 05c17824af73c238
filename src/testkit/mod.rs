//! For crash-recovery tests: the store by itself, and the switches that make it fail.
//!
//! Not part of the stable interface.

pub use crate::store::{
    AppendDone, CommitFault, Leave, Mark, NewHint, NodeQueues, OnDurable, Peek, PeekLimits,
    PeekedHint, QueueRef, Reader, SCHEMA_VERSION, Store, StoredHint,
};
