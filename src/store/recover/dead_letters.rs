//! What an open finds of dead letters.

use std::collections::BTreeSet;

use crate::{
    stats::Damage,
    store::{
        commit::{dead_letters::one, loss_journal::Journal},
        engine::{
            blocks::{self, ReadError, last_letter_block},
            generation::Engine,
            rows::RowMap,
            table::{self, IVec},
        },
        format::{
            checksum::DecodeError,
            dead_letter::{Dead, Letter},
            dead_letter_count::{LetterTallies, LetterTally},
            gone_letters::GoneLetters,
            keys::{Key, Place, QueueRef},
            loss::{Loss, LostRange},
            node_record::NodeRecord,
            reasons::{DeadCause, DeadReason, LossReason},
            shutdown_summary::CleanLetters,
        },
        state::{
            forwarding::{self, Redriven},
            registry::Registry,
        },
    },
    types::{Amount, NodeId, QueueId, Sequence},
};

/// The dead letters of a node, and what is left of those that are none any more.
#[derive(Debug, Default)]
pub struct FoundLetters {
    pub tallies: LetterTallies,
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
    /// Its payload: it goes on as a dead letter, like this.
    Payload(Dead),
    /// A block that does not read either: it is lost.
    Nothing,
    /// No block at all: it was sent on, or sled lost that, too. Nothing can be said to be lost.
    NoBlock,
}

/// What an open writes for dead letters whose records do not read.
#[derive(Debug, Default)]
pub struct Repaired {
    full: Vec<RepairedPart>,
    last: RepairedPart,
}

/// What is written as one of it.
#[derive(Debug, Default)]
pub struct RepairedPart {
    pub hints: RowMap,
    pub losses: RowMap,
}

impl FoundLetters {
    fn count(&mut self, place: Place, dead: &Dead) {
        let tally = self.tallies.entry(place.queue);
        let tally = tally.or_insert_with(LetterTally::none);
        tally.add(place.sequence, one(dead));
        tally.next_number = tally.next_number.max(dead.number.saturating_add(1));
    }

    /// Finds out how far the numbers of a queue's dead letters went, and gives new ones to those
    /// whose own was lost.
    fn complete_numbers(&mut self, engine: &Engine, queue: QueueRef) -> table::Result<()> {
        let stored = engine.losses.get(GoneLetters::key(queue.queue))?;
        let gone = stored.and_then(|value| GoneLetters::decode(queue.queue, &value).ok());
        if let Some(gone) = gone {
            let tally = self.tallies.entry(queue);
            let tally = tally.or_insert_with(LetterTally::none);
            tally.next_number = tally.next_number.max(gone.next());
        }
        let Some(tally) = self.tallies.get_mut(&queue) else {
            return Ok(());
        };
        for damaged in self.damaged.iter_mut().filter(|it| it.place.queue == queue) {
            if let Left::Payload(dead) = &mut damaged.left {
                dead.number = tally.take_number();
            }
        }
        Ok(())
    }

    /// What is not there of the dead letters that `CLEAN` says a queue had, and not told of one by
    /// one either: sled lost it.
    pub fn missing(&self, named: &CleanLetters) -> Option<CleanLetters> {
        let there = self.tallies.get(&named.queue);
        let there = there.map_or_else(Amount::default, |tally| tally.amount);
        let is_told =
            |it: &&DamagedLetter| it.place.queue == named.queue && matches!(it.left, Left::Nothing);
        let told = self.damaged.iter().filter(is_told).count();
        let mut missing = *named;
        let amount = &mut missing.tally.amount;
        *amount = amount.less(there);
        amount.hints = amount.hints.saturating_sub(told as u64);
        (amount.hints > 0).then_some(missing)
    }
}

/// So many records are written as one, of some kilobytes each at most.
const RECORDS_AS_ONE: usize = 100;

impl Repaired {
    /// Where the next record is put.
    fn part(&mut self) -> &mut RepairedPart {
        if self.last.hints.len() + self.last.losses.len() >= RECORDS_AS_ONE {
            self.full.push(std::mem::take(&mut self.last));
        }
        &mut self.last
    }

    /// All of it, in the order of writing, each part as one: a record that goes and the loss that
    /// tells why are never apart.
    pub fn into_parts(self) -> impl Iterator<Item = RepairedPart> {
        self.full.into_iter().chain([self.last])
    }

    /// Records dead letters as lost that are not there. An open that dies before `CLEAN` is gone
    /// may record them once more.
    pub fn note_missing(
        &mut self,
        missing: CleanLetters,
        journal: &mut Journal,
        registry: &mut Registry,
    ) {
        let CleanLetters { queue, node, tally } = missing;
        let place = LostRange {
            queue: queue.queue,
            first: tally.first,
            last: tally.last,
        };
        let damaged = LossReason::Damaged;
        let loss = Loss::new(node, None, Some(place), tally.amount, damaged);
        journal.record(loss, &mut self.part().losses);
        registry.note_damage(Damage {
            node: queue.node,
            queue: queue.queue,
            what: format!(
                "{} dead letters of it are gone that CLEAN counts",
                tally.amount.hints
            ),
            lost: Some((tally.first, tally.last)),
        });
    }

    pub fn take(
        &mut self,
        node: NodeId,
        damaged: DamagedLetter,
        journal: &mut Journal,
        registry: &mut Registry,
    ) {
        let DamagedLetter { place, why, left } = damaged;
        let (at, sequence) = (place.queue, place.sequence);
        let part = self.part();
        let (becomes, what, lost) = match left {
            Left::Payload(dead) => {
                let record = Letter::Dead(dead).encode(place);
                (Some(record.into()), "it is one still", None)
            }
            Left::NoBlock => (None, "it has no payload", None),
            Left::Nothing => {
                let place = LostRange::one(at.queue, sequence);
                // How large it was nobody knows.
                let amount = Amount { hints: 1, bytes: 0 };
                let loss = Loss::new(node, None, Some(place), amount, LossReason::Damaged);
                journal.record(loss, &mut part.losses);
                (
                    None,
                    "its payload does not read",
                    Some((sequence, sequence)),
                )
            }
        };
        part.hints.insert(IVec::from(&place.letter_key()), becomes);
        registry.note_damage(Damage {
            node: at.node,
            queue: at.queue,
            what: format!("the record of dead letter {sequence}: {why}; {what}"),
            lost,
        });
    }
}

/// Looks through the queues of a node, but for those that only wait to be trimmed with all that
/// they hold.
///
/// One that is not listed for its dead letters may have some nevertheless, if the node's record was
/// lost, and a block of one, if a crash came before its record.
pub fn find(engine: &Engine, record: &NodeRecord) -> table::Result<FoundLetters> {
    let mut found = FoundLetters::default();
    let unlisted = record.live.iter().filter(|at| !record.dead.contains(at));
    for queue in record.dead.iter().chain(unlisted) {
        let (mut is_empty, mut dead_ones) = (true, BTreeSet::new());
        for entry in engine.hints.range(queue.letter_keys(Sequence(0))) {
            let (key, value) = entry?;
            let Some(Key::Letter(place)) = Key::parse(&key) else {
                continue;
            };
            is_empty = false;
            match Letter::decode(place, &value) {
                Ok(Letter::Dead(dead)) => {
                    found.count(place, &dead);
                    dead_ones.insert(place.sequence);
                }
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
                        true => forwarding::found(&mut found.redriven, place, now),
                        false => found.stale.push(place),
                    }
                }
                Err(why) => {
                    let damaged = what_is_left(engine, place, why)?;
                    if let Left::Payload(dead) = &damaged.left {
                        found.count(place, dead);
                        dead_ones.insert(place.sequence);
                    }
                    found.damaged.push(damaged);
                }
            }
        }
        found.complete_numbers(engine, *queue)?;
        let blocks = found.blocks.len();
        let mut below = None;
        while let Some(place) = last_letter_block(&engine.hints, *queue, below)? {
            // A crash may have left one of which the record is gone, or is not there yet.
            if !dead_ones.contains(&place.sequence) {
                found.blocks.push(place);
            }
            below = Some(place.sequence);
        }
        // One with such blocks is listed until they are gone, lest it look like a queue that lost
        // its record.
        if !is_empty || found.blocks.len() > blocks {
            found.queues.push(*queue);
        }
    }
    Ok(found)
}

/// The keys of what is known of queues that no node lists any more: none of their dead letters
/// comes back with a rebuild.
pub fn unlisted<'a>(
    engine: &Engine,
    records: impl Iterator<Item = &'a NodeRecord>,
) -> table::Result<Vec<IVec>> {
    let listed = records.flat_map(|record| record.live.iter().chain(&record.dead));
    let listed: BTreeSet<QueueId> = listed.map(|at| at.queue).collect();
    let is_unlisted =
        |key: &IVec| GoneLetters::queue_of(key).is_some_and(|queue| !listed.contains(&queue));
    let keys = engine.losses.range(GoneLetters::key(QueueId(0))..).keys();
    keys.filter(|key| key.as_ref().map_or(true, is_unlisted))
        .collect()
}

fn what_is_left(engine: &Engine, place: Place, why: DecodeError) -> table::Result<DamagedLetter> {
    let left = match blocks::read_letter(&engine.hints, place) {
        Ok(Some(hint)) => {
            let cause = DeadCause {
                reason: DeadReason::Rejected,
                error: format!("the record of how it became a dead letter is damaged: {why}"),
                attempts: 0,
                first_failed_unix_ms: 0,
                last_failed_unix_ms: 0,
            };
            let dead = Dead::new(0, hint.shard, hint.payload_bytes(), cause);
            Left::Payload(dead)
        }
        Ok(None) => Left::NoBlock,
        Err(ReadError::Damaged(_)) => Left::Nothing,
        Err(ReadError::Engine(error)) => return Err(error),
    };
    Ok(DamagedLetter { place, why, left })
}
