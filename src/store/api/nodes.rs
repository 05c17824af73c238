//! What the layers above ask of nodes: pausing, parking, renaming, removing them.

use std::collections::BTreeSet;

use crate::{
    error::HandoffError,
    store::{
        Store,
        pipeline::{
            control::Control,
            done::ControlDone,
            node_request::{Members, Request, Retained},
        },
        state::holds::{Hold, Parked},
    },
    types::{Amount, NodeId, Pause},
};

impl Store {
    /// Pauses the replay of a node, or ends its pause.
    pub fn pause(
        &self,
        node: NodeId,
        how: Option<Pause>,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        let node = Some(node);
        self.ask(done, |done| Request::Pause { node, how, done });
    }

    /// Pauses the replay of all nodes, or ends that pause. Nodes that are paused by themselves stay
    /// so.
    pub fn pause_all(
        &self,
        how: Option<Pause>,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        let node = None;
        self.ask(done, |done| Request::Pause { node, how, done });
    }

    /// Pauses all replay for this life, unless it is paused to last. For before anything is sent.
    pub fn begin_paused(&self) {
        let mut holds = self.shared.holds.lock();
        holds.all.get_or_insert(Pause::UntilRestart);
    }

    /// Parks every node that is known and not among `members`, and no other. `now_unix_ms` is in
    /// the time of this life.
    pub fn retain_nodes(
        &self,
        members: Members,
        now_unix_ms: u64,
        done: impl FnOnce(Result<Retained, HandoffError>) + Send + 'static,
    ) {
        let members = Some(members);
        self.ask(done, |done| Request::Retain {
            members,
            now_unix_ms,
            done,
        });
    }

    /// Parks nodes that became known since the host said who all members are, and are none of them.
    pub fn park_unlisted(
        &self,
        now_unix_ms: u64,
        done: impl FnOnce(Result<Retained, HandoffError>) + Send + 'static,
    ) {
        let members = None;
        self.ask(done, |done| Request::Retain {
            members,
            now_unix_ms,
            done,
        });
    }

    /// Whether the host said who all members are.
    pub fn knows_all_members(&self) -> bool {
        self.shared.holds.lock().members.is_some()
    }

    /// Whether any node is to be parked that is not, but for those that stay.
    pub fn has_unlisted(&self, stays: impl Fn(NodeId) -> bool) -> bool {
        let known: Vec<NodeId> = {
            let registry = self.shared.registry.lock();
            registry.nodes.keys().copied().collect()
        };
        let holds = self.shared.holds.lock();
        holds.members.is_some()
            && known.into_iter().any(|node| {
                let hold = holds.of(node);
                hold.unlisted && hold.parked.is_none() && !stays(node)
            })
    }

    /// Has a node removed once nothing is pending for it, or not any more: durable when it is told.
    pub fn leave(
        &self,
        node: NodeId,
        leaves: bool,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        self.ask(done, |done| Request::Leave(node, leaves, done));
    }

    /// Nodes that are to be removed once nothing is pending.
    pub fn leaving(&self) -> BTreeSet<NodeId> {
        self.shared.holds.lock().leaving.clone()
    }

    /// Puts the queues of `from` among those of `to`, and forgets `from`. Tells how much was
    /// pending in them. No task may be at work for either.
    pub fn rename_node(
        &self,
        from: NodeId,
        to: NodeId,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        self.ask(done, |done| Request::Rename { from, to, done });
    }

    /// Discards all hints of a node and forgets its queues. Tells how much was pending.
    pub fn remove_node(
        &self,
        node: NodeId,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        self.ask(done, |done| Request::Discard(node, done));
    }

    /// Forgets a node that leaves if nothing is pending for it, else says how much is.
    pub fn remove_drained(
        &self,
        node: NodeId,
        done: impl FnOnce(Result<(), HandoffError>) + Send + 'static,
    ) {
        self.ask(done, |done| Request::RemoveDrained(node, done));
    }

    /// As [`remove_node`](Store::remove_node) if the node is parked since then still, else it is
    /// left as it is.
    pub fn purge_node(
        &self,
        node: NodeId,
        since: Parked,
        done: impl FnOnce(Result<Amount, HandoffError>) + Send + 'static,
    ) {
        self.ask(done, |done| Request::Purge(node, since, done));
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        done: impl FnOnce(Result<T, HandoffError>) + Send + 'static,
        request: impl FnOnce(ControlDone<T>) -> Request,
    ) {
        self.control(done, |done| Control::Nodes(request(done)));
    }

    /// Why a node is not replayed.
    pub fn hold(&self, node: NodeId) -> Hold {
        self.shared.holds.lock().of(node)
    }

    /// How all nodes are paused, if they are.
    pub fn paused_all(&self) -> Option<Pause> {
        self.shared.holds.lock().all
    }

    /// Nodes that are parked, and since when.
    pub fn parked(&self) -> Vec<(NodeId, Parked)> {
        self.shared.holds.lock().parked()
    }
}
