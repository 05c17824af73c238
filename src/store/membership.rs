//! What the host says of its nodes: pause, rename, in the cluster or not, leave, remove. Carried
//! out on the commit thread, between groups, in order with the hints around them, and durable when
//! it is answered. So is what is found of the clock.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Store,
    committer::Committer,
    done::ControlDone,
    entry::Control,
    faults::point,
    holds::{Hold, Parked},
    meta,
    node_request::{Members, Request, Retained},
    removal::Removed,
};
use crate::{
    error::{HandoffError, StorageError},
    store::LossReason,
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

    pub(super) fn ask<T: Send + 'static>(
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

impl Committer {
    /// Does what was asked, and answers.
    pub fn about_nodes(&mut self, request: Request) {
        match request {
            Request::Pause { node, how, done } => done(match node {
                Some(node) => self.guarded(|it| it.pause(node, how)).flatten(),
                None => self.guarded(|it| it.pause_all(how)),
            }),
            Request::Retain {
                members,
                now_unix_ms,
                done,
            } => {
                done(self.guarded(|it| it.retain_nodes(members, now_unix_ms)));
            }
            Request::Rename { from, to, done } => {
                done(self.guarded(|it| it.rename_node(from, to)).flatten());
            }
            Request::Leave(node, leaves, done) => {
                done(self.guarded(|it| it.leave(node, leaves)).flatten());
            }
            Request::Discard(node, done) => {
                let removed = self.guarded(|it| it.remove_node(node, LossReason::Discarded, false));
                done(removed.and_then(|it| it.amount_of(node)));
            }
            Request::RemoveDrained(node, done) => {
                let removed = self.guarded(|it| it.remove_node(node, LossReason::Discarded, true));
                done(removed.and_then(|it| it.amount_of(node)).map(drop));
            }
            Request::Purge(node, since, done) => {
                let removed = self.guarded(|it| it.purge_node(node, since));
                done(removed.and_then(|it| it.amount_of(node)));
            }
            Request::Corrections(corrections, done) => {
                done(self.guarded(|it| it.write_corrections(&corrections)));
            }
        }
    }

    /// Whether the node was hinted, and not removed since.
    pub fn knows(&self, node: NodeId) -> bool {
        self.records.get(&node).is_some_and(|it| !it.removed)
    }

    fn pause(
        &mut self,
        node: NodeId,
        how: Option<Pause>,
    ) -> Result<Result<(), HandoffError>, StorageError> {
        let record = self.records.get_mut(&node).filter(|it| !it.removed);
        let Some(record) = record else {
            return Ok(Err(HandoffError::UnknownNode { node }));
        };
        let lasts = how == Some(Pause::Lasting);
        if record.paused != lasts {
            record.paused = lasts;
            self.write_record(node)?;
            point("pause: record written")?;
            self.commit()?;
            point("pause: durable")?;
        }
        self.shared.holds.lock().pause(node, how);
        tracing::info!(node = node.0, pause = ?how, "pause of a node's replay");
        Ok(Ok(()))
    }

    fn pause_all(&mut self, how: Option<Pause>) -> Result<(), StorageError> {
        let before = self.shared.holds.lock().all;
        let lasts = how == Some(Pause::Lasting);
        if (before == Some(Pause::Lasting)) != lasts {
            let engine = self.engine()?;
            self.handed_bytes += meta::set_paused(&engine, lasts)
                .map_err(|error| StorageError::new("write to the engine", error))?;
            point("pause: all written")?;
            self.commit()?;
            point("pause: all durable")?;
        }
        self.shared.holds.lock().all = how;
        tracing::info!(pause = ?how, "pause of all replay");
        Ok(())
    }

    fn leave(
        &mut self,
        node: NodeId,
        leaves: bool,
    ) -> Result<Result<(), HandoffError>, StorageError> {
        let record = self.records.get_mut(&node).filter(|it| !it.removed);
        let Some(record) = record else {
            return Ok(Err(HandoffError::UnknownNode { node }));
        };
        if record.leaves != leaves {
            record.leaves = leaves;
            self.write_record(node)?;
            self.commit()?;
            tracing::info!(
                node = node.0,
                leaves,
                "whether a node is to be removed once it is drained"
            );
        }
        let mut holds = self.shared.holds.lock();
        match leaves {
            true => holds.leaving.insert(node),
            false => holds.leaving.remove(&node),
        };
        Ok(Ok(()))
    }

    /// What is said of nodes that are not known yet is durable first: one that is hinted in between
    /// is not sent to.
    fn set_members(&mut self, members: Option<BTreeSet<NodeId>>) -> Result<(), StorageError> {
        let before = self.shared.holds.lock().members.clone();
        if before != members {
            let engine = self.engine()?;
            self.handed_bytes += meta::set_members(&engine, members.as_ref())
                .map_err(|error| StorageError::new("write to the engine", error))?;
            point("members: written")?;
            self.commit()?;
            point("members: durable")?;
            self.shared.holds.lock().members = members;
        }
        Ok(())
    }

    /// Each record is a change of its own: a crash in between parks some, and the host says it
    /// again when it is back.
    fn retain_nodes(
        &mut self,
        members: Option<Members>,
        now_unix_ms: u64,
    ) -> Result<Retained, StorageError> {
        let shared = Arc::clone(&self.shared);
        let members = match members {
            Some(members) => {
                let all = members.are_all.then(|| members.nodes.clone());
                self.set_members(all)?;
                members.nodes
            }
            None => match shared.holds.lock().members.clone() {
                Some(members) => members,
                None => return Ok(Retained::default()),
            },
        };
        let parked = Parked(now_unix_ms.max(1));
        let mut changed = Retained::default();
        let known = self.records.iter().filter(|(_, record)| !record.removed);
        for (node, record) in known {
            // What the host takes by hand it need not count among its cluster: an outbox is no
            // member.
            let stays = members.contains(node) || self.config.manual_nodes.contains(node);
            match (stays, record.parked_since) {
                (false, None) => changed.parked.push(*node),
                (true, Some(_)) => changed.unparked.push(*node),
                _ => {}
            }
        }
        changed.parked.sort_unstable();
        changed.unparked.sort_unstable();
        let since = |nodes: &[NodeId], since| nodes.iter().map(move |it| (*it, since)).collect();
        let mut changes: Vec<(NodeId, Option<Parked>)> = since(&changed.parked, Some(parked));
        changes.append(&mut since(&changed.unparked, None));
        for (node, since) in &changes {
            if let Some(record) = self.records.get_mut(node) {
                record.parked_since = since.map(|Parked(since)| since);
            }
            self.write_record(*node)?;
            point("park: record written")?;
        }
        if !changes.is_empty() {
            self.commit()?;
            point("park: durable")?;
        }
        let mut holds = shared.holds.lock();
        for (node, since) in changes {
            holds.park(node, since);
        }
        drop(holds);
        if changed != Retained::default() {
            tracing::warn!(
                parked = ?changed.parked, unparked = ?changed.unparked,
                "the host said who is in the cluster"
            );
        }
        Ok(changed)
    }

    /// The host may have named the node again since its time was found to be over.
    fn purge_node(&mut self, node: NodeId, since: Parked) -> Result<Removed, StorageError> {
        let parked = self.shared.holds.lock().of(node).parked;
        match parked == Some(since) {
            true => self.remove_node(node, LossReason::Purged, false),
            false => Ok(Removed::Nothing),
        }
    }
}
