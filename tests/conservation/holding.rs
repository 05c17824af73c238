//! Held hints in the story of a store: each is pending, nobody but the story lets it leave, and
//! nothing in order goes past it.

use hinted_handoff::{
    Amount, NodeId,
    internals::{Peek, PeekLimits, Reader, Store},
};

use super::{NODES, Story};
use crate::ledger::{Whereabouts, number, pending};

const ALL: PeekLimits = PeekLimits {
    hints: usize::MAX,
    payload_bytes: u64::MAX,
};

/// The numbers of what a node's consumer would see.
fn in_order(store: &Store, node: u64) -> Vec<u64> {
    match store
        .peek(&mut Reader::default(), NodeId(node), ALL)
        .unwrap()
    {
        Peek::Empty => Vec::new(),
        Peek::Hints(hints) => hints.iter().map(number).collect(),
        Peek::Damaged(place) => panic!("{place:?} is damaged"),
    }
}

impl Story {
    pub fn hold(&mut self, node: u64) {
        let (number, hint) = self.new_hint();
        let handed = hint.clone();
        let mut held = None;
        let id = self.told(|store, done| {
            let done = Box::new(move |id: Result<_, _>| done(Ok(id.unwrap())));
            held = Some(store.append_held(Default::default(), NodeId(node), handed, false, done));
        });
        self.enter(node, number, &hint, id.unwrap(), Whereabouts::Pending);
        self.held.insert(number, held.unwrap());
        self.count("held", 1);
    }

    pub fn end_a_hold(&mut self) {
        let numbers: Vec<u64> = self.held.keys().copied().collect();
        let Some(number) = self.random.choice(numbers) else {
            return;
        };
        let held = self.held.remove(&number).unwrap();
        let (at, left) = match self.random.u32(..3) {
            0 => (Whereabouts::Delivered, held.deliver()),
            1 => (Whereabouts::Withdrawn, held.withdraw()),
            _ => return self.count("let go", 1),
        };
        let entry = self.ledger.hints.get_mut(&number).unwrap();
        // Gone with its node.
        if entry.at != Whereabouts::Pending {
            return assert_eq!(left.unwrap(), Amount::default());
        }
        let one = Amount {
            hints: 1,
            bytes: entry.bytes,
        };
        assert_eq!(left.unwrap(), one);
        (entry.at, entry.fresh) = (at, true);
        let kind = match at {
            Whereabouts::Delivered => "delivered unsent",
            _ => "withdrawn",
        };
        self.count(kind, 1);
    }

    /// What is held can be claimed by nobody, and a consumer sees what is in front of it.
    pub fn check_held(&self) {
        let store = self.store();
        for node in NODES {
            let all = pending(store, node);
            let mut claimed = all.clone();
            store.claim(NodeId(node), &mut claimed);
            let free = all.iter().filter(|it| !self.held.contains_key(&number(it)));
            assert!(claimed.iter().eq(free), "{claimed:?}");
            store.release(NodeId(node), &claimed);
            let first = all.first().map(|hint| hint.mark.queue);
            let front = all.iter().take_while(|hint| {
                Some(hint.mark.queue) == first && !self.held.contains_key(&number(hint))
            });
            let front: Vec<u64> = front.map(number).collect();
            assert_eq!(in_order(store, node), front);
        }
    }
}
