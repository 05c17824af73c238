//! Compacting the store, since sled's log does not become shorter.

pub mod switch;
pub mod thread;
pub mod when;
