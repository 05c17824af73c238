//! The blocking twins: for any thread that does not drive a runtime.

use std::time::Duration;

use crate::{
    blocking::block_on,
    error::HandoffError,
    payload::Payload,
    service::handoff::HintedHandoff,
    store::Retained,
    types::{Amount, NodeId, Pause},
};

impl<P: Payload> HintedHandoff<P> {
    /// [`pause`](HintedHandoff::pause) for a thread that does not drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `pause`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `pause` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn pause_blocking(&self, node: NodeId, pause: Pause) -> Result<(), HandoffError> {
        block_on(self.pause(node, pause))
    }

    /// [`resume`](HintedHandoff::resume) for a thread that does not drive a tokio runtime. Blocks
    /// it.
    ///
    /// # Errors
    /// As `resume`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `resume` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn resume_blocking(&self, node: NodeId) -> Result<(), HandoffError> {
        block_on(self.resume(node))
    }

    /// [`pause_all`](HintedHandoff::pause_all) for a thread that does not drive a tokio runtime.
    /// Blocks it.
    ///
    /// # Errors
    /// As `pause_all`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `pause_all` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn pause_all_blocking(&self, pause: Pause) -> Result<(), HandoffError> {
        block_on(self.pause_all(pause))
    }

    /// [`resume_all`](HintedHandoff::resume_all) for a thread that does not drive a tokio runtime.
    /// Blocks it.
    ///
    /// # Errors
    /// As `resume_all`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `resume_all` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn resume_all_blocking(&self) -> Result<(), HandoffError> {
        block_on(self.resume_all())
    }

    /// [`retain_nodes`](HintedHandoff::retain_nodes) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `retain_nodes`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `retain_nodes` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn retain_nodes_blocking(&self, members: &[NodeId]) -> Result<Retained, HandoffError> {
        block_on(self.retain_nodes(members))
    }

    /// [`retain_only_nodes`](HintedHandoff::retain_only_nodes) for a thread that does not
    /// drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `retain_only_nodes`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `retain_only_nodes` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn retain_only_nodes_blocking(&self, members: &[NodeId]) -> Result<Retained, HandoffError> {
        block_on(self.retain_only_nodes(members))
    }

    /// [`cancel_removal`](HintedHandoff::cancel_removal) for a thread that does not
    /// drive a tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `cancel_removal`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `cancel_removal` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn cancel_removal_blocking(&self, node: NodeId) -> Result<(), HandoffError> {
        block_on(self.cancel_removal(node))
    }

    /// [`rename_node`](HintedHandoff::rename_node) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `rename_node`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `rename_node` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn rename_node_blocking(&self, from: NodeId, to: NodeId) -> Result<Amount, HandoffError> {
        block_on(self.rename_node(from, to))
    }

    /// [`remove_node`](HintedHandoff::remove_node) for a thread that does not drive a tokio
    /// runtime. Blocks it.
    ///
    /// # Errors
    /// As `remove_node`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `remove_node` there, or use `spawn_blocking`.
    #[track_caller]
    pub fn remove_node_blocking(&self, node: NodeId) -> Result<Amount, HandoffError> {
        block_on(self.remove_node(node))
    }

    /// [`drain_and_remove`](HintedHandoff::drain_and_remove) for a thread that does not drive a
    /// tokio runtime. Blocks it.
    ///
    /// # Errors
    /// As `drain_and_remove`.
    ///
    /// # Panics
    /// On a thread that drives a tokio runtime: await `drain_and_remove` there, or use
    /// `spawn_blocking`.
    #[track_caller]
    pub fn drain_and_remove_blocking(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<(), HandoffError> {
        block_on(self.drain_and_remove(node, timeout))
    }
}
