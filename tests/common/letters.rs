//! Dead letters and barriers at the store itself, where a test says when each hint leaves and how.

#![allow(dead_code)]

use std::{sync::mpsc, time::Duration};

use hinted_handoff::{
    Amount, Barrier, DeadReason, EnqueueError, HandoffError, HintId, LossReason, NodeId, ShardId,
    internals::{Burial, Dead, Fate, Hint, PeekedHint, Place, Store},
};

/// Waits for what `ask` is told.
pub fn answer<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (tell, told) = mpsc::channel();
    // Nobody listens if the wait below gave up.
    ask(Box::new(move |answer| drop(tell.send(answer))));
    told.recv_timeout(Duration::from_secs(60)).unwrap()
}

pub fn burial(error: &str) -> Burial {
    Burial {
        reason: DeadReason::Rejected,
        error: error.to_owned(),
        attempts: 3,
        first_failed_unix_ms: 1_700_000_000_000,
        last_failed_unix_ms: 1_700_000_060_000,
    }
}

pub fn claimed(store: &Store, node: u64, hint: &PeekedHint) -> PeekedHint {
    let mut hints = vec![hint.clone()];
    store.claim(NodeId(node), &mut hints);
    hints.pop().expect("it is there to be claimed")
}

pub fn bury(store: &Store, node: u64, hint: &PeekedHint) -> Result<(), HandoffError> {
    let hint = claimed(store, node, hint);
    answer(|done| store.bury(NodeId(node), hint, burial("no such measurement"), done))
}

/// Stores a hint that leaves at once.
pub fn append_undelivered(
    store: &Store,
    node: u64,
    hint: Hint,
    fate: Fate,
) -> Result<HintId, EnqueueError> {
    answer(|done| store.append_undelivered(NodeId(node), hint, fate, done))
}

/// Notes that a copy of 10 bytes was not stored, and waits until that is recorded.
pub fn note(store: &Store, node: u64, shard: u64) -> Result<(), HandoffError> {
    let copies = Amount {
        hints: 1,
        bytes: 10,
    };
    let (node, shard) = (NodeId(node), ShardId(shard));
    answer(|done| store.note_not_stored(node, shard, copies, done))
}

pub fn lose(store: &Store, node: u64, hint: &PeekedHint, reason: LossReason) -> Amount {
    let hint = claimed(store, node, hint);
    answer(|done| store.lose(NodeId(node), vec![hint], reason, done)).unwrap()
}

pub fn deliver(store: &Store, node: u64, hint: &PeekedHint) {
    let hint = claimed(store, node, hint);
    assert_eq!(store.deliver(NodeId(node), &[hint]).unwrap().hints, 1);
}

pub fn letters(store: &Store, node: u64) -> Vec<(Place, Dead)> {
    store.letters(NodeId(node), None, usize::MAX).unwrap()
}

pub fn letter(store: &Store, node: u64, place: Place) -> (Dead, Hint) {
    let id = id_of(store, place);
    let (_, dead, hint) = store.letter(NodeId(node), id).unwrap().unwrap();
    (dead, hint)
}

pub fn id_of(store: &Store, place: Place) -> HintId {
    HintId {
        store: store.id(),
        queue: place.queue.queue,
        sequence: place.sequence,
    }
}

/// As the service does it.
pub fn as_new(store: &Store, node: u64, place: Place) -> Hint {
    let (_, hint) = letter(store, node, place);
    Hint {
        shard: hint.shard,
        format: hint.format,
        enqueued_unix_ms: 1_800_000_000_000,
        payload: hint.payload,
        origin: hint.origin.or(Some((place.queue.queue, place.sequence))),
        write: hint.write,
        lifetime_ms: hint.lifetime_ms,
    }
}

pub fn redrive(store: &Store, node: u64, place: Place) -> Result<Option<HintId>, HandoffError> {
    let hint = as_new(store, node, place);
    answer(|done| store.redrive(NodeId(node), place, hint, done))
}

pub fn discard(store: &Store, node: u64, places: Vec<Place>) -> Amount {
    answer(|done| store.discard(NodeId(node), places, done)).unwrap()
}

pub fn remove_node(store: &Store, node: u64) -> Amount {
    answer(|done| store.remove_node(NodeId(node), done)).unwrap()
}

pub fn barrier(store: &Store, nodes: &[u64]) -> Result<Barrier, HandoffError> {
    let nodes = nodes.iter().copied().map(NodeId).collect();
    answer(|done| store.barrier(nodes, done))
}
