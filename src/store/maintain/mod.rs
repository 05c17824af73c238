//! What is done to nodes and files while the store is open.

pub mod compact;
pub mod nodes;
pub mod remove;
pub mod rename;
pub mod scrub;
