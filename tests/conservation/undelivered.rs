//! Hints that leave with the group that stores them, and copies that never were hints.

use std::sync::mpsc;

use hinted_handoff::{
    Amount, HintId, LossReason, NodeId, ShardId,
    internals::{CommitFault, Fate, Hint},
};

use super::{PATIENCE, Story};
use crate::{
    common::letters::{cause, id_of},
    ledger::{Whereabouts, number_of, plus},
};

impl Story {
    /// Some leave with the group that stores them, beside others that stay.
    pub fn append_undelivered(&mut self, node: u64) {
        for _ in 0..self.random.usize(1..4) {
            let (number, hint) = self.new_hint();
            let (fate, at) = self.fate();
            let entered = hint.clone();
            let (tell, told) = mpsc::channel();
            let done = move |result| tell.send(result).unwrap();
            self.store()
                .append_undelivered(NodeId(node), hint, fate, Box::new(done));
            self.append(node);
            let id = told.recv_timeout(PATIENCE).unwrap().unwrap();
            self.enter_undelivered(number, node, &entered, id, at);
        }
    }

    fn fate(&mut self) -> (Fate, Whereabouts) {
        let obsolete = LossReason::Obsolete;
        match self.random.bool() {
            true => (Fate::Dead(cause("no such field")), Whereabouts::Dead),
            false => (Fate::Lost(obsolete), Whereabouts::Journalled(obsolete)),
        }
    }

    fn enter_undelivered(
        &mut self,
        number: u64,
        node: u64,
        hint: &Hint,
        id: HintId,
        at: Whereabouts,
    ) {
        self.enter(node, number, hint, id, at);
        self.count("undelivered", 1);
        if at == Whereabouts::Dead {
            self.evict(node, number);
        }
    }

    pub fn note_not_stored(&mut self, node: u64) {
        let copies = Amount {
            hints: self.random.u64(1..4),
            bytes: self.random.u64(1..100),
        };
        let shard = ShardId(self.random.u64(1..4));
        let noted =
            self.told(|store, done| store.note_not_stored(NodeId(node), shard, copies, done));
        noted.unwrap();
        let sum = self.ledger.not_stored.entry(node).or_default();
        *sum = plus(*sum, copies);
        self.count("not stored", copies.hints as usize);
    }

    /// The storage fails under a hint that leaves with its group: it is whole where it belongs, or
    /// nowhere.
    pub fn fail_undelivered(&mut self, node: u64) {
        let (number, hint) = self.new_hint();
        let entered = hint.clone();
        let reopens = self.store().reopens();
        self.store().inject(CommitFault::Fail);
        let (tell, told) = mpsc::channel();
        let done = move |result| tell.send(result).unwrap();
        let fate = Fate::Dead(cause("no such field"));
        self.store()
            .append_undelivered(NodeId(node), hint, fate, Box::new(done));
        assert!(told.recv_timeout(PATIENCE).unwrap().is_err());
        self.store().inject(CommitFault::None);
        self.until_reopened(reopens);
        let letters = self.store().letters(NodeId(node), None, usize::MAX);
        let ids: Vec<_> = letters
            .unwrap_or_default()
            .iter()
            .map(|(place, _)| id_of(self.store(), *place))
            .collect();
        let found = ids.into_iter().find(|id| {
            let (_, _, hint) = self.store().letter(NodeId(node), *id).unwrap().unwrap();
            number_of(&hint.payload) == number
        });
        if let Some(id) = found {
            self.enter_undelivered(number, node, &entered, id, Whereabouts::Dead);
        }
    }
}
