//! What callers and the commit thread share.

pub mod asked;
pub mod changes;
pub mod done;
pub mod entry;
pub mod held;
pub mod inbox;
pub mod leaving;
pub mod node_request;
pub mod not_stored;
pub mod overlay;
pub mod shared;
pub mod tickets;
pub mod transaction;
pub mod watchdog;
