//! Dead letters and barriers at the store itself, where a test says when each hint leaves and how.

use bytes::Bytes;
use hinted_handoff::{
    Amount, Barrier, DeadReason, EnqueueError, HandoffError, HintId, LossReason, NodeId, ShardId,
    internals::{Dead, DeadCause, Fate, Hint, PeekedHint, Place, Store},
};

use super::{hints, told};

/// What failed, as a node might say it.
pub fn cause(error: &str) -> DeadCause {
    DeadCause {
        reason: DeadReason::Rejected,
        error: error.to_owned(),
        attempts: 3,
        first_failed_unix_ms: 1_700_000_000_001,
        last_failed_unix_ms: 1_700_000_000_200,
    }
}

pub fn claimed(store: &Store, node: u64, hint: &PeekedHint) -> PeekedHint {
    let mut hints = vec![hint.clone()];
    store.claim(NodeId(node), &mut hints);
    hints.pop().expect("it is there to be claimed")
}

pub fn make_dead_letter(store: &Store, node: u64, hint: &PeekedHint) -> Result<(), HandoffError> {
    let hint = claimed(store, node, hint);
    told(|done| store.make_dead_letter(NodeId(node), hint, cause("no such measurement"), done))
}

/// Claims the first of the hints that wait and have this sequence.
pub fn claim(store: &Store, node: u64, sequence: u64) -> PeekedHint {
    let mut waiting = hints(store, node).into_iter();
    let hint = waiting.find(|it| it.mark.sequence.0 == sequence).unwrap();
    claimed(store, node, &hint)
}

/// Makes a hint a dead letter, by its sequence.
pub fn make_dead_letter_at(store: &Store, node: u64, sequence: u64, error: &str) -> Place {
    let hint = claim(store, node, sequence);
    let place = hint.mark.place();
    told(|done| store.make_dead_letter(NodeId(node), hint, cause(error), done)).unwrap();
    place
}

/// Stores a hint that leaves at once.
pub fn append_undelivered(
    store: &Store,
    node: u64,
    hint: Hint,
    fate: Fate,
) -> Result<HintId, EnqueueError> {
    told(|done| store.append_undelivered(NodeId(node), hint, fate, done))
}

/// Notes that a copy of 10 bytes was not stored, and waits until that is recorded.
pub fn note(store: &Store, node: u64, shard: u64) -> Result<(), HandoffError> {
    let copies = Amount {
        hints: 1,
        bytes: 10,
    };
    let (node, shard) = (NodeId(node), ShardId(shard));
    told(|done| store.note_not_stored(node, shard, copies, done))
}

pub fn lose(store: &Store, node: u64, hint: &PeekedHint, reason: LossReason) -> Amount {
    let hint = claimed(store, node, hint);
    told(|done| store.lose(NodeId(node), vec![hint], reason, done)).unwrap()
}

/// Loses a hint, by its sequence.
pub fn lose_at(store: &Store, node: u64, sequence: u64, reason: LossReason) {
    let hint = claim(store, node, sequence);
    let left = told(|done| store.lose(NodeId(node), vec![hint], reason, done));
    assert_eq!(left.unwrap().hints, 1);
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

/// The sequences of a node's dead letters with their payloads.
pub fn letters_read(store: &Store, node: u64) -> Vec<(u64, Bytes)> {
    let found = letters(store, node).into_iter();
    let read = |(place, _): (Place, _)| (place.sequence.0, letter(store, node, place).1.payload);
    found.map(read).collect()
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
    told(|done| store.redrive(NodeId(node), place, hint, done))
}

/// Sends a dead letter on, and leaves it the time at which it was enqueued.
pub fn redrive_as_it_is(store: &Store, node: u64, place: Place) -> HintId {
    let hint = Hint {
        enqueued_unix_ms: letter(store, node, place).1.enqueued_unix_ms,
        ..as_new(store, node, place)
    };
    let sent = told(|done| store.redrive(NodeId(node), place, hint, done));
    sent.unwrap().unwrap()
}

pub fn discard(store: &Store, node: u64, places: Vec<Place>) -> Amount {
    told(|done| store.discard(NodeId(node), places, done)).unwrap()
}

pub fn remove_node(store: &Store, node: u64) -> Amount {
    told(|done| store.remove_node(NodeId(node), done)).unwrap()
}

pub fn barrier(store: &Store, nodes: &[u64]) -> Result<Barrier, HandoffError> {
    let nodes = nodes.iter().copied().map(NodeId).collect();
    told(|done| store.barrier(nodes, done))
}
