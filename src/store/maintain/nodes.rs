//! What the host says of its nodes: pause, rename, in the cluster or not, leave, remove. Carried
//! out on the commit thread, between groups, in order with the hints around them, and durable when
//! it is answered. So is what is found of the clock.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::{HandoffError, StorageError},
    store::{
        LossReason,
        commit::committer::Committer,
        engine::meta,
        failpoints::point,
        format::correction::Correction,
        maintain::remove::Removed,
        pipeline::node_request::{Members, Request, Retained},
        state::holds::Parked,
    },
    types::{NodeId, Pause},
};

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

    fn write_corrections(&mut self, corrections: &[Correction]) -> Result<(), StorageError> {
        meta::set_corrections(self.writer()?, corrections)?;
        self.writer()?.commit()
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
            self.writer()?.commit()?;
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
            meta::set_paused(self.writer()?, lasts)?;
            point("pause: all written")?;
            self.writer()?.commit()?;
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
            self.writer()?.commit()?;
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
            meta::set_members(self.writer()?, members.as_ref())?;
            point("members: written")?;
            self.writer()?.commit()?;
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
            self.writer()?.commit()?;
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
