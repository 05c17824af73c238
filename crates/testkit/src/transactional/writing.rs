//! What the writers do: transactions of all kinds, batches of rows, plain hints; and, for the
//! controls, what a host should not do.

use std::{panic::resume_unwind, time::Duration};

use bytes::Bytes;

use super::{
    Manner, Session,
    failure::Failure,
    manual_node::MANUAL_NODE,
    rows::{self, BITS, COUNTER},
};
use crate::{
    event::{Event, tell},
    row_event::{RowEvent, RowWrite},
    workload::payload,
};
use hinted_handoff::{
    Abort, Accepted, EnqueueError, FailedOutcome, HintId, Hints, NodeId, RowBatch, Rows, ShardId,
    TransactionError,
};

/// What all of a large transaction comes to: near 1 MiB, with room for keys and for what a hint
/// costs.
const LARGE_BYTES: usize = (1 << 20) - 16 * 1024;
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// The control that writes directly writes to so many rows, over and over, so that segments are
/// used again.
const DIRECT_ROWS: u64 = 400;

/// What an error leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Refused,
    Unknown,
}

impl Fate {
    /// An error that is none of those that come with giving up or with a store that fails is one of
    /// ours.
    pub fn of(error: TransactionError, doomed: bool) -> Result<Fate, Failure> {
        match error {
            TransactionError::Aborted(_) | TransactionError::Panicked(_) if doomed => {
                Ok(Fate::Refused)
            }
            TransactionError::Enqueue(error) => match error.outcome() {
                FailedOutcome::Unknown => Ok(Fate::Unknown),
                FailedOutcome::Refused => match error {
                    EnqueueError::StoreFailed(_) | EnqueueError::ShutDown => Ok(Fate::Refused),
                    other => Err(other.into()),
                },
            },
            other => Err(other.into()),
        }
    }
}

/// A transaction to be.
struct WritingPlan {
    write: RowWrite,
    shard: ShardId,
    /// Of each number: the size of its rows, and its hint.
    rows: Vec<(usize, NodeId, Bytes)>,
    /// Gives up by a panic rather than by an error.
    panics: bool,
}

impl WritingPlan {
    fn random(session: &Session, shard: ShardId, random: &mut fastrand::Rng) -> WritingPlan {
        let trees = random.u8(1..=3);
        let is_large = random.u8(..25) == 0;
        let count = match is_large {
            true => random.u64(4..16),
            false => random.u64(1..=4),
        };
        let first = session.next_numbers(count);
        let (mut rows, mut hinted_bytes) = (Vec::new(), 0);
        for number in first..first + count {
            // Nodes 1 and 2 get hints of transactions alone, so that for these it is known what
            // must be pending.
            let node = NodeId(random.u64(1..=MANUAL_NODE.0));
            let largest = if random.u8(..20) == 0 { 20_000 } else { 2_000 };
            let hint = payload(number, node, shard, random.usize(..largest));
            hinted_bytes += hint.len();
            rows.push((random.usize(..2_000), node, hint));
        }
        if is_large {
            let values = count as usize * trees.count_ones() as usize;
            let each = (LARGE_BYTES - hinted_bytes) / values;
            rows.iter_mut()
                .for_each(|row| row.0 = each.min(VALUE_BYTES_MAX));
        }
        let is_whole = session.workload.manner != Manner::TwoSteps;
        let doomed = is_whole && random.u8(..100) < 15;
        WritingPlan {
            write: RowWrite {
                first,
                count,
                trees,
                hinted: true,
                counts: is_whole && random.u8(..3) == 0,
                doomed,
                removes: None,
            },
            shard,
            rows,
            panics: doomed && random.u8(..10) == 0,
        }
    }

    /// What the transaction does.
    fn run(
        &self,
        removed: Option<&RowWrite>,
        rows: &mut [Rows<'_>],
        hints: &mut Hints<'_, Bytes>,
    ) -> Result<(), Abort> {
        for (number, (bytes, node, hint)) in self.write.numbers().zip(&self.rows) {
            let value = rows::value(number, *bytes);
            for (_, tree) in trees(rows, self.write.trees) {
                tree.insert(rows::key(number), value.clone())?;
            }
            hints.enqueue(*node, self.shard, hint)?;
        }
        if self.write.counts {
            let tree = rows.first_mut().ok_or_else(|| Abort::new("no tree"))?;
            let counter = rows::counter(tree.get(COUNTER)?.as_ref()).map_err(Abort::new)?;
            tree.insert(COUNTER, &(counter + 1).to_be_bytes())?;
        }
        if let Some(removed) = removed {
            for (_, tree) in trees(rows, removed.trees) {
                let key = rows::key(removed.first);
                if tree.get(key)?.is_none() {
                    // It was answered, and nobody else removes it.
                    let number = removed.first;
                    tell(&Event::Rows(RowEvent::Wrong { number }))?;
                }
                tree.remove(key)?;
            }
        }
        match (self.write.doomed, self.panics) {
            (true, true) => resume_unwind(Box::new("this one gives up")),
            (true, false) => Err(Abort::new("this one gives up")),
            (false, _) => Ok(()),
        }
    }
}

/// Those of the trees whose bits are set.
fn trees<T>(all: &mut [T], bits: u8) -> impl Iterator<Item = (u8, &mut T)> {
    let all = BITS.into_iter().zip(all);
    all.filter(move |(bit, _)| bits & bit != 0)
}

fn tell_of_rows(event: RowEvent) -> std::io::Result<()> {
    tell(&Event::Rows(event))
}

impl Session {
    /// Writes to one shard of all nodes, one after the other.
    pub async fn write(&self, task: u64) -> Result<(), Failure> {
        let mut random = self.random(task);
        let shard = ShardId(task + 1);
        // Of single rows that this task wrote: nobody else removes them.
        let mut removable = Vec::new();
        while self.goes_on() {
            match random.u8(..100) {
                0..70 => self.transact(shard, &mut removable, &mut random).await?,
                70..85 => self.apply_rows(&mut removable, &mut random).await?,
                _ => self.hint(shard, &mut random).await?,
            }
            if random.u8(..4) == 0 {
                tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await;
            }
        }
        Ok(())
    }

    async fn transact(
        &self,
        shard: ShardId,
        removable: &mut Vec<RowWrite>,
        random: &mut fastrand::Rng,
    ) -> Result<(), Failure> {
        let mut plan = WritingPlan::random(self, shard, random);
        if self.workload.manner == Manner::TwoSteps {
            return self.write_in_two_steps(&plan, random).await;
        }
        let removed = (random.u8(..4) == 0 && !removable.is_empty())
            .then(|| removable.swap_remove(random.usize(..removable.len())));
        plan.write.removes = removed.map(|write| write.first);
        self.tell_of_plan(&plan)?;
        let trees = self.tables.trees.each_ref();
        let mut runs = 0;
        let committed = self.handoff.transaction(&trees, |rows, hints| {
            runs += 1;
            plan.run(removed.as_ref(), rows, hints)
        });
        match committed.await {
            Ok(committed) => {
                if plan.write.count == 1 {
                    removable.push(plan.write);
                }
                if self.is_durable_now(random).await {
                    self.tell_of_commit(&plan, Some(&committed.hints), runs)?;
                }
                Ok(())
            }
            Err(error) => {
                let fate = Fate::of(error, plan.write.doomed)?;
                // Who gave up has removed nothing.
                removable.extend(removed.filter(|_| plan.write.doomed));
                if fate == Fate::Refused {
                    let first = plan.write.first;
                    tell_of_rows(RowEvent::Aborted { first })?;
                    for number in plan.write.numbers() {
                        tell(&Event::Refused { number })?;
                    }
                }
                Ok(())
            }
        }
    }

    fn tell_of_plan(&self, plan: &WritingPlan) -> std::io::Result<()> {
        tell_of_rows(RowEvent::Began(plan.write))?;
        for (number, (_, node, _)) in plan.write.numbers().zip(&plan.rows) {
            tell(&Event::Tried {
                number,
                node: *node,
                shard: plan.shard,
            })?;
        }
        Ok(())
    }

    fn tell_of_commit(
        &self,
        plan: &WritingPlan,
        ids: Option<&[HintId]>,
        runs: u64,
    ) -> Result<(), Failure> {
        let first = plan.write.first;
        tell_of_rows(RowEvent::Committed { first, runs })?;
        if ids.is_some_and(|ids| ids.len() as u64 != plan.write.count) {
            return Err(format!("transaction {first} has ids {ids:?}").into());
        }
        for (index, number) in plan.write.numbers().enumerate() {
            let id = ids.and_then(|ids| ids.get(index)).copied();
            tell(&Event::Answered { number, id })?;
        }
        Ok(())
    }

    /// A batch of plain rows, some of which go again.
    async fn apply_rows(
        &self,
        removable: &mut Vec<RowWrite>,
        random: &mut fastrand::Rng,
    ) -> Result<(), Failure> {
        let (count, trees) = (random.u64(1..=5), random.u8(1..=3));
        let removed = (random.u8(..4) == 0).then(|| removable.pop()).flatten();
        let write = RowWrite {
            first: self.next_numbers(count),
            count,
            trees,
            hinted: false,
            counts: false,
            doomed: false,
            removes: removed.map(|write| write.first),
        };
        let mut batch = self.batch(&write, |_| random.usize(..4_000))?;
        if let Some(removed) = removed {
            for (_, tree) in self::trees(&mut self.tables.trees.each_ref(), removed.trees) {
                batch.remove(tree, rows::key(removed.first))?;
            }
        }
        tell_of_rows(RowEvent::Began(write))?;
        match self.handoff.apply(batch).await {
            Ok(()) => {
                if count == 1 {
                    removable.push(write);
                }
                if self.is_durable_now(random).await {
                    let first = write.first;
                    tell_of_rows(RowEvent::Committed { first, runs: 1 })?;
                }
            }
            Err(error) => {
                if Fate::of(error, false)? == Fate::Refused {
                    let first = write.first;
                    tell_of_rows(RowEvent::Aborted { first })?;
                }
            }
        }
        Ok(())
    }

    fn batch(
        &self,
        write: &RowWrite,
        mut bytes: impl FnMut(u64) -> usize,
    ) -> Result<RowBatch, TransactionError> {
        let mut batch = RowBatch::new();
        for number in write.numbers() {
            let value = rows::value(number, bytes(number));
            for (_, tree) in trees(&mut self.tables.trees.each_ref(), write.trees) {
                batch.insert(tree, rows::key(number), value.clone())?;
            }
        }
        Ok(batch)
    }

    /// A hint without any row, to node 3 or to the one that is consumed by hand.
    async fn hint(&self, shard: ShardId, random: &mut fastrand::Rng) -> Result<(), Failure> {
        let number = self.next_numbers(1);
        let node = NodeId(random.u64(3..=MANUAL_NODE.0));
        let points = payload(number, node, shard, random.usize(..2_000));
        tell(&Event::Tried {
            number,
            node,
            shard,
        })?;
        match self.handoff.write_shard(node, shard, &points).await {
            Ok(Accepted::Durable(id)) => {
                let id = Some(id);
                tell(&Event::Answered { number, id })?;
            }
            Ok(_) if self.is_durable_now(random).await => {
                tell(&Event::Answered { number, id: None })?;
            }
            Ok(_) => {}
            Err(error) => {
                if Fate::of(error.into(), false)? == Fate::Refused {
                    tell(&Event::Refused { number })?;
                }
            }
        }
        Ok(())
    }

    /// What a host without transactions does: a crash in between leaves rows without their hints.
    async fn write_in_two_steps(
        &self,
        plan: &WritingPlan,
        random: &mut fastrand::Rng,
    ) -> Result<(), Failure> {
        let sizes: Vec<usize> = plan.rows.iter().map(|(bytes, ..)| *bytes).collect();
        let mut sizes = sizes.into_iter();
        let batch = self.batch(&plan.write, |_| sizes.next().unwrap_or(0))?;
        self.tell_of_plan(plan)?;
        let mut done = self.handoff.apply(batch).await.is_ok();
        for (_, node, hint) in &plan.rows {
            done = done
                && self
                    .handoff
                    .write_shard(*node, plan.shard, hint)
                    .await
                    .is_ok();
        }
        match done && self.is_durable_now(random).await {
            true => self.tell_of_commit(plan, None, 1),
            false => Ok(()),
        }
    }

    /// What makes sled destroy a database at a power cut (docs/sled.md rules 2 to 4): many large
    /// rows past the commit thread.
    pub fn write_directly(&self) -> Result<(), Failure> {
        let mut random = self.random(102);
        while self.goes_on() {
            let number = random.u64(..DIRECT_ROWS);
            let value = rows::value(number, random.usize(10_000..60_000));
            self.tables.direct.insert(rows::key(number), value)?;
        }
        Ok(())
    }
}
