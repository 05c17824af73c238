//! Switches and measures for tests.

use crate::store::{Store, failpoints::CommitFault};

impl Store {
    /// Has the store compacted all the time, or no longer.
    pub fn compact_eagerly(&self, eager: bool) {
        self.shared.faults.on_compaction(eager);
    }

    /// The most that the log grew by between two fsyncs, in bytes, since this was asked last or it
    /// was opened.
    pub fn take_most_between_fsyncs(&self) -> u64 {
        let engine = self.shared.engine();
        engine.map_or(0, |engine| engine.growth().take_most_bytes())
    }

    /// What the log has grown by since the last fsync, in bytes.
    pub fn unsynced_bytes(&self) -> u64 {
        let engine = self.shared.engine().ok();
        let bytes = engine.and_then(|engine| engine.unsynced_bytes().ok());
        bytes.unwrap_or(0)
    }

    /// Makes the next commits fail in the given way.
    pub fn inject(&self, fault: CommitFault) {
        self.shared.faults.on_commit(fault);
    }
}
