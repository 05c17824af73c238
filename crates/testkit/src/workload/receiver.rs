//! The node that the workload's host sends to.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{HintedHandoff, ShardWrite, ShardWriter, WriteError};
use parking_lot::Mutex;
use tokio::sync::RwLock;

use super::{by_first_name, read_payload};
use crate::event::{Event, tell};

/// Takes most of what it is given, fails now and then, and tells of each delivery right before it
/// says `Ok`.
pub struct Node {
    random: Mutex<fastrand::Rng>,
    reliable: bool,
    /// Write-locked to keep sends away.
    pub gate: RwLock<()>,
    pub delivered: AtomicU64,
    /// For the store's own count of its reopens, which comes before anything is sent again.
    pub(super) handoff: OnceLock<HintedHandoff<Bytes>>,
    /// Reopens that were told. Held while deliveries are told, so that those before a reopen are
    /// not told behind it.
    reopened: Mutex<u64>,
}

impl Node {
    /// One that fails some of the time, unless it is `reliable`.
    pub fn new(seed: u64, reliable: bool) -> Arc<Self> {
        Arc::new(Node {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            reliable,
            gate: RwLock::new(()),
            delivered: AtomicU64::new(0),
            handoff: OnceLock::new(),
            reopened: Mutex::new(0),
        })
    }

    /// With no send under way and all deliveries acknowledged, a sync makes them durable.
    pub async fn settle(&self, handoff: &HintedHandoff<Bytes>) -> std::io::Result<()> {
        let _closed = self.gate.write().await;
        let told = self.delivered.load(Relaxed);
        let acknowledged = || {
            let nodes = handoff.stats().nodes;
            nodes.iter().map(|node| node.delivered.hints).sum::<u64>()
        };
        // Counts of removed nodes are gone from the statistics: then this gives up, and nothing is
        // told.
        for _ in 0..20 {
            if acknowledged() == told {
                let settled = handoff.sync().await.is_ok();
                // Acknowledgements that a failure undid are counted all the same.
                self.tell_of_reopens()?;
                if settled {
                    tell(&Event::Settled)?;
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    fn reopens(&self) -> u64 {
        let handoff = self.handoff.get();
        handoff.map_or(0, |handoff| handoff.stats().store.reopened)
    }

    pub fn tell_of_reopens(&self) -> std::io::Result<()> {
        self.tell_of_reopens_to(&mut self.reopened.lock())
    }

    fn tell_of_reopens_to(&self, told: &mut u64) -> std::io::Result<()> {
        let reopens = self.reopens();
        match std::mem::replace(told, reopens) == reopens {
            true => Ok(()),
            false => tell(&Event::Reopened),
        }
    }
}

impl ShardWriter<Bytes> for Node {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        let reopens = self.reopens();
        let (fails, delay) = {
            let mut random = self.random.lock();
            let fails = !self.reliable && random.u8(..100) < 15;
            (fails, Duration::from_micros(random.u64(..3_000)))
        };
        let _open = self.gate.read().await;
        if !self.reliable {
            tokio::time::sleep(delay).await;
        }
        if fails {
            return Err(WriteError::retry("the workload fails some"));
        }
        let mut told = self.reopened.lock();
        self.tell_of_reopens_to(&mut told)
            .map_err(WriteError::retry)?;
        if *told != reopens {
            // It will be sent again, behind what else came back.
            return Err(WriteError::retry("the store failed meanwhile"));
        }
        let node = by_first_name(write.node);
        for batch in write.batches {
            let (Some(id), Some(number)) =
                (batch.hint, read_payload(&batch.points, node, write.shard))
            else {
                // Told as a delivery of a write that nobody tried.
                return Err(WriteError::reject(format!(
                    "a payload that nobody wrote: {:?}",
                    batch.hint
                )));
            };
            let delivered = Event::Delivered {
                id,
                number,
                node,
                shard: write.shard,
            };
            tell(&delivered).map_err(WriteError::retry)?;
            self.delivered.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}
