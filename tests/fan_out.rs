//! Every copy of a fan-out write is accounted for: at its owner, a hint, a dead letter, or
//! recorded.
//!
//! All on tokio's paused clock, in small steps, so that the disk keeps up with it.

mod common;
#[path = "common/copy.rs"]
mod copy;

#[path = "fan_out/accounted.rs"]
mod accounted;
#[path = "fan_out/answers.rs"]
mod answers;
#[path = "fan_out/blocking.rs"]
mod blocking;
#[path = "fan_out/gate.rs"]
mod gate;
#[path = "fan_out/held.rs"]
mod held;
#[path = "fan_out/host_code.rs"]
mod host_code;
#[path = "fan_out/not_stored.rs"]
mod not_stored;
#[path = "fan_out/refusals.rs"]
mod refusals;
#[path = "fan_out/world.rs"]
mod world;
#[path = "fan_out/write_ids.rs"]
mod write_ids;
