//! What was written and is yet to come, and what hints hold.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use hinted_handoff::{HintId, NodeId, ShardId};

/// A node and a shard of one writer: its hints come in the order in which they were written.
pub type To = (NodeId, ShardId);

#[derive(Default)]
pub struct Ledger(HashMap<To, Stream>);

#[derive(Default)]
struct Stream {
    written: u64,
    awaited: VecDeque<Awaited>,
    last: Option<HintId>,
}

/// A hint that is to come.
#[derive(Debug, Clone, Copy)]
pub struct Awaited {
    to: To,
    number: u64,
    bytes: u64,
}

impl Ledger {
    /// Awaits one more hint. Call it before the hint is written: it may be delivered before its
    /// writer is answered.
    pub fn awaits(&mut self, to: To, bytes: u64) -> Awaited {
        let stream = self.0.entry(to).or_default();
        stream.written += 1;
        let number = stream.written;
        let awaited = Awaited { to, number, bytes };
        stream.awaited.push_back(awaited);
        awaited
    }

    /// What has to be in the hint `id` that was delivered now.
    pub fn comes(&mut self, to: To, id: HintId) -> Result<Awaited, String> {
        let stream = self.0.entry(to).or_default();
        let last = stream.last.replace(id);
        if last.is_some_and(|last| (last.queue, last.sequence) >= (id.queue, id.sequence)) {
            return Err(format!("{to:?}: {id} was delivered behind {last:?}"));
        }
        let awaited = stream.awaited.pop_front();
        awaited.ok_or_else(|| format!("{to:?}: {id} was delivered, and none is awaited"))
    }

    /// How many hints are yet to come.
    pub fn awaited(&self) -> u64 {
        let streams = self.0.values();
        streams.map(|stream| stream.awaited.len() as u64).sum()
    }
}

impl Awaited {
    /// Its number, then noise, so that sled gets all of it.
    pub fn payload(&self, seed: u64) -> Bytes {
        let stream = (self.to.0.0 << 56) ^ (self.to.1.0 << 48);
        let mut payload = vec![0; self.bytes as usize];
        fastrand::Rng::with_seed(seed ^ stream ^ self.number).fill(&mut payload);
        payload[..8].copy_from_slice(&self.number.to_be_bytes());
        payload.into()
    }

    /// Compares it with what came.
    pub fn is(&self, seed: u64, came: &Bytes) -> Result<(), String> {
        if *came == self.payload(seed) {
            return Ok(());
        }
        let number = came.first_chunk().copied().map(u64::from_be_bytes);
        let bytes = came.len();
        Err(format!(
            "{self:?} was to come, and number {number:?} of {bytes} bytes came"
        ))
    }
}
