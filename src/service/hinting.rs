//! Writes that the host has not hinted, or not sent directly, for a while.

use super::handoff::HintedHandoff;
use crate::{error::EnqueueError, payload::Payload, types::NodeId};

impl<P: Payload> HintedHandoff<P> {
    /// Has no hints made for a node until [`start_hinting`](HintedHandoff::start_hinting), or until
    /// the handoff is opened again: `write_shard` and transactions are refused with
    /// [`EnqueueError::HintingStopped`], and a copy of a [`PointsWriter`](crate::PointsWriter) that
    /// cannot be sent is one that was not stored, which the loss journal tells. What is pending
    /// stays and is sent; dead letters that are sent on become hints all the same. It goes by the
    /// number of the node, also once the node is removed or has another name.
    pub fn stop_hinting(&self, node: NodeId) {
        self.inner.hinting.write().not_for.insert(node);
        tracing::warn!(
            node = node.0,
            "no hints are made for the node: the host says so"
        );
    }

    /// Has hints made for a node again. While [`stop_hinting_all`](HintedHandoff::stop_hinting_all)
    /// is in effect there are none all the same.
    pub fn start_hinting(&self, node: NodeId) {
        if self.inner.hinting.write().not_for.remove(&node) {
            tracing::info!(node = node.0, "hints are made for the node again");
        }
    }

    /// As [`stop_hinting`](HintedHandoff::stop_hinting), for all nodes.
    pub fn stop_hinting_all(&self) {
        self.inner.hinting.write().none_at_all = true;
        tracing::warn!("no hints are made: the host says so");
    }

    /// Ends [`stop_hinting_all`](HintedHandoff::stop_hinting_all). Nodes that were named by
    /// themselves stay without hints.
    pub fn start_hinting_all(&self) {
        self.inner.hinting.write().none_at_all = false;
        tracing::info!("hints are made again");
    }

    pub(crate) fn check_hinted(&self, node: NodeId) -> Result<(), EnqueueError> {
        match self.inner.hinting.read().is_stopped(node) {
            true => Err(EnqueueError::HintingStopped { node }),
            false => Ok(()),
        }
    }

    /// Has writes of a [`PointsWriter`](crate::PointsWriter) to a node hinted at once until
    /// [`release_direct`](HintedHandoff::release_direct), or until the handoff is opened again, as
    /// if it did not answer ([`NodeStats::gate`](crate::NodeStats::gate) says so; no event does).
    /// Replay goes on. A node that is removed or gets another name is forgotten.
    pub fn hold_direct(&self, node: NodeId) {
        self.inner.links.of(node).hold();
    }

    /// Has writes sent to a node again.
    pub fn release_direct(&self, node: NodeId) {
        self.inner.links.of(node).release();
    }
}
