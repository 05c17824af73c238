//! What an open finds of dead letters.

use super::{
    blocks::last_letter_block,
    depart::{one, read_letter},
    engine::Engine,
    keys::{Place, QueueRef},
    letter::Letter,
    node_record::NodeRecord,
    redrive::{self, Redriven},
};
use crate::types::{Amount, Sequence};

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
    /// Queues that have any of this.
    pub queues: Vec<QueueRef>,
}

/// Looks through the queues of a node that have dead letters.
pub fn find(engine: &Engine, record: &NodeRecord) -> sled::Result<FoundLetters> {
    let mut found = FoundLetters::default();
    for queue in &record.dead {
        let mut is_empty = true;
        for entry in engine.hints.range(queue.letter_keys(Sequence(0))) {
            let (key, value) = entry?;
            is_empty = false;
            match read_letter(&key, &value) {
                Some((_, Letter::Dead(dead))) => found.amount = found.amount.plus(one(&dead)),
                Some((
                    letter,
                    Letter::Redriven {
                        node,
                        queue,
                        sequence,
                        ..
                    },
                )) => {
                    let now = Place::of(node, queue, sequence);
                    // In a queue that is gone it is done with, unless it is a dead letter again.
                    let is_there = record.live.contains(&now.queue)
                        || engine.hints.contains_key(now.letter_key())?;
                    match is_there {
                        true => redrive::found(&mut found.redriven, letter, now),
                        false => found.stale.push(letter),
                    }
                }
                None => {}
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
        if letter.and_then(Letter::dead).is_none() {
            found.blocks.push(place);
        }
        below = Some(place.sequence);
    }
    Ok(())
}
