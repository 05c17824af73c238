//! What a closed store is, and what waits in it.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    error::StorageError,
    store::offline::{
        closed::{ClosedStore, FoundNode},
        letters,
        pieces::{Piece, QueuePieces},
    },
    types::{Amount, NodeId, Sequence, StoreId},
};

/// What a closed store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClosedInfo {
    /// Its identity.
    pub store: StoreId,
    /// The version of what is on disk.
    pub schema: u32,
    /// Where sled's files are.
    pub path: PathBuf,
    /// The generation in use; `None` for a database that has none.
    pub generation: Option<String>,
    /// Whether it was closed. If it was not, what was written last and never answered may be gone.
    pub is_clean: bool,
    /// Whether replay to all nodes is paused, to last.
    pub is_paused: bool,
    /// How many opens in a row died.
    pub opens_died: u32,
    /// Whether a compaction was under way when it stopped.
    pub is_compacting: bool,
    /// Folders that were moved aside in its directory.
    pub moved_aside: Vec<String>,
    /// Bytes of sled's log.
    pub log_bytes: u64,
    /// All that is pending.
    pub pending: Amount,
    /// All dead letters.
    pub dead_letters: Amount,
    /// Its nodes. Those that were removed and have nothing left are not among them.
    pub nodes: Vec<ClosedNode>,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClosedNode {
    /// The node.
    pub node: NodeId,
    /// What waits for it.
    pub pending: Amount,
    /// When the first of its pending hints that reads was enqueued, by its stamp, in milliseconds
    /// since 1970.
    pub oldest_unix_ms: Option<u64>,
    /// Its dead letters.
    pub dead_letters: Amount,
    /// How many queues it has.
    pub queues: u64,
    /// Whether replay to it is paused, to last.
    pub is_paused: bool,
    /// Whether it is to be removed once nothing is pending.
    pub is_leaving: bool,
    /// Since when it is not in the cluster, in milliseconds since 1970.
    pub parked_since_unix_ms: Option<u64>,
    /// Pings and sends that failed since the last send that did not.
    pub failed_attempts: u64,
    /// What the last of them said.
    pub last_error: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub last_error_unix_ms: Option<u64>,
}

impl ClosedStore {
    /// What it is, and what waits in it. Of each node the pending hints are read up to the first
    /// that reads, and what is known of every dead letter.
    ///
    /// # Errors
    /// The log does not read.
    pub fn info(&self) -> Result<ClosedInfo, StorageError> {
        let log_bytes = std::fs::metadata(self.place.log()).map_or(0, |it| it.len());
        let mut info = ClosedInfo {
            store: self.known.store,
            schema: self.known.schema,
            path: self.place.generation.clone(),
            generation: self.place.name.clone(),
            is_clean: self.clean.is_some(),
            is_paused: self.known.is_paused,
            opens_died: self.place.opens_died,
            is_compacting: self.place.is_compacting,
            moved_aside: self.place.aside.clone(),
            log_bytes,
            pending: Amount::default(),
            dead_letters: Amount::default(),
            nodes: Vec::new(),
        };
        for (node, found) in &self.nodes {
            let about = self.node(*node, found)?;
            info.pending = info.pending.plus(about.pending);
            info.dead_letters = info.dead_letters.plus(about.dead_letters);
            if !found.record.removed || about.dead_letters.hints > 0 {
                info.nodes.push(about);
            }
        }
        Ok(info)
    }

    fn node(&self, node: NodeId, found: &FoundNode) -> Result<ClosedNode, StorageError> {
        let pending = found.queues.iter().map(|queue| queue.pending());
        let mut dead_letters = Amount::default();
        for queue in letters::queues(&found.record) {
            letters::records(self, queue, |_, dead| {
                let bytes = dead.map_or(0, |dead| dead.payload_bytes);
                dead_letters = dead_letters.plus(Amount { hints: 1, bytes });
                Ok(())
            })?;
        }
        let error = found.status.last_error.clone();
        Ok(ClosedNode {
            node,
            pending: pending.fold(Amount::default(), Amount::plus),
            oldest_unix_ms: self.oldest(found)?,
            dead_letters,
            queues: found.queues.len() as u64,
            is_paused: found.record.paused,
            is_leaving: found.record.leaves,
            parked_since_unix_ms: found.record.parked_since,
            failed_attempts: found.status.attempts,
            last_error: error.clone().map(|(text, _)| text),
            last_error_unix_ms: error.map(|(_, at)| at),
        })
    }

    fn oldest(&self, found: &FoundNode) -> Result<Option<u64>, StorageError> {
        for queue in found.queues.iter().filter(|it| it.pending().hints > 0) {
            let mut pieces =
                QueuePieces::new(&self.place, &self.tree, queue, &self.wal.runs, Sequence(0))?;
            // The first that reads: what is before that tells nothing.
            while let Some(piece) = pieces.next_piece()? {
                if let Piece::Hints(hints) | Piece::Rescued(hints, _) = piece
                    && let Some((_, hint)) = hints.first()
                {
                    return Ok(Some(hint.enqueued_unix_ms));
                }
            }
        }
        Ok(None)
    }
}
