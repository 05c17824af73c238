//! One group: planned, encoded, written, durable.

pub mod accepted;
pub mod backoff;
pub mod committer;
pub mod dead_letters;
pub mod encode_pool;
pub mod flush;
pub mod flush_pass;
pub mod group;
pub mod leave;
pub mod loss_journal;
pub mod plan;
pub mod publish;
pub mod redrive;
pub mod trim;
pub mod write_batch;
