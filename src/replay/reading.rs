//! Reading on tokio's blocking threads, a few at a time for all nodes together.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    error::HandoffError,
    store::{Peek, PeekLimits, Place, Reader, Store},
    types::{Amount, NodeId},
};

/// Blocks are read this many at a time for all nodes together: no thread a node.
const READS_AT_A_TIME: usize = 2;
/// Payload bytes of the windows of all nodes together: the more nodes are being sent to, the smaller each window.
const WINDOWS_BYTES: u64 = 32 * 1024 * 1024;

/// What all nodes share.
#[derive(Debug, Clone)]
pub struct Reads {
    permits: Arc<Semaphore>,
    /// Nodes that have a window, or are about to.
    sending: Arc<AtomicU64>,
}

/// Counts a node among those that have a window, until it is dropped.
pub struct Sending(Arc<AtomicU64>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a read gives back: the reader, and what it found; nothing if it was told to stop.
pub type Read = Pin<Box<dyn Future<Output = Option<(Reader, Result<Peek, HandoffError>)>> + Send>>;

impl Reads {
    pub fn new() -> Self {
        Reads {
            permits: Arc::new(Semaphore::new(READS_AT_A_TIME)),
            sending: Arc::default(),
        }
    }

    /// Counts a node among those that have a window.
    pub fn begin(&self) -> Sending {
        self.sending.fetch_add(1, Relaxed);
        Sending(Arc::clone(&self.sending))
    }

    /// A node's part of what all windows may hold, and no more than `most`.
    pub fn share(&self, most: Amount) -> Amount {
        let share = WINDOWS_BYTES / self.sending.load(Relaxed).max(1);
        Amount {
            bytes: most.bytes.min(share),
            ..most
        }
    }

    /// Reads what stands from `from` on.
    pub fn read(
        &self,
        store: &Arc<Store>,
        mut reader: Reader,
        node: NodeId,
        from: Option<Place>,
        limits: PeekLimits,
        quit: CancellationToken,
    ) -> Read {
        let (permits, store) = (Arc::clone(&self.permits), Arc::clone(store));
        Box::pin(async move {
            // The semaphore is never closed; if it were, stopping is right.
            let permit = permits.acquire_owned().await.ok()?;
            if quit.is_cancelled() {
                return None;
            }
            let reading = tokio::task::spawn_blocking(move || {
                let peeked = store.peek_from(&mut reader, node, from, limits);
                drop(permit);
                (reader, peeked)
            });
            // A panic in a read is caught below; what is left is a runtime that shuts down.
            reading.await.ok()
        })
    }
}
