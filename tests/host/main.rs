//! A host that shares its database with its hints: transactions over rows and hints, a consumer of
//! its own, and marks of what was applied.

#[path = "../common/mod.rs"]
mod common;

mod applied_hints;
mod consumer;
mod contention;
mod shared_database;
mod transactions;
