//! Reading hints.

pub mod reader;
