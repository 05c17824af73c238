//! Files that tell that a database was in use.

/// The summary of a clean shutdown, in a generation.
pub const CLEAN: &str = "CLEAN";
/// The same in a host's database.
pub const HOST_CLEAN: &str = "hh-CLEAN";
/// The store's id, in a host's database.
pub const HOST_STORE: &str = "hh-STORE";
