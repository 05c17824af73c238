//! Limits of what may be pending: room is reserved before a hint enters the pipeline, and becomes
//! its own when it is published.
//!
//! The account is part of the registry, so what is pending and what is reserved are looked at, and
//! turn into one another, under one lock: no moment in which a hint counts twice, or not at all.

use std::collections::BTreeMap;

use crate::{
    config::Config,
    error::Limit,
    store::state::disk::DiskLimit,
    types::{Amount, NodeId},
};

/// What may be pending; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    node_hints: Option<u64>,
    node_bytes: Option<u64>,
    hints: Option<u64>,
    bytes: Option<u64>,
}

impl Limits {
    pub fn of(config: &Config) -> Self {
        Limits {
            node_hints: config.max_hints_per_node,
            node_bytes: config.max_bytes_per_node,
            hints: config.max_hints,
            bytes: config.max_bytes,
        }
    }

    /// Whether anything is to bound what is pending.
    pub fn are_set(config: &Config) -> bool {
        Limits::of(config) != Limits::default() || config.max_disk_bytes.is_some()
    }

    /// The limits that count a node's hints, and those that count all.
    fn of_node(&self) -> [(Limit, Option<u64>, Count); 2] {
        [
            (Limit::NodeHints, self.node_hints, |it| it.hints),
            (Limit::NodeBytes, self.node_bytes, |it| it.bytes),
        ]
    }

    fn of_store(&self) -> [(Limit, Option<u64>, Count); 2] {
        [
            (Limit::StoreHints, self.hints, |it| it.hints),
            (Limit::StoreBytes, self.bytes, |it| it.bytes),
        ]
    }
}

impl Quota {
    /// What the disk has room for is a limit of all that is pending, too.
    fn of_disk(&self) -> (Limit, Option<u64>, Count) {
        (Limit::Disk, self.disk.room_bytes(), |it| it.bytes)
    }
}

/// What of an amount a limit counts.
type Count = fn(Amount) -> u64;

/// A limit has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// A node that the hints were for.
    pub node: NodeId,
    /// The limit.
    pub limit: Limit,
    /// What it is set to.
    pub max: u64,
    /// What it counts so far, reserved room included.
    pub pending: u64,
    /// What was asked for.
    pub wanted: u64,
}

impl Full {
    /// Whether it would be full even if all left.
    pub fn is_for_ever(&self) -> bool {
        // That of the disk grows again.
        self.wanted > self.max && self.limit != Limit::Disk
    }

    /// Whether there is room once hints have left: not at once where the disk is full, since what
    /// they took must be written over first.
    pub fn ends_when_hints_leave(&self) -> bool {
        self.limit != Limit::Disk || self.wanted <= self.max
    }

    /// What must leave.
    pub fn missing(&self) -> u64 {
        let over = self.pending.saturating_add(self.wanted);
        over.saturating_sub(self.max)
    }

    /// Whether it is of the node alone.
    pub fn is_of_node(&self) -> bool {
        matches!(self.limit, Limit::NodeHints | Limit::NodeBytes)
    }

    /// What of an amount the limit counts.
    pub fn count(&self, amount: Amount) -> u64 {
        match self.limit {
            Limit::NodeHints | Limit::StoreHints => amount.hints,
            Limit::NodeBytes | Limit::StoreBytes | Limit::Disk => amount.bytes,
        }
    }
}

/// What is pending in all queues, and what was promised to hints on their way there.
#[derive(Debug, Clone, Default)]
pub struct Quota {
    pub limits: Limits,
    pub disk: DiskLimit,
    /// Kept by the registry as the sum over all queues.
    pub pending: Amount,
    reserved: Amount,
    reserved_by_node: BTreeMap<NodeId, Amount>,
    /// Something left, or was not stored after all: whoever waits for room is to be told once the
    /// lock is released.
    pub freed: bool,
}

impl Quota {
    /// What a queue held and holds.
    pub fn changed(&mut self, before: Amount, after: Amount) {
        self.pending = self.pending.less(before).plus(after);
        self.freed |= after.hints < before.hints;
    }

    /// The log is so long, and this is wanted beside what is on its way to it.
    pub fn note_log(&mut self, log_bytes: u64, wanted: impl Iterator<Item = Amount>) {
        let coming = wanted.fold(self.reserved, Amount::plus);
        self.freed |= self.disk.note(log_bytes, self.pending, coming);
    }

    /// Promises room for hints, each node once, given what is pending of each: for all of them or
    /// for none. `leaving` leaves in the step in which they are stored.
    pub fn reserve(&mut self, wanted: &[Wanted], leaving: Amount) -> Result<(), Full> {
        self.check(wanted, leaving)?;
        for it in wanted {
            let reserved = self.reserved_by_node.entry(it.node).or_default();
            *reserved = reserved.plus(it.amount);
            self.reserved = self.reserved.plus(it.amount);
        }
        Ok(())
    }

    fn check(&self, wanted: &[Wanted], leaving: Amount) -> Result<(), Full> {
        let all = wanted
            .iter()
            .fold(Amount::default(), |sum, it| sum.plus(it.amount));
        let held = self.pending.plus(self.reserved).less(leaving);
        let Some(some) = wanted.first() else {
            return Ok(());
        };
        let of_store = self
            .limits
            .of_store()
            .into_iter()
            .chain([self.of_disk()])
            .map(|limit| (some.node, held, all, limit));
        let of_nodes = wanted.iter().flat_map(|it| {
            let reserved = self.reserved_by_node.get(&it.node).copied();
            let held = it.pending.plus(reserved.unwrap_or_default());
            self.limits
                .of_node()
                .map(|limit| (it.node, held, it.amount, limit))
        });
        let full =
            of_nodes
                .chain(of_store)
                .filter_map(|(node, held, amount, (limit, max, count))| {
                    let full = Full {
                        node,
                        limit,
                        max: max?,
                        pending: count(held),
                        wanted: count(amount),
                    };
                    (full.missing() > 0).then_some(full)
                });
        // What will never fit is said first: no hint is dropped, and nobody waits, for that.
        match full.min_by_key(|full| !full.is_for_ever()) {
            Some(full) => Err(full),
            None => Ok(()),
        }
    }

    /// Takes promises back: the hints are pending now, or will not be.
    pub fn unreserve(&mut self, held: &[(NodeId, Amount)]) {
        for (node, amount) in held {
            if let Some(reserved) = self.reserved_by_node.get_mut(node) {
                *reserved = reserved.less(*amount);
                if *reserved == Amount::default() {
                    self.reserved_by_node.remove(node);
                }
            }
            self.reserved = self.reserved.less(*amount);
        }
    }
}

/// What somebody wants to add for a node, and what it has.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub node: NodeId,
    pub amount: Amount,
    pub pending: Amount,
}

/// How much, by node; each node once.
pub type Amounts = Vec<(NodeId, Amount)>;

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Quota {
        let limits = Limits {
            node_hints: Some(3),
            hints: Some(4),
            bytes: Some(100),
            ..Limits::default()
        };
        Quota {
            limits,
            ..Quota::default()
        }
    }

    const NOTHING: Amount = Amount { hints: 0, bytes: 0 };

    fn wanted(node: u64, hints: u64, bytes: u64) -> Wanted {
        Wanted {
            node: NodeId(node),
            amount: Amount { hints, bytes },
            pending: Amount::default(),
        }
    }

    #[test]
    fn room_is_for_all_or_for_none_and_what_is_given_back_is_free_again() {
        let mut quota = quota();
        assert!(
            quota
                .reserve(&[wanted(1, 3, 3), wanted(2, 1, 1)], NOTHING)
                .is_ok()
        );
        let full = quota.reserve(&[wanted(3, 1, 1)], NOTHING).unwrap_err();
        assert_eq!(
            (full.limit, full.pending, full.missing()),
            (Limit::StoreHints, 4, 1)
        );
        quota.unreserve(&[(NodeId(2), Amount { hints: 1, bytes: 1 })]);
        let full = quota.reserve(&[wanted(1, 1, 1)], NOTHING).unwrap_err();
        assert_eq!((full.limit, full.node), (Limit::NodeHints, NodeId(1)));
        assert!(quota.reserve(&[wanted(2, 1, 97)], NOTHING).is_ok());
        assert_eq!(
            quota.reserved,
            Amount {
                hints: 4,
                bytes: 100
            }
        );
    }

    #[test]
    fn what_leaves_with_it_makes_room_in_the_store_and_none_at_another_node() {
        let (mut quota, one) = (quota(), Amount { hints: 1, bytes: 1 });
        quota.changed(NOTHING, Amount { hints: 4, bytes: 4 });
        assert!(quota.reserve(&[wanted(1, 1, 1)], NOTHING).is_err());
        assert!(quota.reserve(&[wanted(1, 1, 1)], one).is_ok());
        let of_node = Wanted {
            pending: Amount { hints: 3, bytes: 3 },
            ..wanted(2, 1, 1)
        };
        let full = quota.reserve(&[of_node], Amount { hints: 2, bytes: 2 });
        assert_eq!(full.unwrap_err().limit, Limit::NodeHints);
    }

    #[test]
    fn what_never_fits_is_said_before_what_does_not_fit_now() {
        let mut quota = quota();
        assert!(quota.reserve(&[wanted(1, 3, 3)], NOTHING).is_ok());
        let full = quota.reserve(&[wanted(1, 1, 101)], NOTHING).unwrap_err();
        assert_eq!((full.limit, full.is_for_ever()), (Limit::StoreBytes, true));
    }
}
