//! Hinted handoff for servers of InfluxDB 1.x: points as a payload, and the program `hh-relay`.
//!
//! [`LinePoints`] are what a hint holds: lines of InfluxDB's line protocol, with the database that
//! they are for. [`Points::read`] reads a body that a client sent, tells good lines from bad ones,
//! and gives each point its time; [`Points::into_shards`] puts them into [`LinePoints`].
//!
//! [`InfluxWriter`] sends them to servers: it is the
//! [`ShardWriter`](hinted_handoff::ShardWriter) of a handoff, and says what each answer of a server
//! means for the points.
//!
//! The module `import` (feature `relay`) reads the queues of InfluxDB's own hinted handoff.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
#![warn(missing_debug_implementations)]

#[cfg(feature = "relay")]
mod causes;
#[cfg(feature = "relay")]
pub mod import;
mod points;
#[cfg(feature = "relay")]
pub mod relay;
mod size;
mod writer;

pub use points::{
    BadLine, LinePoints, Points, Precision, STRIPES, Target, UnknownPrecision, shard_of,
};
pub use writer::{
    AnswerRule, InfluxWriter, NodeAnswer, NodeSettings, Password, Then, WriterError, WriterSettings,
};
