//! How hinted-handoff is tested, for databases that embed it: a crash loop that stops a child
//! process by SIGKILL, by a power cut or by a failing disk, an oracle outside of it, a model of the
//! queues in memory, workloads, and a writer that does as it is told.
//!
//! `examples/crash_test.rs` of hinted-handoff is a host that runs the loop on itself. The kit uses
//! the `internals` of the library, so its version is that of the library.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod crash_loop;
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
