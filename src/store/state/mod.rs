//! What is held in memory.

pub mod ages;
pub mod block_cache;
pub mod disk;
pub mod forwarding;
pub mod held_claims;
pub mod held_hints;
pub mod holds;
pub mod limits;
pub mod lock;
pub mod memtable;
pub mod queue;
pub mod registry;
