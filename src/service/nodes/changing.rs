//! Changing the queues of nodes while none of them is replayed, for callers and for the
//! housekeeping.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    config::Config,
    error::{HandoffError, with_causes},
    replay::Replays,
    service::handoff::Inner,
    store::Parked,
    types::{Amount, NodeId},
};

type NodeAnswer<T> = oneshot::Receiver<Result<T, HandoffError>>;

/// A way to be told, and a place to hear it.
pub(super) fn channel<T: Send + 'static>()
-> (impl FnOnce(Result<T, HandoffError>) + Send, NodeAnswer<T>) {
    let (tell, told) = oneshot::channel();
    let tell = move |result| {
        // Nobody listens if the caller gave up; what was asked for is done all the same.
        let _ = tell.send(result);
    };
    (tell, told)
}

pub(super) async fn heard<T>(told: NodeAnswer<T>) -> Result<T, HandoffError> {
    told.await.unwrap_or(Err(HandoffError::ShutDown))
}

impl Inner {
    /// Changes the queues of nodes while none of them is replayed, and has them replayed again.
    pub(in crate::service) async fn change<T: Send + 'static>(
        &self,
        nodes: &[NodeId],
        ask: impl FnOnce(Box<dyn FnOnce(Result<T, HandoffError>) + Send>),
    ) -> Result<T, HandoffError> {
        // Never closed. Each change is bounded: by the grace of what is in flight, and by the
        // watchdog over commits.
        let turn = self.changes.acquire().await;
        let _turn = turn.map_err(|_| HandoffError::ShutDown)?;
        let change = async {
            let (tell, told) = channel();
            ask(Box::new(tell));
            heard(told).await
        };
        let changed = self.replays.without_nodes(nodes, change).await;
        if changed.is_ok() {
            let is_gone = |node: &&NodeId| !self.store.knows(**node);
            let gone = nodes.iter().filter(is_gone);
            gone.for_each(|node| self.links.forget(*node));
        }
        // Those that are left, and those whose hints came in right behind the change: they rang the
        // bell of a task that was stopped.
        self.wake_known(nodes.iter().copied().collect());
        changed
    }

    /// Has the tasks of all nodes begin anew, by these settings. The caller has the permit of
    /// `changes`.
    pub(in crate::service) async fn restart_replay(&self, config: &Config) {
        // First, so that tasks which begin from here on go by them and need not be listed.
        self.replays.set(config);
        let nodes = self.replays.with_tasks();
        self.replays.without_nodes(&nodes, async {}).await;
        self.wake_known(nodes.into_iter().collect());
    }

    pub(super) async fn remove_drained(&self, node: NodeId) -> Result<(), HandoffError> {
        self.change(&[node], |tell| self.store.remove_drained(node, tell))
            .await
    }

    /// Removes nodes that leave and have nothing pending, but for those that a caller waits for.
    pub(in crate::service) async fn remove_all_drained(&self, leaving: BTreeSet<NodeId>) {
        for node in leaving {
            if self.waiting.lock().contains_key(&node) || self.store.has_pending(node) {
                continue;
            }
            match self.remove_drained(node).await {
                Ok(()) => tracing::info!(
                    node = node.0,
                    "a node that was to leave is drained and removed"
                ),
                // It is not what it was: looked at again when something leaves.
                Err(HandoffError::NotDrained { .. } | HandoffError::RemovalCancelled { .. }) => {}
                Err(HandoffError::ShutDown) => return,
                Err(error) => {
                    tracing::warn!(node = node.0, error = %with_causes(&error), "a node could not be removed yet")
                }
            }
        }
    }

    /// Parks nodes that were hinted for the first time since the host said who all members are.
    pub(in crate::service) async fn park_unlisted(&self) {
        let is_manual = |node| self.replays.manual(node).is_some();
        if !self.store.has_unlisted(is_manual) {
            return;
        }
        let (tell, told) = channel();
        self.store.park_unlisted(self.ageing.now(), tell);
        if let Err(error) = heard(told).await {
            tracing::debug!(error = %with_causes(&error), "nodes that are not in the cluster could not be parked yet");
        }
    }

    fn wake_known(&self, mut nodes: BTreeSet<NodeId>) {
        nodes.retain(|node| self.store.knows(*node));
        self.replays.wake(&nodes);
    }

    /// Discards the hints of nodes that were parked for too long.
    pub(in crate::service) async fn purge_parked(&self, after: Duration) {
        for (node, since) in self.store.parked() {
            let Parked(since_unix_ms) = since;
            // One that is manual was parked before the host began to take its hints by hand.
            if !self.ageing.is_past(since_unix_ms, after) || self.replays.manual(node).is_some() {
                continue;
            }
            match self.purge(node, since).await {
                Ok(purged) => tracing::warn!(
                    node = node.0,
                    hints = purged.hints,
                    bytes = purged.bytes,
                    "a node that is not in the cluster was purged"
                ),
                Err(HandoffError::ShutDown) => return,
                Err(error) => {
                    tracing::warn!(node = node.0, error = %with_causes(&error), "a node could not be purged yet");
                }
            }
        }
    }

    async fn purge(&self, node: NodeId, since: Parked) -> Result<Amount, HandoffError> {
        self.change(&[node], |tell| self.store.purge_node(node, since, tell))
            .await
    }
}

/// Somebody waits for a node's removal.
pub(super) struct RemovalWait<'a> {
    inner: &'a Inner,
    node: NodeId,
}

impl<'a> RemovalWait<'a> {
    pub(super) fn begin(inner: &'a Inner, node: NodeId) -> Self {
        *inner.waiting.lock().entry(node).or_default() += 1;
        RemovalWait { inner, node }
    }
}

impl Drop for RemovalWait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.inner.waiting.lock();
        if let Some(others) = waiting.get_mut(&self.node) {
            *others -= 1;
            if *others == 0 {
                waiting.remove(&self.node);
            }
        }
        drop(waiting);
        // From here on it is the housekeeping's.
        self.inner.house.notify_one();
    }
}

/// Keeps consumers away from a node whose hints are taken by hand.
pub(super) struct Untaken {
    replays: Arc<Replays>,
    node: NodeId,
}

impl Untaken {
    /// Nothing to keep away for a node that is replayed.
    pub(super) fn take(replays: &Arc<Replays>, node: NodeId) -> Result<Option<Self>, HandoffError> {
        let Some(manual) = replays.manual(node) else {
            return Ok(None);
        };
        match manual.is_taken.swap(true, Ordering::Acquire) {
            true => Err(HandoffError::Consumed { node }),
            false => Ok(Some(Untaken {
                replays: Arc::clone(replays),
                node,
            })),
        }
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        if let Some(manual) = self.replays.manual(self.node) {
            manual.is_taken.store(false, Ordering::Release);
        }
    }
}
