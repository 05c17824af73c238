//! What callers and the commit thread share.

pub mod asked;
pub mod batch;
pub mod busy;
pub mod changes;
pub mod control;
pub mod done;
pub mod events;
pub mod held;
pub mod inbox;
pub mod node_request;
pub mod not_stored;
pub mod overlay;
pub mod serving;
pub mod shared;
pub mod space;
pub mod ticket;
pub mod trees;
pub mod watchdog;
