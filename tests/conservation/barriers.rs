//! What a barrier must say, by what the ledger knows of its hints.

use std::collections::BTreeSet;

use hinted_handoff::{Barrier, BarrierState, internals::Store};

use crate::ledger::{Ledger, Whereabouts};

/// A barrier, and the hints it stands for.
pub struct Marked {
    pub barrier: Barrier,
    hints: BTreeSet<u64>,
    /// Dead letters of its queues that are older than it: a range that was lost may reach from one
    /// of them to a hint that came later.
    older: BTreeSet<u64>,
    /// Copies for its nodes that were not stored before it was made.
    not_stored: u64,
}

fn not_stored(barrier: &Barrier, ledger: &Ledger) -> u64 {
    let nodes = barrier.nodes.iter();
    let copies = nodes.filter_map(|node| ledger.not_stored.get(&node.0));
    copies.map(|copies| copies.hints).sum()
}

impl Marked {
    pub fn new(barrier: Barrier, ledger: &Ledger) -> Marked {
        let (mut hints, mut older) = (BTreeSet::new(), BTreeSet::new());
        for (number, entry) in &ledger.hints {
            let queues = barrier.queues.iter();
            let Some(queue) = queues.into_iter().find(|it| it.queue == entry.id.queue) else {
                continue;
            };
            let is_there = matches!(entry.at, Whereabouts::Pending | Whereabouts::Dead);
            if is_there && entry.id.sequence >= queue.from {
                assert!(entry.id.sequence <= queue.through);
                hints.insert(*number);
            } else if entry.at == Whereabouts::Dead {
                older.insert(*number);
            }
        }
        Marked {
            not_stored: not_stored(&barrier, ledger),
            barrier,
            hints,
            older,
        }
    }

    pub fn check(&self, store: &Store, ledger: &Ledger) {
        self.check_state(&store.look_at(&self.barrier).unwrap(), ledger);
    }

    /// What was said of it agrees with the ledger.
    pub fn check_state(&self, state: &BarrierState, ledger: &Ledger) {
        let count = |wanted: fn(Whereabouts) -> bool| {
            let hints = self.hints.iter().filter(|it| wanted(ledger.hints[it].at));
            hints.count() as u64
        };
        let waiting = count(|at| at == Whereabouts::Pending);
        let dead = count(|at| at == Whereabouts::Dead);
        let lost = count(|at| matches!(at, Whereabouts::Journalled(_)));
        let not_stored = not_stored(&self.barrier, ledger) - self.not_stored;
        let told = match state {
            BarrierState::Lost { losses, .. } => losses.not_stored.hints,
            _ => 0,
        };
        assert_eq!(told, not_stored, "{:?}", self.barrier);
        let wanted = (waiting, dead, lost);
        match state {
            BarrierState::Delivered => assert_eq!(wanted, (0, 0, 0), "{:?}", self.barrier),
            BarrierState::Waiting {
                pending,
                dead_letters,
                ..
            } => assert_eq!(
                (pending.hints, *dead_letters, 0),
                wanted,
                "{:?}",
                self.barrier
            ),
            BarrierState::Lost {
                pending,
                dead_letters,
                ..
            } => {
                let is_lost = not_stored > 0 || self.may_be_lost(ledger);
                assert!(is_lost, "{state:?} {:?}", self.barrier);
                assert_eq!(
                    (pending.hints, *dead_letters),
                    (waiting, dead),
                    "{:?}",
                    self.barrier
                );
            }
            other => panic!("{other:?}"),
        }
    }
    /// Whether one of its hints is lost, or an older dead letter, which may be taken for one.
    pub fn may_be_lost(&self, ledger: &Ledger) -> bool {
        let is_gone = |it: &u64| matches!(ledger.hints[it].at, Whereabouts::Journalled(_));
        self.hints.iter().chain(&self.older).any(is_gone)
    }
}
