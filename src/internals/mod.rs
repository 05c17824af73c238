//! The store by itself, the decoders of what is on disk, and the switches that make storage fail:
//! for the tests of this crate, its fuzz targets and `hinted-handoff-testkit`.
//!
//! Behind the feature `internals`, and no part of the API: any release may change all of it.

pub mod decoders;

pub use crate::{
    clock::WallClock,
    error::with_causes,
    store::{
        AppendDone, CommitFault, Correction, Dead, DeadCause, Fate, Held, Hint, Hold, Leave, Mark,
        Members, NodeQueues, OnDurable, POINTS, Parked, Peek, PeekLimits, PeekedHint, Place,
        QueueRef, Reader, SCHEMA_VERSION, Status, Store,
    },
};
