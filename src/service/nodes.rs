//! Operating nodes: pause, rename, remove, and say who is in the cluster.

mod blocking;
mod changing;

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use changing::{RemovalWait, Untaken, channel, heard};

use super::handoff::HintedHandoff;
use crate::{
    error::{HandoffError, ReplayStopped, StorageError},
    payload::Payload,
    store::{MEMBERS_MAX, Members, Retained},
    types::{Amount, NodeId, Pause},
};

impl<P: Payload> HintedHandoff<P> {
    /// Pauses the replay of a node: its hints are accepted and wait. A send that is under way may
    /// still finish; no other is begun, and the node is not pinged. A second call replaces the
    /// first, so this also makes a pause last, or end with this life.
    ///
    /// When it returns, a [`Pause::Lasting`] is durable. Removing the node ends it.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if it was never hinted: the first hint makes a node known, so
    /// to hold back nodes that are not yet, use [`pause_all`](HintedHandoff::pause_all).
    /// [`HandoffError::TakenByHand`] if nothing is replayed to it anyway. Or why the store does not
    /// serve.
    pub async fn pause(&self, node: NodeId, pause: Pause) -> Result<(), HandoffError> {
        if self.inner.replays.manual(node).is_some() {
            return Err(HandoffError::TakenByHand { node });
        }
        let (tell, told) = channel();
        self.inner.store.pause(node, Some(pause), tell);
        heard(told).await
    }

    /// Ends the pause of a node, durably; if there is none, nothing happens. While all are paused
    /// it stays so, and a parked node is not replayed either.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if it was never hinted, or why the store does not serve.
    pub async fn resume(&self, node: NodeId) -> Result<(), HandoffError> {
        let (tell, told) = channel();
        let tell = self.and_wake(tell, move |()| [node].into());
        self.inner.store.pause(node, None, tell);
        heard(told).await
    }

    /// Pauses the replay of all nodes, those too that are hinted for the first time later. As
    /// [`pause`](HintedHandoff::pause) does for one. Nodes whose hints are taken by hand are not
    /// concerned.
    ///
    /// # Errors
    /// Why the store does not serve.
    pub async fn pause_all(&self, pause: Pause) -> Result<(), HandoffError> {
        let (tell, told) = channel();
        self.inner.store.pause_all(Some(pause), tell);
        heard(told).await
    }

    /// Ends the pause of all nodes. Those that were paused by themselves stay so.
    ///
    /// # Errors
    /// Why the store does not serve.
    pub async fn resume_all(&self) -> Result<(), HandoffError> {
        let (tell, told) = channel();
        let known = self.inner.store.nodes().into_iter();
        let mut known: BTreeSet<NodeId> = known.map(|(node, _)| node).collect();
        let replays = Arc::clone(&self.inner.replays);
        // A node whose first hint came meanwhile was woken before it could go on.
        let tell = self.and_wake(tell, move |()| {
            known.extend(replays.with_tasks());
            known
        });
        self.inner.store.pause_all(None, tell);
        heard(told).await
    }

    /// Says who is in the cluster. Every other node that is known is *parked*: its hints are
    /// accepted and wait, and are discarded when that has lasted for
    /// [`Config::purge_after`](crate::Config::purge_after). Nodes that are named and were parked go
    /// on.
    ///
    /// It says so of this moment: a node that is hinted for the first time afterwards is not parked
    /// before the next call. Where the list is complete, say so by
    /// [`retain_only_nodes`](HintedHandoff::retain_only_nodes); this call takes that back. Naming a
    /// node that is not known means nothing. Nodes in
    /// [`Config::manual_nodes`](crate::Config::manual_nodes) are never parked. Since when a node is
    /// parked outlives restarts. When it returns, all is durable.
    ///
    /// # Errors
    /// Why the store does not serve. Then some may be parked and others not: say it again.
    pub async fn retain_nodes(&self, members: &[NodeId]) -> Result<Retained, HandoffError> {
        self.retain(members, false).await
    }

    /// As [`retain_nodes`](HintedHandoff::retain_nodes), and these are all: a node that is not
    /// named and is hinted for the first time later is parked, too, before anything is sent to it.
    /// That lasts, over restarts, until either of the two calls is made again. Name a node before
    /// it joins, and before another is renamed to it.
    ///
    /// Since when such a node is parked is known some seconds after its first hint.
    ///
    /// # Errors
    /// [`HandoffError::TooManyMembers`] for more than 8,000 nodes, and as `retain_nodes`.
    pub async fn retain_only_nodes(&self, members: &[NodeId]) -> Result<Retained, HandoffError> {
        self.retain(members, true).await
    }

    async fn retain(&self, members: &[NodeId], are_all: bool) -> Result<Retained, HandoffError> {
        let nodes: BTreeSet<NodeId> = members.iter().copied().collect();
        if are_all && nodes.len() > MEMBERS_MAX {
            return Err(HandoffError::TooManyMembers {
                members: nodes.len(),
                max: MEMBERS_MAX,
            });
        }
        let (tell, told) = channel();
        // Those too that were held, and were not parked yet.
        let mut known = nodes.clone();
        let replays = Arc::clone(&self.inner.replays);
        let tell = self.and_wake(tell, move |it: &Retained| {
            known.extend(&it.unparked);
            let tasks = replays.with_tasks().into_iter().collect();
            match are_all {
                true => known.intersection(&tasks).copied().collect(),
                false => tasks,
            }
        });
        let now_unix_ms = self.inner.ageing.now();
        let members = Members { nodes, are_all };
        let store = &self.inner.store;
        store.retain_nodes(members, now_unix_ms, tell);
        let retained = heard(told).await;
        // It looks for nodes to park more often from now on.
        self.inner.house.notify_one();
        retained
    }

    /// Gives the hints of `from` to `to`, in one step that a crash cannot halve: a node goes by a
    /// new name, or is merged into another. Returns how much was pending for `from`.
    ///
    /// Hints keep their ids, and those of each shard their order: of the queues of both the one
    /// that was begun first is sent first. What was handed in for `from` before this takes its turn
    /// moves along, what comes later makes `from` a node of its own again, under ids that were
    /// never used. The replay of both is stopped meanwhile, after what is in flight. Dead letters
    /// move along, and what was counted of `from` counts for `to`.
    ///
    /// A pause of `from` goes with it to a name that was not known; otherwise `to` is what it was:
    /// paused or not, parked or not. A node whose hints are taken by hand can be either side, but
    /// not while it has a consumer; what a transaction peeked at before cannot be acknowledged any
    /// more.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if `from` was never hinted, [`HandoffError::SameNode`],
    /// [`HandoffError::Consumed`], [`HandoffError::TooManyQueues`], or why the store does not
    /// serve. A storage error leaves open whether it came into effect.
    pub async fn rename_node(&self, from: NodeId, to: NodeId) -> Result<Amount, HandoffError> {
        self.inner.store.check_serving()?;
        if from == to {
            return Err(HandoffError::SameNode { node: from });
        }
        let inner = Arc::clone(&self.inner);
        self.to_its_end(async move {
            let _no_consumers = [
                Untaken::take(&inner.replays, from)?,
                Untaken::take(&inner.replays, to)?,
            ];
            if let Some(admission) = &inner.admission {
                admission.begin_move(to);
            }
            let nodes = [from, to];
            let renamed = inner.change(&nodes, |tell| inner.store.rename_node(from, to, tell));
            let renamed = renamed.await;
            if let Some(admission) = &inner.admission {
                admission.end_move(&inner.store, to);
            }
            renamed
        })
        .await
    }

    /// Forgets a node: its replay stops, its hints are discarded (counted and logged with their
    /// range), its space is given back bit by bit. Returns what was discarded. A later hint for the
    /// node starts anew, neither paused nor parked.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if it was never hinted, or was removed; or why the store does
    /// not serve.
    pub async fn remove_node(&self, node: NodeId) -> Result<Amount, HandoffError> {
        self.inner.store.check_serving()?;
        let inner = Arc::clone(&self.inner);
        self.to_its_end(async move {
            let nodes = [node];
            let removed = inner.change(&nodes, |tell| inner.store.remove_node(node, tell));
            removed.await
        })
        .await
    }

    /// Has a node forgotten once nothing is pending for it, and waits for that. The dead letters
    /// that it has then go with it, as lost ([`LossReason::Discarded`](crate::LossReason)). A hint
    /// that slips in before the end is waited for too, so stop writing first; whether anything is
    /// pending is decided in order with the writes. The replay of a node that is paused or parked
    /// goes on only if it is resumed or named meanwhile.
    ///
    /// That it is to be removed is durable before anything is waited for, and goes on when
    /// `timeout` is over, when the future is dropped, and after a restart
    /// ([`NodeStats::leaving`](crate::NodeStats::leaving)), until it is done or
    /// [`cancel_removal`](HintedHandoff::cancel_removal) calls it off. Another call waits for the
    /// same. A node that is renamed to a name that was not known leaves under that.
    ///
    /// # Errors
    /// [`HandoffError::NotDrained`] with what is pending when `timeout` is over;
    /// [`HandoffError::RemovalCancelled`] if it was called off; [`HandoffError::UnknownNode`] if it
    /// was never hinted, or was removed; or why the store does not serve.
    pub async fn drain_and_remove(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<(), HandoffError> {
        // Until it is dropped nobody else removes the node: the outcome is this caller's to hear.
        let _waiting = RemovalWait::begin(&self.inner, node);
        let (tell, told) = channel();
        self.inner.store.leave(node, true, tell);
        heard(told).await?;
        let mut leave_bell = self.inner.leave_bell.subscribe();
        let pulse = self.inner.replays.pulse();
        let mut deadline = pin!(pulse.sleep(timeout));
        let mut is_over = timeout.is_zero();
        loop {
            // Whatever leaves from here on rings.
            leave_bell.mark_unchanged();
            self.inner.store.check_serving()?;
            if !self.inner.store.has_pending(node) {
                let removed = self.remove_drained(node).await;
                if !matches!(removed, Err(HandoffError::NotDrained { .. })) {
                    return removed;
                }
            } else if !self.inner.store.leaving().contains(&node) {
                return Err(HandoffError::RemovalCancelled { node });
            }
            if is_over {
                let pending = self.inner.store.pending(node);
                return Err(HandoffError::NotDrained { node, pending });
            }
            tokio::select! {
                biased;
                () = self.inner.replays.stop().cancelled() => return Err(HandoffError::ShutDown),
                over = &mut deadline => is_over = over.map(|()| true)?,
                // The sender is in the service, so it does not end.
                _ = leave_bell.changed() => {}
            }
        }
    }

    async fn remove_drained(&self, node: NodeId) -> Result<(), HandoffError> {
        let inner = Arc::clone(&self.inner);
        self.to_its_end(async move { inner.remove_drained(node).await })
            .await
    }

    /// Calls off what [`drain_and_remove`](HintedHandoff::drain_and_remove) began, durably: the
    /// node stays, and is replayed as before. Those who wait for its removal are told. If it is not
    /// to be removed nothing happens.
    ///
    /// # Errors
    /// [`HandoffError::UnknownNode`] if it was never hinted, or is removed by now; or why the store
    /// does not serve.
    pub async fn cancel_removal(&self, node: NodeId) -> Result<(), HandoffError> {
        let (tell, told) = channel();
        let leave_bell = self.inner.leave_bell.clone();
        self.inner.store.leave(node, false, move |result| {
            leave_bell.send_modify(|()| {});
            tell(result);
        });
        heard(told).await
    }

    /// Has nodes replayed again once something has come into effect, also if nobody listens any
    /// more.
    ///
    /// It is told on the commit thread, which must not be the one to drop the last handle of the
    /// service.
    fn and_wake<T: 'static>(
        &self,
        tell: impl FnOnce(Result<T, HandoffError>) + Send + 'static,
        woken: impl FnOnce(&T) -> BTreeSet<NodeId> + Send + 'static,
    ) -> Box<dyn FnOnce(Result<T, HandoffError>) + Send> {
        let replays = Arc::clone(&self.inner.replays);
        Box::new(move |result| {
            if let Ok(changed) = &result {
                replays.wake(&woken(changed));
            }
            tell(result);
        })
    }

    /// In a task of its own, so that a caller who gives up does not leave the work half done: a
    /// node would be left without its task.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HandoffError>> + Send + 'static,
    ) -> Result<T, HandoffError> {
        let done = tokio::select! {
            biased;
            done = self.inner.runtime.spawn(work) => done,
            why = self.inner.replays.pulse().stopped() => return Err(why.into()),
        };
        match done {
            Ok(done) => done,
            Err(error) if error.is_panic() => {
                Err(StorageError::new("change a node: the task panicked", error).into())
            }
            Err(_) => Err(ReplayStopped::RuntimeGone.into()),
        }
    }
}
