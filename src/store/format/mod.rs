//! The bytes on disk, and plain data: no sled, no input or output.

pub mod barrier;
pub mod block;
pub mod checksum;
pub mod chunks;
pub mod correction;
pub mod cursor;
pub mod dead_letter;
pub mod dead_letter_count;
pub mod encoder;
pub mod file_names;
pub mod gone_letters;
pub mod keys;
pub mod loss;
pub mod node_record;
pub mod node_status;
pub mod peeked;
pub mod ranges;
pub mod reasons;
pub mod run;
pub mod shutdown_summary;
pub mod wal_record;
