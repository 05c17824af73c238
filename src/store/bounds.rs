//! The bounds that docs/sled.md's rules set.

use std::time::Duration;

/// docs/sled.md rule 2: fixed for the life of a database.
pub const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// docs/sled.md rule 13: sled uses several times what it is told.
pub const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// docs/sled.md rule 2: at most this much is handed to sled between two fsyncs, also when nobody
/// waits for them.
pub const GROUP_BYTES: usize = 1024 * 1024;
/// docs/sled.md rule 16: a handle dropped a moment ago may still hold the file's lock.
pub const LINGERING_LOCK: Duration = Duration::from_secs(3);
/// What a hint may cost beside itself, were it the first one of a new node: block header and key,
/// the node's record, the next queue id.
pub const APPEND_OVERHEAD_BYTES: usize = 256;
