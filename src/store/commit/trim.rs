//! Giving the space of done hints back to the engine: by key range, in bounded groups, some time
//! after the cursor passed.
//!
//! The last block of a queue stays until the queue is retired: it says where the queue's numbering
//! goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Bound, Range},
    sync::Arc,
};

use crate::{
    error::{StorageError, with_causes},
    store::{
        engine::{
            blocks,
            generation::Engine,
            table::{self, is_damage},
            writer::Writer,
        },
        format::{
            keys::{Place, QueueRef},
            node_record::NodeRecord,
        },
    },
    types::{NodeId, Sequence},
};

/// Queues looked into by one step, so that writers do not wait while thousands are, as after an
/// open.
const QUEUES_PER_STEP: usize = 32;
/// In so many full groups all queues are looked into, however many there are.
const FULL_GROUPS_PER_ROUND: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Blocks that end below this.
    Below(Sequence),
    /// Every key of the queue, which this node lists as retired, but for its dead letters if the
    /// node lists these too.
    Whole(NodeId),
}

#[derive(Debug, Default)]
pub struct Trimmer {
    jobs: BTreeMap<QueueRef, Extent>,
    /// The queue that was looked into last: the next one comes next, so that none waits for those
    /// that move all the time.
    last: Option<QueueRef>,
    /// Blocks of dead letters that are none any more.
    letters: BTreeSet<Place>,
}

/// What one step of trimming did.
#[derive(Debug, Default)]
pub struct Trimmed {
    /// Bytes handed to the engine: a removal counts as its key and the value it removes.
    pub bytes: usize,
    /// Queues of which nothing is left, to be struck from the lists of these nodes.
    pub gone: Vec<(NodeId, QueueRef)>,
}

impl Trimmer {
    pub fn has_work(&self) -> bool {
        !self.jobs.is_empty() || !self.letters.is_empty()
    }

    /// Call it only when the cursor is durable: a crash must never bring back a cursor below what
    /// was removed.
    pub fn below(&mut self, queue: QueueRef, next: Sequence) {
        let job = self.jobs.entry(queue).or_insert(Extent::Below(next));
        if let Extent::Below(known) = job {
            *known = next.max(*known);
        }
    }

    /// Call it only when the queue is durably listed as retired.
    pub fn whole(&mut self, node: NodeId, queue: QueueRef) {
        self.jobs.insert(queue, Extent::Whole(node));
    }

    /// Call it once the record of the dead letter is gone; a crash before the block is gone leaves
    /// what nobody looks at.
    pub fn letter(&mut self, place: Place) {
        self.letters.insert(place);
    }

    /// Queues that a group looks into, which may be a full one.
    pub fn queues_of_group(&self, is_full: bool) -> usize {
        let of_all = self.jobs.len() / FULL_GROUPS_PER_ROUND;
        match is_full {
            true => of_all.max(QUEUES_PER_STEP),
            false => QUEUES_PER_STEP,
        }
    }

    /// The job that is next in turn.
    fn next_job(&self) -> Option<(QueueRef, Extent)> {
        let behind = (
            self.last.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let next = self.jobs.range(behind).next();
        let next = next.or_else(|| self.jobs.first_key_value());
        next.map(|(queue, extent)| (*queue, *extent))
    }

    /// Removes what `budget` bytes allow, of so many queues.
    pub fn step(
        &mut self,
        writer: &mut Writer,
        budget: usize,
        queues: usize,
        records: &HashMap<NodeId, NodeRecord>,
    ) -> Result<Trimmed, StorageError> {
        let mut trimmed = Trimmed::default();
        while let Some(place) = self.letters.first() {
            let range = place.block_keys();
            match remove(writer, range, budget, &mut trimmed) {
                Ok(TrimStep::Some) => return Ok(trimmed),
                Ok(TrimStep::All) => {}
                Err(error) if is_damage(&error) => {
                    tracing::error!(
                        node = place.queue.node.0, queue = place.queue.queue.0, sequence = place.sequence.0, error = %with_causes(&error),
                        "trimming gave up on a damaged dead letter"
                    );
                }
                Err(error) => return Err(error),
            }
            self.letters.pop_first();
        }
        for _ in 0..queues {
            let Some((queue, extent)) = self.next_job() else {
                break;
            };
            let removed = match range_of(writer.engine(), queue, extent, records).map_err(unread) {
                Ok(Some(range)) => remove(writer, range, budget, &mut trimmed),
                Ok(None) => Ok(TrimStep::All),
                Err(error) => Err(error),
            };
            match removed {
                Ok(TrimStep::Some) => return Ok(trimmed),
                Ok(TrimStep::All) => {
                    if let Extent::Whole(node) = extent {
                        trimmed.gone.push((node, queue));
                    }
                }
                // Space that cannot be read cannot be given back; that is no reason to stop the
                // store.
                Err(error) if is_damage(&error) => {
                    tracing::error!(
                        node = queue.node.0, queue = queue.queue.0, error = %with_causes(&error),
                        "trimming gave up on a damaged queue"
                    );
                }
                Err(error) => return Err(error),
            }
            self.jobs.remove(&queue);
            self.last = Some(queue);
        }
        Ok(trimmed)
    }
}

/// How much of a job is done.
enum TrimStep {
    /// The budget is used up.
    Some,
    All,
}

fn unread(error: table::Error) -> StorageError {
    StorageError::new("trim", error)
}

fn remove(
    writer: &mut Writer,
    range: Range<Vec<u8>>,
    budget: usize,
    trimmed: &mut Trimmed,
) -> Result<TrimStep, StorageError> {
    let engine = Arc::clone(writer.engine());
    let mut keys = Vec::new();
    let mut removed = TrimStep::All;
    let mut bytes = trimmed.bytes;
    for entry in engine.hints.range(range) {
        let (key, value) = entry.map_err(unread)?;
        let more = key.len() + value.len();
        if bytes + more > budget {
            removed = TrimStep::Some;
            break;
        }
        bytes += more;
        keys.push((key, value.len()));
    }
    // Padding keys go last: while there are many, sled merges no leaf that still has chunks in it.
    keys.sort_by_key(|(_, value_bytes)| *value_bytes == 0);
    for (key, value_bytes) in keys {
        writer.remove(&engine.hints, &key, value_bytes)?;
        trimmed.bytes += key.len() + value_bytes;
    }
    Ok(removed)
}

/// The keys to remove; `None` if there is nothing.
fn range_of(
    engine: &Engine,
    queue: QueueRef,
    extent: Extent,
    records: &HashMap<NodeId, NodeRecord>,
) -> table::Result<Option<Range<Vec<u8>>>> {
    match extent {
        Extent::Whole(node) => {
            let record = records.get(&node);
            let end = match record.is_some_and(|record| record.dead.contains(&queue)) {
                true => queue.blocks_end_key().to_vec(),
                // With what a crash may have left of a dead letter.
                false => [queue.end_key().as_slice(), &[0]].concat(),
            };
            Ok(Some(queue.cursor_key().to_vec()..end))
        }
        Extent::Below(next) => {
            // The last block that starts at or below the cursor holds the cursor, or ends right
            // below it and is kept.
            let kept = blocks::last_start(&engine.hints, queue, next)?;
            Ok(kept.map(|kept| {
                let from = queue.chunk_key(Sequence(0), 0).to_vec();
                from..queue.chunk_key(kept, 0).to_vec()
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::failpoints::Safeguard, types::QueueId};

    fn queue(number: u64) -> QueueRef {
        QueueRef {
            node: NodeId(number),
            queue: QueueId(number),
        }
    }

    #[test]
    fn no_queue_waits_for_those_that_move_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Engine::open(dir.path(), Arc::default()).unwrap());
        let mut writer = Writer::new(engine, "trim", Safeguard::GroupCommits);
        let (mut trimmer, records) = (Trimmer::default(), HashMap::new());
        trimmer.below(queue(9), Sequence(2));
        for next in 2..6 {
            // They come before it in the order of their keys.
            for moving in 1..=3 {
                trimmer.below(queue(moving), Sequence(next));
            }
            trimmer.step(&mut writer, 1000, 1, &records).unwrap();
        }
        assert!(!trimmer.jobs.contains_key(&queue(9)));
        assert_eq!(trimmer.jobs.len(), 3);
    }

    #[test]
    fn full_groups_look_into_all_queues_in_a_bounded_number_of_them() {
        let mut trimmer = Trimmer::default();
        for number in 0..10_000 {
            trimmer.below(queue(number), Sequence(2));
        }
        assert_eq!(trimmer.queues_of_group(false), QUEUES_PER_STEP);
        let of_full_ones = trimmer.queues_of_group(true) * (FULL_GROUPS_PER_ROUND + 1);
        assert!(of_full_ones >= 10_000);
    }
}
