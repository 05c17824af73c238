//! For tests of this crate and of databases that embed it: the store by itself, a writer that does
//! as it is told, and the switches that make storage fail.
//!
//! Behind the feature `testkit`, and not part of the stable interface.

mod crash_loop;
pub mod decoders;
mod event;
mod failing_disk;
mod oracle;
mod power_cut;
mod queue_model;
mod row_event;
mod row_oracle;
mod scripted_writer;
mod transactional;
mod workload;
mod write;

pub use crate::{
    clock::WallClock,
    store::{
        AppendDone, Burial, CommitFault, Correction, Dead, Fate, Held, Hint, Hold, Leave, Mark,
        Members, NodeQueues, OnDurable, POINTS, Parked, Peek, PeekLimits, PeekedHint, Place,
        QueueRef, Reader, SCHEMA_VERSION, Status, Store,
    },
};
pub use crash_loop::{CrashLoop, Ended, Kill, Stop};
pub use event::{Event, NoEvent, tell};
pub use failing_disk::FailingDisk;
pub use oracle::{Counts, Oracle};
pub use power_cut::PowerCut;
pub use queue_model::{HintNumber, QueueModel, Settled};
pub use row_event::{RowEvent, RowWrite};
pub use scripted_writer::{Reply, ScriptedWriter, Seen};
pub use transactional::{Manner, TransactionalWorkload};
pub use workload::Workload;
