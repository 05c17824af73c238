//! Looking in sled's log for blocks that do not read: sled drops records at recovery that are still
//! there (docs/sled.md rule 10).

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use crate::{
    error::StorageError,
    store::{
        engine::log_scan::scan,
        format::keys::{Key, QueueRef},
    },
    types::Sequence,
};

/// Hands to `store`, once each, chunks of a queue's blocks that are intact in the log and wanted,
/// but for those of blocks that read.
///
/// A block is written once under its key, so that all its copies are the same. `alive` is called
/// now and then.
pub fn find(
    log: &Path,
    queue: QueueRef,
    alive: &dyn Fn(),
    is_wanted: impl Fn(Sequence, u16, &[u8]) -> bool,
    block_reads: impl Fn(Sequence) -> bool,
    mut store: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut reads: HashMap<Sequence, bool> = HashMap::new();
    let mut found = HashSet::new();
    scan(log, |key, value| {
        alive();
        let Some(Key::Chunk {
            queue: at,
            first,
            chunk,
        }) = Key::parse(key)
        else {
            return Ok(());
        };
        // A padding key is no chunk.
        if at != queue || value.is_empty() || !is_wanted(first, chunk, value) {
            return Ok(());
        }
        let reads = reads.entry(first).or_insert_with(|| block_reads(first));
        if *reads || !found.insert((first, chunk)) {
            return Ok(());
        }
        store(key, value)
    })?;
    tracing::warn!(
        node = queue.node.0,
        queue = queue.queue.0,
        chunks = found.len(),
        "looked for missing blocks in the log"
    );
    Ok(())
}
