//! The fan-out writes that are under way, and their counts.

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::StorageError;

/// Payload of fan-out writes that may be under way, in KiB, each of one at least: what hangs or
/// waits for room must not fill the memory.
pub const WRITES_KIB: u32 = 64 * 1024;

/// The fan-out writes that are under way, and what names the next one.
pub(super) struct FanOut {
    /// Drawn at random at each open.
    pub boot: u64,
    pub counter: AtomicU64,
    /// A shutdown waits for them.
    pub tasks: TaskTracker,
    /// Permits of a kilobyte of payload: bounds the memory of what is under way.
    pub room: Arc<Semaphore>,
    /// Tells them to make what hints they may have to make.
    pub stop: CancellationToken,
    pub counters: WriteCounters,
}

/// Counts of the fan-out writes made through this handle.
#[derive(Debug, Default)]
pub(crate) struct WriteCounters {
    pub direct: AtomicU64,
    pub hinted: AtomicU64,
    pub backlogged: AtomicU64,
    pub withdrawn: AtomicU64,
    pub rejected: AtomicU64,
    pub unstored: AtomicU64,
}

impl FanOut {
    pub fn new() -> Result<Self, StorageError> {
        let boot = getrandom::u64()
            .map_err(|error| StorageError::new("draw a random boot number", error))?;
        Ok(FanOut {
            // 0 stands for a hint without a write.
            boot: boot.max(1),
            counter: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(WRITES_KIB as usize)),
            stop: CancellationToken::new(),
            counters: WriteCounters::default(),
        })
    }
}
