//! What to be measured against, which is the limit: a file, one write and one fdatasync for all
//! that wait, and nothing else; and a reader of it that checks each entry and fsyncs how far it is.

mod group;
mod log;

pub use group::{GroupWriter, Grouped};
pub use log::{Log, Reader, write_log};
