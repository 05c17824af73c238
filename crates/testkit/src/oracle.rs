//! The oracle: what must be true of all events of all lives, kept outside the store under test.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{event::Event, row_event::RowEvent, row_oracle::RowOracle, write::Write};
use hinted_handoff::{HintId, NodeId, QueueId, ShardId};

/// Everything that was seen, and every rule that was broken.
///
/// The rules: every answered write is delivered or still queued, or, if it was handed in so, a dead
/// letter; nothing is invented; order per (node, shard) holds; no id is used twice, and no sequence
/// of a queue is skipped; what is durably acknowledged does not come back; counters equal a
/// recount.
#[derive(Debug, Default)]
pub struct Oracle {
    writes: BTreeMap<u64, Write>,
    ids: HashMap<HintId, u64>,
    /// The last number delivered in this life.
    in_order: HashMap<(NodeId, ShardId), u64>,
    delivered_in_life: u64,
    /// Delivered in this life, and not yet known to be durably acknowledged.
    unsettled: Vec<u64>,
    pending_at_open: Option<u64>,
    tried_in_life: u64,
    /// Whether the power is being cut, so that even what came may not have been durable.
    power_fails: bool,
    rows: RowOracle,
    violations: Vec<String>,
    counts: Counts,
}

/// What was seen, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lives of the host.
    pub lives: u64,
    /// Lives that ended before the store was open.
    pub unopened: u64,
    /// Lives that ended by a clean shutdown.
    pub closed: u64,
    /// Times a store failed and reopened itself within a life.
    pub reopened: u64,
    /// Writes handed in.
    pub tried: u64,
    /// Writes answered as durable.
    pub answered: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries of a hint that an earlier life had delivered: the crash came before its
    /// acknowledgement was durable.
    pub redelivered: u64,
    /// Dead letters that were found.
    pub dead: u64,
    /// Writes whose node was removed.
    pub discarded: u64,
    /// Transactions and batches of rows that were tried.
    pub transactions: u64,
    /// Those of them that gave up by themselves.
    pub aborted: u64,
    /// Those that came into effect.
    pub in_effect: u64,
    /// How often a transaction ran again since it had lost a race.
    pub runs_again: u64,
    /// Hints that were consumed together with a row.
    pub consumed: u64,
}

impl Oracle {
    /// Takes in what a child told.
    pub fn see(&mut self, event: Event) {
        match event {
            Event::Opened { pending } => {
                // The statistics begin anew too, if it was open before in this life.
                self.begin_anew();
                self.pending_at_open = Some(pending);
            }
            Event::Tried {
                number,
                node,
                shard,
            } => self.tried(number, node, shard),
            Event::DeadLettering {
                number,
                node,
                shard,
            } => {
                self.tried(number, node, shard);
                if let Some(write) = self.writes.get_mut(&number) {
                    write.dead_lettered = true;
                }
            }
            Event::Dead { number, id } => self.dead(number, id),
            Event::Answered { number, id } => self.answered(number, id),
            Event::Refused { number } => match self.writes.get_mut(&number) {
                Some(write) => write.refused = true,
                None => self.violation(format!("write {number} was refused but never tried")),
            },
            Event::Delivered {
                id,
                number,
                node,
                shard,
            } => self.delivered(id, number, node, shard),
            Event::Settled => self.settled(),
            Event::Reopened => {
                self.counts.reopened += 1;
                self.in_order.clear();
                self.unsettled.clear();
            }
            Event::Discarding { node } => self.of_node(node, |write| write.may_vanish = true),
            Event::Discarded { node } => self.of_node(node, |write| {
                write.must_not_come = true;
            }),
            Event::CaughtUp { delivered } => self.caught_up(delivered),
            Event::Closed => {
                self.counts.closed += 1;
                self.settled();
            }
            Event::Rows(event) => self.of_rows(event),
        }
    }

    /// From here on the power is being cut: what is delivered was perhaps not durable.
    pub(super) fn power_fails(&mut self) {
        self.power_fails = true;
    }

    /// The life is over, however it ended. The next one may deliver again what was not settled.
    pub fn life_ended(&mut self) {
        self.counts.lives += 1;
        self.counts.unopened += u64::from(self.pending_at_open.is_none());
        self.begin_anew();
        self.pending_at_open = None;
        self.power_fails = false;
        self.rows.life_ended();
    }

    fn begin_anew(&mut self) {
        self.in_order.clear();
        self.delivered_in_life = 0;
        self.unsettled.clear();
        self.tried_in_life = 0;
    }

    /// Call it after a life that delivered everything and closed: what was answered and has not
    /// come by now is lost.
    pub fn finish(&mut self) -> Counts {
        let lost: Vec<u64> = self
            .writes
            .iter()
            .filter(|(_, write)| write.answered && !write.may_vanish)
            .filter(|(_, write)| write.deliveries == 0 && !write.dead)
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            self.violation(format!("write {number} was answered and is lost"));
        }
        self.check_numbering();
        self.rows.finish(&self.writes);
        self.violations.extend(self.rows.take_violations());
        let counts = &mut self.counts;
        (counts.transactions, counts.aborted, counts.in_effect) = self.rows.counts();
        (counts.runs_again, counts.consumed) = (self.rows.runs_again, self.rows.consumed());
        self.counts.discarded = self
            .writes
            .values()
            .filter(|write| write.may_vanish)
            .count() as u64;
        self.counts
    }

    /// Every rule that was broken so far, in words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What was seen so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn of_rows(&mut self, event: RowEvent) {
        if let RowEvent::Consumed { id, number } | RowEvent::ConsumedRow { id, number } = event {
            self.identify(number, id);
            if let Some(write) = self.writes.get_mut(&number) {
                write.settled = true;
                // The crash came before it could be told, if it was not.
                write.deliveries = write.deliveries.max(1);
            }
        }
        self.rows.see(event, &self.writes);
        self.violations.extend(self.rows.take_violations());
    }

    fn tried(&mut self, number: u64, node: NodeId, shard: ShardId) {
        self.counts.tried += 1;
        self.tried_in_life += 1;
        let write = Write {
            node,
            shard,
            id: None,
            answered: false,
            refused: false,
            dead_lettered: false,
            dead: false,
            deliveries: 0,
            may_vanish: false,
            must_not_come: false,
            settled: false,
        };
        if self.writes.insert(number, write).is_some() {
            self.violation(format!("the workload used number {number} twice"));
        }
    }

    fn answered(&mut self, number: u64, id: Option<HintId>) {
        self.counts.answered += 1;
        match self.writes.get_mut(&number) {
            Some(write) => write.answered = true,
            None => return self.violation(format!("write {number} was answered but never tried")),
        }
        if let Some(id) = id {
            self.identify(number, id);
        }
    }

    /// An id names one write for ever, and a write has one id.
    fn identify(&mut self, number: u64, id: HintId) {
        let other = *self.ids.entry(id).or_insert(number);
        if other != number {
            self.violation(format!("{id} names write {other} and write {number}"));
        }
        let known = self
            .writes
            .get_mut(&number)
            .and_then(|write| write.id.replace(id));
        if let Some(known) = known.filter(|known| *known != id) {
            self.violation(format!("write {number} is both {known} and {id}"));
        }
    }

    fn delivered(&mut self, id: HintId, number: u64, node: NodeId, shard: ShardId) {
        self.counts.delivered += 1;
        let Some(write) = self.writes.get_mut(&number) else {
            return self.violation(format!(
                "{id} delivered write {number}, which was never tried"
            ));
        };
        write.deliveries += 1;
        let write = *write;
        if (write.node, write.shard) != (node, shard) {
            self.violation(format!(
                "write {number} for node {} shard {} came to node {node} shard {shard}",
                write.node, write.shard
            ));
        }
        if write.refused {
            self.violation(format!("write {number} was refused and came all the same"));
        }
        if write.dead_lettered {
            self.violation(format!(
                "{id} (write {number}) came, and was to be a dead letter"
            ));
        }
        if write.settled {
            self.violation(format!(
                "{id} (write {number}) came back after a durable acknowledgement"
            ));
        }
        if write.must_not_come {
            self.violation(format!(
                "{id} (write {number}) came after its node was removed"
            ));
        }
        if write.deliveries > 1 {
            self.counts.redelivered += 1;
        }
        if !self.power_fails {
            self.rows.came(number);
        }
        self.identify(number, id);
        let last = self.in_order.insert((node, shard), number);
        if let Some(last) = last.filter(|last| *last >= number) {
            self.violation(format!(
                "node {node} shard {shard}: write {number} came after write {last} in the same life"
            ));
        }
        self.delivered_in_life += 1;
        self.unsettled.push(number);
    }

    fn dead(&mut self, number: u64, id: HintId) {
        self.counts.dead += 1;
        let Some(write) = self.writes.get_mut(&number) else {
            return self.violation(format!("{id} is a dead letter of no write: {number}"));
        };
        write.dead = true;
        if !write.dead_lettered || write.refused || write.must_not_come {
            let write = *write;
            self.violation(format!("{id} must be no dead letter: {write:?}"));
        }
        self.identify(number, id);
    }

    fn settled(&mut self) {
        for number in std::mem::take(&mut self.unsettled) {
            if let Some(write) = self.writes.get_mut(&number) {
                write.settled = true;
            }
        }
    }

    fn of_node(&mut self, node: NodeId, change: impl Fn(&mut Write)) {
        let writes = self.writes.values_mut();
        writes.filter(|write| write.node == node).for_each(change);
    }

    /// The store's own counters against ours.
    fn caught_up(&mut self, delivered: u64) {
        let seen = self.delivered_in_life;
        if delivered != seen {
            self.violation(format!(
                "statistics say {delivered} delivered, {seen} were seen"
            ));
        }
        if let Some(pending) = self.pending_at_open.filter(|_| self.tried_in_life == 0)
            && pending != seen
        {
            self.violation(format!(
                "{pending} were pending at open, {seen} were delivered"
            ));
        }
    }

    /// Every queue was delivered from 1 on without a gap, but for queues of removed nodes.
    fn check_numbering(&mut self) {
        let mut queues: BTreeMap<QueueId, BTreeSet<u64>> = BTreeMap::new();
        let mut excused = HashSet::new();
        for write in self.writes.values() {
            let Some(id) = write.id else { continue };
            queues.entry(id.queue).or_default().insert(id.sequence.0);
            if write.may_vanish {
                excused.insert(id.queue);
            }
        }
        for (queue, sequences) in queues {
            let highest = sequences.last().copied().unwrap_or(0);
            if sequences.len() as u64 != highest && !excused.contains(&queue) {
                let missing = (1..=highest).find(|sequence| !sequences.contains(sequence));
                self.violation(format!(
                    "queue {queue}: sequence {missing:?} of {highest} never came"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests;
