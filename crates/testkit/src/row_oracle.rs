//! The oracle's part for hosts that share their database: what must be true of their rows.
//!
//! The host tells of each transaction before it tries it, and of everything that it reads at each
//! open. From then on it is known for good whether a transaction that was tried before came into
//! effect.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
};

use super::{
    row_event::{RowEvent, RowWrite},
    transactional::manual_node::MANUAL_NODE,
    write::Write,
};
use hinted_handoff::{HintId, NodeId};

/// A transaction, or a batch of plain rows.
#[derive(Debug, Clone, Copy)]
struct Tracked {
    write: RowWrite,
    committed: bool,
    aborted: bool,
    /// Whether it came into effect, once that is known.
    in_effect: Option<bool>,
}

/// What was read at an open so far.
#[derive(Debug, Default)]
struct Reading {
    rows: HashSet<(u8, u64)>,
    pending: BTreeMap<NodeId, u64>,
    consumed: HashMap<u64, HintId>,
    counter: u64,
}

/// Everything that was seen of rows.
///
/// The rules: a transaction is there in whole or not at all, its rows if and only if its hints were
/// enqueued; what was answered as durable is there, what gave up is not; what was there once is
/// there until it is removed; the counter is the number of those that count; a hint is consumed
/// once, together with the row that says so.
#[derive(Debug, Default)]
pub(super) struct RowOracle {
    writes: BTreeMap<u64, Tracked>,
    /// By number, the names of those that were to remove it.
    removers: HashMap<u64, Vec<u64>>,
    /// Hints whose delivery says for sure that they were durable.
    came: HashSet<u64>,
    /// Durably consumed.
    consumed: HashMap<u64, HintId>,
    reading: Reading,
    pub runs_again: u64,
    violations: Vec<String>,
}

impl RowOracle {
    /// Takes in what a child told; `hints` is what is known of all hints.
    pub fn see(&mut self, event: RowEvent, hints: &BTreeMap<u64, Write>) {
        match event {
            RowEvent::Began(write) => self.began(write),
            RowEvent::Committed { first, runs } => {
                self.runs_again += runs.saturating_sub(1);
                self.tracked(first, |tracked| tracked.committed = true);
            }
            RowEvent::Aborted { first } => self.tracked(first, |tracked| tracked.aborted = true),
            RowEvent::Consumed { id, number } => {
                self.consumed.insert(number, id);
            }
            RowEvent::Wrong { number } => {
                self.violation(format!("a transaction saw row {number} as it must not be"));
            }
            RowEvent::Pending { node, hints } => {
                self.reading.pending.insert(node, hints);
            }
            RowEvent::Row { tree, number } => {
                self.reading.rows.insert((tree, number));
            }
            RowEvent::ConsumedRow { id, number } => {
                self.reading.consumed.insert(number, id);
            }
            RowEvent::Counter { value } => self.reading.counter = value,
            RowEvent::AllRead => {
                let reading = mem::take(&mut self.reading);
                self.check_rows(&reading);
                self.check_consumed(&reading, hints);
                self.check_pending(&reading, hints);
            }
        }
    }

    /// A hint came while what was told counted: it was durable.
    pub fn came(&mut self, number: u64) {
        self.came.insert(number);
    }

    /// The life is over, perhaps in the middle of a reading.
    pub fn life_ended(&mut self) {
        self.reading = Reading::default();
    }

    /// Call it after a life that delivered everything: the hints of what is in effect have come.
    pub fn finish(&mut self, hints: &BTreeMap<u64, Write>) {
        let mut found = Vec::new();
        for (first, tracked) in &self.writes {
            let Some(in_effect) = tracked.in_effect else {
                found.push(format!("the rows of transaction {first} were never read"));
                continue;
            };
            for number in tracked.write.numbers().filter(|_| tracked.write.hinted) {
                let came = hints.get(&number).is_some_and(|hint| hint.deliveries > 0);
                if in_effect && !came {
                    let text = format!("row {number} is there, and its hint never came");
                    found.push(text);
                }
                if !in_effect && self.came.contains(&number) {
                    found.push(format!("hint {number} came, and its row is not there"));
                }
            }
        }
        self.violations.extend(found);
    }

    pub fn take_violations(&mut self) -> Vec<String> {
        mem::take(&mut self.violations)
    }

    /// How many were tried, how many of them gave up by themselves, and how many came into effect.
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |holds: fn(&Tracked) -> bool| {
            let matching = self.writes.values().filter(|tracked| holds(tracked));
            matching.count() as u64
        };
        (
            count(|_| true),
            count(|tracked| tracked.write.doomed),
            count(|tracked| tracked.in_effect == Some(true)),
        )
    }

    /// Hints that are known to be durably consumed.
    pub fn consumed(&self) -> u64 {
        self.consumed.len() as u64
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn began(&mut self, write: RowWrite) {
        if let Some(removed) = write.removes {
            self.removers.entry(removed).or_default().push(write.first);
        }
        let tracked = Tracked {
            write,
            committed: false,
            aborted: false,
            in_effect: None,
        };
        self.writes.insert(write.first, tracked);
    }

    fn tracked(&mut self, first: u64, change: impl FnOnce(&mut Tracked)) {
        match self.writes.get_mut(&first) {
            Some(tracked) => change(tracked),
            None => self.violation(format!("transaction {first} was answered but never tried")),
        }
    }

    /// Finds out from the rows which transactions came into effect.
    ///
    /// The latest first: whoever removes a row is later than who wrote it.
    fn check_rows(&mut self, reading: &Reading) {
        let mut unexplained = reading.rows.clone();
        let mut now: HashMap<u64, bool> = HashMap::new();
        let (mut counted, mut found) = (0, Vec::new());
        for (first, tracked) in self.writes.iter_mut().rev() {
            let (mut seen, mut missing) = (0, 0);
            for number in tracked.write.numbers() {
                let is_in_effect = |remover: &u64| now.get(remover) == Some(&true);
                let removers = self.removers.get(&number);
                let removed = removers.is_some_and(|it| it.iter().any(is_in_effect));
                for tree in [1, 2]
                    .into_iter()
                    .filter(|it| tracked.write.trees & it != 0)
                {
                    match (removed, unexplained.remove(&(tree, number))) {
                        (true, true) => {
                            found.push(format!("row {number} was removed and is there"));
                        }
                        // It was seen by the one who removed it.
                        (true, false) | (false, true) => seen += 1,
                        (false, false) => missing += 1,
                    }
                }
            }
            if seen > 0 && missing > 0 {
                found.push(format!(
                    "transaction {first}: {seen} of its rows are there and {missing} are not"
                ));
            }
            let in_effect = seen > 0;
            now.insert(*first, in_effect);
            counted += u64::from(in_effect && tracked.write.counts);
            found.extend(what_is_wrong(tracked, in_effect, &self.came));
            tracked.in_effect = Some(in_effect);
        }
        if counted != reading.counter {
            found.push(format!(
                "the counter is {}, {counted} transactions counted",
                reading.counter
            ));
        }
        let invented = unexplained.into_iter().take(3);
        found.extend(invented.map(|(tree, number)| {
            format!("row {number} of tree {tree} is there, and nobody wrote it there")
        }));
        self.violations.extend(found);
    }

    /// Rows that say that a hint was consumed stay, and belong to hints that there were.
    fn check_consumed(&mut self, reading: &Reading, hints: &BTreeMap<u64, Write>) {
        for (number, id) in &self.consumed {
            if reading.consumed.get(number) != Some(id) {
                let text = format!("hint {number} was durably consumed, and its row is gone");
                self.violations.push(text);
            }
        }
        for (number, id) in &reading.consumed {
            let hint = hints.get(number);
            if hint.is_none_or(|hint| hint.node != MANUAL_NODE) {
                self.violations.push(format!(
                    "{id} (write {number}) was consumed, which was no hint of that node"
                ));
            }
            if self.is_in_effect(*number) == Some(false) {
                let text = format!("hint {number} was consumed, and its row is not there");
                self.violations.push(text);
            }
        }
        self.consumed.extend(&reading.consumed);
    }

    /// What is pending is what was enqueued and has not left: as far as that is known.
    fn check_pending(&mut self, reading: &Reading, hints: &BTreeMap<u64, Write>) {
        // By node: at least and at most so many are pending.
        let mut bounds: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for (number, hint) in hints {
            let surely_enqueued = match self.is_in_effect(*number) {
                Some(in_effect) => in_effect,
                None => hint.answered,
            };
            let may_be_enqueued = match self.is_in_effect(*number) {
                Some(in_effect) => in_effect,
                None => !hint.refused,
            };
            let is_consumed = reading.consumed.contains_key(number);
            let (surely_left, may_have_left) = match hint.node == MANUAL_NODE {
                true => (is_consumed, is_consumed),
                false => (hint.settled, hint.deliveries > 0),
            };
            let (least, most) = bounds.entry(hint.node).or_default();
            *least += u64::from(surely_enqueued && !may_have_left);
            *most += u64::from(may_be_enqueued && !surely_left);
        }
        for (node, (least, most)) in bounds {
            let pending = reading.pending.get(&node).copied().unwrap_or(0);
            if !(least..=most).contains(&pending) {
                self.violations.push(format!(
                    "node {node}: {pending} hints are pending, but by rows and deliveries it must be {least} to {most}"
                ));
            }
        }
    }

    /// `None` for what is not of a transaction.
    fn is_in_effect(&self, number: u64) -> Option<bool> {
        let (_, tracked) = self.writes.range(..=number).next_back()?;
        let is_of_it = tracked.write.hinted && tracked.write.numbers().contains(&number);
        tracked.in_effect.filter(|_| is_of_it)
    }
}

/// Whether it may be in effect or not, by all that is known of it.
fn what_is_wrong(tracked: &Tracked, in_effect: bool, came: &HashSet<u64>) -> Option<String> {
    let first = tracked.write.first;
    let is = match in_effect {
        true => "there",
        false => "not there",
    };
    if in_effect && (tracked.aborted || tracked.write.doomed) {
        return Some(format!("transaction {first} gave up, and is there"));
    }
    if !in_effect && tracked.committed {
        return Some(format!("transaction {first} was answered and is lost"));
    }
    if tracked.in_effect.is_some_and(|before| before != in_effect) {
        let text = format!("transaction {first} is {is}, and an earlier open saw otherwise");
        return Some(text);
    }
    let mut numbers = tracked.write.numbers();
    if !in_effect && numbers.any(|number| came.contains(&number)) {
        let text = format!("a hint of transaction {first} came, and its row is not there");
        return Some(text);
    }
    None
}

#[cfg(test)]
mod tests;
