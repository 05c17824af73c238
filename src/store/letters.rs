//! What an open finds of dead letters.

use sled::IVec;

use super::{
    blocks::{self, ReadError, last_letter_block},
    depart::{now_unix_ms, one},
    departure::{Burial, DeadReason, LossReason},
    engine::Engine,
    keys::{Key, Place, QueueRef},
    letter::{Dead, Letter},
    losses::{Journal, Loss},
    node_record::NodeRecord,
    overlay::RowMap,
    redrive::{self, Redriven},
    registry::Registry,
    sealed::DecodeError,
};
use crate::{
    stats::Damage,
    types::{Amount, NodeId, Sequence},
};

/// The dead letters of a node, and what is left of those that are none any more.
#[derive(Debug, Default)]
pub struct FoundLetters {
    pub amount: Amount,
    /// By where they are now, where hints stood that were dead letters and are not done with.
    pub redriven: Redriven,
    /// What points to a queue that is gone.
    pub stale: Vec<Place>,
    /// Blocks without a dead letter.
    pub blocks: Vec<Place>,
    /// Records that do not read, and what is left of the dead letters.
    pub damaged: Vec<DamagedLetter>,
    /// Queues that have any of this.
    pub queues: Vec<QueueRef>,
}

/// A record that does not read.
#[derive(Debug)]
pub struct DamagedLetter {
    pub place: Place,
    pub why: DecodeError,
    pub left: Left,
}

/// What is left of a dead letter whose record does not read.
#[derive(Debug)]
pub enum Left {
    /// Its payload: it goes on as a dead letter, with this record.
    Payload(Letter),
    /// A block that does not read either: it is lost.
    Nothing,
    /// No block at all: it was sent on, or sled lost that, too. Nothing can be said to be lost.
    NoBlock,
}

/// What an open writes for dead letters whose records do not read, as one.
#[derive(Debug, Default)]
pub struct Mended {
    pub hints: RowMap,
    pub losses: RowMap,
}

impl Mended {
    pub fn take(
        &mut self,
        node: NodeId,
        damaged: DamagedLetter,
        journal: &mut Journal,
        registry: &mut Registry,
    ) {
        let DamagedLetter { place, why, left } = damaged;
        let (at, sequence) = (place.queue, place.sequence);
        let (becomes, what, lost) = match left {
            Left::Payload(letter) => (Some(letter.encode(place).into()), "it is one still", None),
            Left::NoBlock => (None, "it has no payload", None),
            Left::Nothing => {
                let now = now_unix_ms();
                let loss = Loss {
                    node,
                    shard: None,
                    queue: at.queue,
                    first: sequence,
                    last: sequence,
                    // How large it was nobody knows.
                    amount: Amount { hints: 1, bytes: 0 },
                    reason: LossReason::Damaged,
                    since_unix_ms: now,
                    until_unix_ms: now,
                    redriven_from: Vec::new(),
                };
                journal.record(loss, &mut self.losses);
                (
                    None,
                    "its payload does not read",
                    Some((sequence, sequence)),
                )
            }
        };
        registry.note_damage(Damage {
            node: at.node,
            queue: at.queue,
            what: format!("the record of dead letter {sequence}: {why}; {what}"),
            lost,
        });
        self.hints.insert(IVec::from(&place.letter_key()), becomes);
    }
}

/// Looks through the queues of a node, but for those that only wait to be trimmed with all that they hold.
///
/// One that is not listed for its dead letters may have some nevertheless, if the node's record was lost, and a block of one, if a
/// crash came before its record.
pub fn find(engine: &Engine, record: &NodeRecord) -> sled::Result<FoundLetters> {
    let mut found = FoundLetters::default();
    let unlisted = record.live.iter().filter(|at| !record.dead.contains(at));
    for queue in record.dead.iter().chain(unlisted) {
        let mut is_empty = true;
        for entry in engine.hints.range(queue.letter_keys(Sequence(0))) {
            let (key, value) = entry?;
            let Some(Key::Letter(place)) = Key::parse(&key) else {
                continue;
            };
            is_empty = false;
            match Letter::decode(place, &value) {
                Ok(Letter::Dead(dead)) => found.amount = found.amount.plus(one(&dead)),
                Ok(Letter::Redriven {
                    node,
                    queue,
                    sequence,
                    ..
                }) => {
                    let now = Place::of(node, queue, sequence);
                    // In a queue that is gone it is done with, unless it is a dead letter again.
                    let is_there = record.live.contains(&now.queue)
                        || engine.hints.contains_key(now.letter_key())?;
                    match is_there {
                        true => redrive::found(&mut found.redriven, place, now),
                        false => found.stale.push(place),
                    }
                }
                Err(why) => {
                    let damaged = what_is_left(engine, place, why)?;
                    if let Left::Payload(Letter::Dead(dead)) = &damaged.left {
                        found.amount = found.amount.plus(one(dead));
                    }
                    found.damaged.push(damaged);
                }
            }
        }
        let blocks = found.blocks.len();
        find_blocks(engine, *queue, &mut found)?;
        // One with such blocks is listed until they are gone, lest it look like a queue that lost its record.
        if !is_empty || found.blocks.len() > blocks {
            found.queues.push(*queue);
        }
    }
    Ok(found)
}

/// A crash may have left a block of which the record is gone, or is not there yet.
fn find_blocks(engine: &Engine, queue: QueueRef, found: &mut FoundLetters) -> sled::Result<()> {
    let mut below = None;
    while let Some(place) = last_letter_block(&engine.hints, queue, below)? {
        let value = engine.hints.get(place.letter_key())?;
        let letter = value.and_then(|value| Letter::decode(place, &value).ok());
        let goes_on = |it: &DamagedLetter| it.place == place && matches!(it.left, Left::Payload(_));
        if letter.and_then(Letter::dead).is_none() && !found.damaged.iter().any(goes_on) {
            found.blocks.push(place);
        }
        below = Some(place.sequence);
    }
    Ok(())
}

fn what_is_left(engine: &Engine, place: Place, why: DecodeError) -> sled::Result<DamagedLetter> {
    let left = match blocks::read_letter(&engine.hints, place) {
        Ok(Some(hint)) => {
            let burial = Burial {
                reason: DeadReason::Rejected,
                error: format!("the record of how it became a dead letter is damaged: {why}"),
                attempts: 0,
                first_failed_unix_ms: 0,
                last_failed_unix_ms: 0,
            };
            let dead = Dead::new(hint.shard, hint.payload_bytes(), burial);
            Left::Payload(Letter::Dead(dead))
        }
        Ok(None) => Left::NoBlock,
        Err(ReadError::Damaged(_)) => Left::Nothing,
        Err(ReadError::Engine(error)) => return Err(error),
    };
    Ok(DamagedLetter { place, why, left })
}
