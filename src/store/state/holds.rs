//! Which nodes are not replayed, and why: they are paused, or parked since they are not in the
//! cluster.
//!
//! What lasts is in the nodes' records and in `hh/meta`; this is what the tasks of the nodes ask
//! before each send.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use crate::{
    store::format::node_record::NodeRecord,
    types::{NodeId, Pause},
};

/// Since when a node is parked: in the time of the life that parked it, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked(pub u64);

/// Why a node is not replayed. Nothing of it: it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hold {
    /// The host paused it, or all.
    pub paused: Option<Pause>,
    /// The host said that it is not in the cluster.
    pub parked: Option<Parked>,
    /// It is not among those that the host said are all there are. One that was hinted for the
    /// first time since is about to be parked.
    pub unlisted: bool,
}

/// What the host said of all nodes, to last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaidOfAll {
    /// All replay is paused.
    pub paused: bool,
    /// There are no other nodes in the cluster; `None` if that was not said.
    pub members: Option<BTreeSet<NodeId>>,
}

#[derive(Debug, Default)]
pub struct Holds {
    /// The host paused all nodes.
    pub all: Option<Pause>,
    /// See [`SaidOfAll::members`].
    pub members: Option<BTreeSet<NodeId>>,
    /// Those that are to be removed once nothing is pending.
    pub leaving: BTreeSet<NodeId>,
    /// Those that are held by themselves.
    nodes: BTreeMap<NodeId, Hold>,
}

impl Hold {
    /// Whether anything does.
    pub fn is_held(&self) -> bool {
        *self != Hold::default()
    }
}

impl Holds {
    /// What the disk says. Pauses until restart stay where this is not the first time.
    pub fn reload(&mut self, said: SaidOfAll, records: &HashMap<NodeId, NodeRecord>) {
        let paused = |lasts: bool, before: Option<Pause>| match lasts {
            true => Some(Pause::Lasting),
            false => before.filter(|pause| *pause == Pause::UntilRestart),
        };
        self.all = paused(said.paused, self.all);
        self.members = said.members;
        self.leaving.clear();
        let before = mem::take(&mut self.nodes);
        for (node, record) in records.iter().filter(|(_, record)| !record.removed) {
            if record.leaves {
                self.leaving.insert(*node);
            }
            let before = before.get(node).copied().unwrap_or_default();
            let paused = paused(record.paused, before.paused);
            let own = Hold {
                paused,
                parked: record.parked_since.map(Parked),
                unlisted: false,
            };
            self.set(*node, own);
        }
    }

    /// Why a node is not replayed, with what holds all of them.
    pub fn of(&self, node: NodeId) -> Hold {
        let own = self.own(node);
        Hold {
            paused: own.paused.or(self.all),
            unlisted: self.is_unlisted(node),
            ..own
        }
    }

    /// Whether the host said who is in the cluster, and not this one.
    pub fn is_unlisted(&self, node: NodeId) -> bool {
        let members = self.members.as_ref();
        members.is_some_and(|members| !members.contains(&node))
    }

    /// Why a node is not replayed, by itself.
    fn own(&self, node: NodeId) -> Hold {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    fn set(&mut self, node: NodeId, hold: Hold) {
        match hold.is_held() {
            true => self.nodes.insert(node, hold),
            false => self.nodes.remove(&node),
        };
    }

    pub fn pause(&mut self, node: NodeId, paused: Option<Pause>) {
        let own = self.own(node);
        self.set(node, Hold { paused, ..own });
    }

    pub fn park(&mut self, node: NodeId, parked: Option<Parked>) {
        let own = self.own(node);
        self.set(node, Hold { parked, ..own });
    }

    /// The node was removed: one of its name that comes later begins anew.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.leaving.remove(&node);
    }

    /// `from` goes by the name of `to`, of which nothing was known before.
    pub fn rename(&mut self, from: NodeId, to: NodeId) {
        let paused = self.own(from).paused;
        self.pause(to, paused);
        if self.leaving.contains(&from) {
            self.leaving.insert(to);
        }
    }

    /// Nodes that are parked, and since when.
    pub fn parked(&self) -> Vec<(NodeId, Parked)> {
        let parked = self.nodes.iter();
        let parked = parked.filter_map(|(node, hold)| Some((*node, hold.parked?)));
        parked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_keeps_what_was_for_this_life_and_takes_what_lasts_from_the_disk() {
        let record = |paused, parked_since| NodeRecord {
            paused,
            parked_since,
            ..NodeRecord::default()
        };
        let mut holds = Holds::default();
        for node in 1..=4 {
            holds.pause(NodeId(node), Some(Pause::UntilRestart));
        }
        holds.pause(NodeId(2), Some(Pause::Lasting));
        holds.all = Some(Pause::UntilRestart);
        let parked = Parked(4);
        holds.park(NodeId(1), Some(parked));
        let removed = NodeRecord {
            removed: true,
            ..record(true, Some(5))
        };
        let records = HashMap::from([
            (NodeId(1), record(false, Some(5))),
            (NodeId(2), record(false, None)),
            (NodeId(3), record(true, Some(6))),
            (NodeId(4), removed),
        ]);
        holds.reload(SaidOfAll::default(), &records);
        assert_eq!(holds.own(NodeId(1)).paused, Some(Pause::UntilRestart));
        assert_eq!(holds.own(NodeId(1)).parked, Some(Parked(5)));
        assert_eq!(holds.own(NodeId(2)), Hold::default());
        assert_eq!(holds.own(NodeId(3)).paused, Some(Pause::Lasting));
        assert_eq!(holds.own(NodeId(4)), Hold::default());
        assert_eq!(holds.of(NodeId(4)).paused, Some(Pause::UntilRestart));
        let said = SaidOfAll {
            paused: true,
            members: Some([NodeId(1)].into()),
        };
        holds.reload(said, &records);
        assert!(!holds.of(NodeId(1)).unlisted && holds.of(NodeId(9)).unlisted);
        assert_eq!(holds.all, Some(Pause::Lasting));
    }
}
