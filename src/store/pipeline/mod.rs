//! What callers and the commit thread share.

pub mod asked;
pub mod batch;
pub mod changes;
pub mod control;
pub mod done;
pub mod held;
pub mod inbox;
pub mod node_request;
pub mod not_stored;
pub mod overlay;
pub mod shared;
pub mod ticket;
pub mod trees;
pub mod watchdog;
