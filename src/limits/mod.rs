//! What bounds a queue beside the pipeline: which hints are the oldest, and when they are too old.
//!
//! That a hint finds room before it enters the pipeline is up to the service (`service/door.rs`).

mod expiry;
mod keeper;
mod oldest;
mod search;

pub use expiry::Housekeeper;
pub use oldest::read_unclaimed;
