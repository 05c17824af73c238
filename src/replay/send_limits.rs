//! Limits of replay over all nodes: sends and bytes at a time, and bytes a second. Nodes take
//! turns.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{rate_limit::RateLimit, reading::Reads};
use crate::config::Config;

/// Bytes are counted in these, one at least a send.
const UNIT_BYTES: u64 = 1024;

/// The semaphores guard what is being sent. They give out permits in the order of asking, and are
/// taken in the order of the fields, so no two sends wait for each other.
pub struct SendLimits {
    rate: RateLimit,
    /// Half of all sends, for nodes that took nothing since a ping or a send failed: nodes that
    /// hang leave the other half to those that do not.
    in_doubt: Semaphore,
    sends: Semaphore,
    bytes: Semaphore,
    sends_most: usize,
    units_most: u32,
}

/// A send that is under way.
pub struct SendPermit<'a> {
    _in_doubt: Option<SemaphorePermit<'a>>,
    _send: Option<SemaphorePermit<'a>>,
    _bytes: Option<SemaphorePermit<'a>>,
}

impl SendLimits {
    pub fn new(config: &Config) -> Self {
        let units = config.max_bytes_in_flight.div_ceil(UNIT_BYTES);
        let units_most = u32::try_from(units).unwrap_or(u32::MAX);
        let sends_most = config.max_sends;
        SendLimits {
            rate: RateLimit::new(config.retry_rate_limit_total, config.batch_bytes),
            in_doubt: Semaphore::new((sends_most / 2).max(1)),
            sends: Semaphore::new(sends_most),
            bytes: Semaphore::new(units_most as usize),
            sends_most,
            units_most,
        }
    }

    /// How many sends at a time a node may have, of `most`: its share of all, one at least.
    pub fn share(&self, most: usize, reads: &Reads) -> usize {
        let share = self.sends_most / reads.nodes().max(1);
        most.min(share.max(1))
    }

    /// Waits until so many bytes may be sent to a node, behind all that waited before. A send
    /// larger than `max_bytes_in_flight` goes alone.
    pub async fn permit(&self, bytes: u64, in_doubt: bool) -> SendPermit<'_> {
        self.rate.wait(bytes).await;
        // They are never closed.
        let in_doubt = match in_doubt {
            true => self.in_doubt.acquire().await.ok(),
            false => None,
        };
        let send = self.sends.acquire().await.ok();
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.units_most);
        SendPermit {
            _in_doubt: in_doubt,
            _send: send,
            _bytes: self.bytes.acquire_many(units).await.ok(),
        }
    }
}
