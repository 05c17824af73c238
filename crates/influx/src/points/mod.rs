//! Points as clients send them, and as hints keep them.

mod lines;
mod payload;
mod precision;
mod read;
mod target;

pub use payload::LinePoints;
pub use precision::{Precision, UnknownPrecision};
pub use read::{BadLine, Points};
pub use target::{STRIPES, Target, shard_of};
