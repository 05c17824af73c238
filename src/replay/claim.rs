//! The hints of a send, which nobody else may let leave meanwhile.

use std::sync::Arc;

use super::line::Line;
use crate::{
    admission::Sending,
    store::{PeekedHint, Store},
    types::{NodeId, QueueId, ShardId},
};

/// What one send is to carry.
pub struct Load {
    pub shard: ShardId,
    pub hints: Vec<PeekedHint>,
    pub retired_below: Option<QueueId>,
    /// How often the store had been opened again when they were read.
    pub reopens: u64,
    /// The answer is waited for so many times as long as usual.
    pub patience: u32,
    /// Whether the node took nothing since a ping or a send failed.
    pub in_doubt: bool,
}

/// Hints that nobody else may let leave until this is dropped.
pub struct Claim {
    pub store: Arc<Store>,
    pub node: NodeId,
    /// How often the store had been opened again when they were claimed.
    pub reopens: u64,
    pub hints: Vec<PeekedHint>,
    /// No direct write goes past it, until it is acknowledged, or known not to be.
    _sending: Option<Sending>,
}

impl Claim {
    /// Claims those that are still there, up to the first that is held, and says how many of them
    /// are in front of that.
    pub fn of(line: &Line<impl Sized>, load: &mut Load) -> (Self, usize) {
        let admission = line.admission.as_ref();
        let mut claim = Claim {
            store: Arc::clone(&line.store),
            node: line.node,
            reopens: 0,
            hints: Vec::new(),
            _sending: admission.map(|it| it.send(line.node, load.shard)),
        };
        let mut hints = std::mem::take(&mut load.hints);
        let claimed = line.store.claim_in_order(line.node, load.shard, &mut hints);
        claim.reopens = claimed.reopens;
        claim.hints = hints;
        (claim, claimed.in_front)
    }

    /// Gives all back but the first so many.
    pub fn first(mut self, hints: usize) -> Self {
        let others = self.hints.split_off(self.hints.len().min(hints));
        drop(Claim {
            store: Arc::clone(&self.store),
            node: self.node,
            reopens: self.reopens,
            hints: others,
            _sending: None,
        });
        self
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.hints.is_empty() {
            self.store
                .release_claimed(self.node, &self.hints, self.reopens);
        }
    }
}
