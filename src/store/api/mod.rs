//! The face: what the layers above call, a file a subject.

pub mod append;
pub mod applied;
pub mod applied_delivery;
pub mod applied_writes;
pub mod barrier;
pub mod clocks;
pub mod dead_letters;
pub mod deliver;
pub mod holding;
pub mod limits;
pub mod node_status;
pub mod nodes;
pub mod not_stored;
pub mod read;
pub mod rehint;
#[cfg(feature = "internals")]
pub mod testing;
