//! What bounds a queue beside the pipeline: which hints are the oldest, when they are too old, and how they leave.
//!
//! That a hint finds room before it enters the pipeline is up to the service (`service/door.rs`).

mod expiry;
mod oldest;

pub use expiry::Housekeeper;
pub use oldest::{lose, read_unclaimed};
