//! What is on its way out to make room, so that several who drop at once do not each drop the whole
//! excess.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::{
    store::Full,
    types::{Amount, NodeId},
};

/// What those who are dropping hints at the moment need, and what they have leave.
#[derive(Debug, Default)]
pub struct Dropping {
    /// Held for a few sums, and while no other lock is.
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    all: DropShare,
    by_node: BTreeMap<NodeId, DropShare>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct DropShare {
    wanted: Amount,
    leaving: Amount,
}

/// One who drops, until it has its room or gives up.
pub struct Dropper<'a, F: Fn()> {
    dropping: &'a Dropping,
    wanted: &'a [(NodeId, Amount)],
    leaving: Option<(NodeId, Amount)>,
    /// Called at the end: others may have counted on what it had leave.
    done: F,
}

impl Dropping {
    /// Joins those who drop.
    pub fn begin<'a, F: Fn()>(&'a self, wanted: &'a [(NodeId, Amount)], done: F) -> Dropper<'a, F> {
        let mut account = self.account.lock();
        for (node, amount) in wanted {
            account.add_wanted(*node, *amount);
        }
        Dropper {
            dropping: self,
            wanted,
            leaving: None,
            done,
        }
    }
}

impl Account {
    fn shares(&mut self, node: NodeId, change: impl Fn(&mut DropShare)) {
        change(&mut self.all);
        let share = self.by_node.entry(node).or_default();
        change(share);
        if *share == DropShare::default() {
            self.by_node.remove(&node);
        }
    }

    fn add_wanted(&mut self, node: NodeId, amount: Amount) {
        self.shares(node, |share| share.wanted = share.wanted.plus(amount));
    }
}

impl<F: Fn()> Dropper<'_, F> {
    /// What must leave beside what does already, so that all who drop get their room.
    pub fn missing(&self, full: &Full) -> u64 {
        let account = self.dropping.account.lock();
        let (share, own) = match full.is_of_node() {
            true => {
                let own = self.wanted.iter().find(|(node, _)| *node == full.node);
                let share = account.by_node.get(&full.node).copied();
                (
                    share.unwrap_or_default(),
                    own.map_or(Amount::default(), |it| it.1),
                )
            }
            false => {
                let amounts = self.wanted.iter().map(|(_, amount)| *amount);
                (account.all, amounts.fold(Amount::default(), Amount::plus))
            }
        };
        // One's own is part of what is full.
        let others = full.count(share.wanted.less(own));
        let needed = full.missing().saturating_add(others);
        needed.saturating_sub(full.count(share.leaving))
    }

    /// These are claimed, and about to leave.
    pub fn leaving(&mut self, node: NodeId, amount: Amount) {
        self.leaving = Some((node, amount));
        let mut account = self.dropping.account.lock();
        account.shares(node, |share| share.leaving = share.leaving.plus(amount));
    }

    /// They have left, or stay.
    pub fn left(&mut self) {
        if let Some((node, amount)) = self.leaving.take() {
            let mut account = self.dropping.account.lock();
            account.shares(node, |share| share.leaving = share.leaving.less(amount));
        }
    }
}

impl<F: Fn()> Drop for Dropper<'_, F> {
    fn drop(&mut self) {
        self.left();
        {
            let mut account = self.dropping.account.lock();
            for (node, amount) in self.wanted {
                account.shares(*node, |share| share.wanted = share.wanted.less(*amount));
            }
        }
        (self.done)();
    }
}
