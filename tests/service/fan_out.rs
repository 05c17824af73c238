//! Every copy of a fan-out write is accounted for: at its owner, a hint, a dead letter, or
//! recorded.
//!
//! All on tokio's paused clock, in small steps, so that the disk keeps up with it.

mod accounted;
mod answers;
mod blocking;
mod gate;
mod held;
mod host_code;
mod not_stored;
mod refusals;
mod world;
mod write_ids;
