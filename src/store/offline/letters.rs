//! The dead letters of a closed store.

use std::collections::BTreeSet;

use crate::{
    error::StorageError,
    store::{
        engine::log_tree::LogTree,
        format::{
            block::{self, Hint},
            checksum::DecodeError,
            chunks::Chunks,
            dead_letter::{Dead, Letter},
            keys::{Key, Keyspace, Place, QueueRef},
            node_record::NodeRecord,
        },
        offline::{
            blocks::{Copies, copies, letter_block},
            closed::ClosedStore,
            findings::{Finding, Severity},
            place::{ClosedPlace, unread},
        },
    },
    types::{NodeId, Sequence},
};

/// A dead letter as it was found.
#[derive(Debug)]
pub struct FoundLetter {
    pub place: Place,
    /// How it came to be one; `None` if that does not read.
    pub dead: Option<Dead>,
    /// The hint itself; `None` if it does not read.
    pub hint: Option<Hint>,
}

/// The queues of a node that may have dead letters.
pub fn queues(record: &NodeRecord) -> BTreeSet<QueueRef> {
    record.dead.iter().chain(&record.live).copied().collect()
}

/// Calls `each` with what is known of every dead letter of a queue, in order: the record, or why it
/// does not read. One that is gone is passed over: damage may have brought its record back.
pub fn records(
    store: &ClosedStore,
    queue: QueueRef,
    mut each: impl FnMut(Place, Result<Dead, String>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let keys = queue.letter_keys(Sequence(0));
    let gone = store.known.gone_letters.get(&queue.queue);
    let is_gone = |dead: &Dead| gone.is_some_and(|gone| gone.holds(dead.number));
    for entry in store.tree.range(&keys.start, &keys.end) {
        let (key, value) = entry.map_err(unread)?;
        let Some(Key::Letter(place)) = Key::parse(&key) else {
            continue;
        };
        match Letter::decode(place, &value) {
            Ok(Letter::Dead(dead)) if is_gone(&dead) => {}
            Ok(Letter::Dead(dead)) => each(place, Ok(dead))?,
            // It is no dead letter any more.
            Ok(Letter::Redriven { .. }) => {}
            Err(error) => each(place, Err(error.to_string()))?,
        }
    }
    Ok(())
}

/// Calls `each` with what is known of one.
pub fn record(
    tree: &LogTree,
    at: Place,
    each: impl FnOnce(Result<Dead, String>),
) -> Result<(), StorageError> {
    if let Some(value) = tree.get(&at.letter_key()).map_err(unread)? {
        match Letter::decode(at, &value) {
            Ok(Letter::Dead(dead)) => each(Ok(dead)),
            Ok(Letter::Redriven { .. }) => {}
            Err(error) => each(Err(error.to_string())),
        }
    }
    Ok(())
}

/// Copies of payloads that the log has still, of one queue at a time.
#[derive(Debug, Default)]
pub struct LetterCopies(Option<(QueueRef, Copies)>);

impl LetterCopies {
    /// The hint of a dead letter, if a copy of it reads. Those of a queue are asked for in order.
    fn find(&mut self, place: &ClosedPlace, at: Place) -> Result<Option<Hint>, StorageError> {
        let is_held = |(queue, copies): &(QueueRef, Copies)| {
            *queue == at.queue && copies.through >= at.sequence
        };
        let (_, copies) = match self.0.take().filter(is_held) {
            Some(held) => self.0.insert(held),
            None => {
                // All at once, for those behind this one, too.
                let wanted = (at.sequence, at.sequence, Sequence(u64::MAX));
                let found = copies(&place.log(), Keyspace::Letters, at.queue, wanted)?;
                self.0.insert((at.queue, found))
            }
        };
        copies.blocks = copies.blocks.split_off(&at.sequence);
        let copy = copies.blocks.remove(&at.sequence);
        Ok(copy.and_then(|chunks| open(&chunks, at).ok()?.pop()))
    }
}

fn open(chunks: &Chunks, at: Place) -> Result<Vec<Hint>, DecodeError> {
    let (header, raw) = chunks.open(Keyspace::Letters, at.queue, at.sequence)?;
    block::split_hints(raw, &header)
}

/// Reads one with its payload. `findings` gets what is wrong with it.
pub fn read(
    (place, tree, copies): (&ClosedPlace, &LogTree, &mut LetterCopies),
    node: NodeId,
    at: Place,
    record: Result<Dead, String>,
    findings: &mut Vec<Finding>,
) -> Result<FoundLetter, StorageError> {
    let mut note = |severity, what: String| {
        let finding = Finding::new(severity, what).of(node, at.queue.queue);
        findings.push(finding.from(at.sequence, at.sequence, 1));
    };
    let found = letter_block(tree, at).map_err(unread)?;
    let no_block = found.is_none();
    let read = found.map(|chunks| open(&chunks, at));
    let (mut hint, why) = match read {
        Some(Ok(mut hints)) => (hints.pop(), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, Some("it is not there".to_owned())),
    };
    if let Some(why) = why {
        hint = copies.find(place, at)?;
        match (&hint, &record) {
            (Some(_), _) => note(
                Severity::Damaged,
                format!("the payload of a dead letter: {why}; an intact copy is in the log"),
            ),
            // It may have been one that was sent on: then its payload is gone, and nothing is lost.
            (None, Err(_)) if no_block => {}
            (None, _) => note(
                Severity::Lost,
                format!("the payload of a dead letter: {why}"),
            ),
        }
    }
    if let Err(error) = &record {
        note(
            Severity::Damaged,
            format!("the record of a dead letter: {error}"),
        );
    }
    Ok(FoundLetter {
        place: at,
        dead: record.ok(),
        hint,
    })
}

#[cfg(test)]
mod tests;
