//! Where a store lives: a directory of its own, or the host's database.

pub mod directory;
pub mod host_database;
pub mod location;
pub mod lock;
