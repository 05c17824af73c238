//! What is known of every write and each of its copies, kept outside the coordinator, and the
//! judgement of it: a copy of a write that was answered with success is at its owner, or a dead
//! letter, or recorded as lost. Where the answer waited for the level alone it may be missing if
//! the coordinator died within `hint_after` and a commit.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use hinted_handoff::{AnswerWhen, Config, LossReason, WhenFull, WriteId, WriteOrdering};

use crate::{
    coordinator::{NODES, OWN_SHARDS},
    figures::Figures,
    wire::{Sent, read_points},
};

/// Commits and standstills of the machine this long before a stop count for what may have been
/// outstanding.
const LOOKS_BACK: Duration = Duration::from_secs(1);

/// Calls of a node that are told of with what is wrong there.
const HISTORY: usize = 20;

/// How a copy came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Directly,
    AsHint,
    /// In an audit: it was pending.
    WhenDrained,
}

/// One life of a coordinator.
#[derive(Debug)]
struct Life {
    answer: AnswerWhen,
    hint_after: Duration,
    is_strict: bool,
    /// Copies may be in memory for so much longer, by its settings.
    more: Duration,
    audits: bool,
    /// When it was open, and each time that it told of a commit.
    alive: Vec<Instant>,
    stopped: Option<Instant>,
}

#[derive(Debug)]
struct Write {
    shard: u64,
    life: usize,
    tried: Instant,
    answered: Option<(Instant, bool)>,
    id: Option<WriteId>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    lives: Vec<Life>,
    writes: BTreeMap<u64, Write>,
    numbers: HashMap<WriteId, u64>,
    /// By node and number.
    taken: HashMap<(u64, u64), Came>,
    /// The owner said that the shard is gone.
    gone: HashSet<(u64, u64)>,
    /// The newest that came to a node, by shard, in strict order.
    newest: HashMap<(u64, u64), u64>,
    letters: HashSet<(u64, u64)>,
    lost: HashMap<(u64, u64), BTreeMap<LossReason, u64>>,
    /// Copies that came after those of later writes of their shard, and what is to be said of that.
    overtaken: Vec<(u64, String)>,
    /// What came to a node last, by shard, of those that go on.
    history: HashMap<(u64, u64), VecDeque<String>>,
    pub violations: Vec<String>,
    pub figures: Figures,
}

impl Ledger {
    pub fn life_begins(&mut self, config: &Config, audits: bool) {
        let is_strict = config.ordering == WriteOrdering::Strict;
        let is_limited = config.max_hints_per_node.is_some();
        // A hint that finds no room is waited for, or is recorded when its send has ended; and
        // without `hint_after` a copy may be in line behind one whose write does not reach its
        // level.
        let more = match (is_limited, is_strict && config.hint_after.is_zero()) {
            (false, false) => Duration::ZERO,
            (true, _) if config.when_full == WhenFull::Block => {
                2 * config.write_timeout + config.block_timeout
            }
            _ => 2 * config.write_timeout,
        };
        self.lives.push(Life {
            answer: config.answer,
            hint_after: config.hint_after,
            is_strict,
            more,
            audits,
            alive: Vec::new(),
            stopped: None,
        });
        self.figures.lives += u64::from(!audits);
        if audits {
            // They are told anew.
            self.letters.clear();
            self.lost.clear();
        }
    }

    fn life(&mut self) -> &mut Life {
        self.lives.last_mut().unwrap()
    }

    pub fn stopped(&mut self, at: Instant) {
        self.life().stopped = Some(at);
    }

    /// How long that took says nothing of its commits.
    pub fn opened(&mut self, at: Instant) {
        self.life().alive = vec![at];
    }

    pub fn alive(&mut self, at: Instant) {
        self.life().alive.push(at);
    }

    pub fn tried(&mut self, number: u64, shard: u64, at: Instant) {
        let write = Write {
            shard,
            life: self.lives.len() - 1,
            tried: at,
            answered: None,
            id: None,
        };
        self.writes.insert(number, write);
        self.figures.tried += 1;
    }

    pub fn answered(&mut self, number: u64, is_ok: bool, at: Instant) {
        match self.writes.get_mut(&number) {
            Some(write) => write.answered = Some((at, is_ok)),
            None => self.violation(format!("{number} was answered and not tried")),
        }
        match is_ok {
            true => self.figures.answered += 1,
            false => self.figures.errors += 1,
        }
    }

    /// The numbers of copies that came to a node. Each is what was written, under the id of its
    /// write.
    pub fn came(&mut self, node: u64, shard: u64, copies: &[Sent]) -> Vec<u64> {
        let mut numbers = Vec::new();
        for copy in copies {
            let read = read_points(&copy.points);
            let write = read.and_then(|(number, _)| Some((number, self.writes.get_mut(&number)?)));
            let Some((number, write)) = write.filter(|(_, write)| write.shard == shard) else {
                self.violation(format!(
                    "{node} got what nobody wrote to {shard}: {read:?}, {copy:?}"
                ));
                continue;
            };
            numbers.push(number);
            let known = write
                .id
                .get_or_insert_with(|| copy.write.unwrap_or(NO_WRITE));
            let is_same = copy.write == Some(*known);
            let of = copy
                .write
                .map(|id| *self.numbers.entry(id).or_insert(number));
            if !is_same || of != Some(number) {
                let (as_what, id) = (if copy.is_hint { "a hint" } else { "itself" }, copy.write);
                self.violation(format!(
                    "write {number} came to {node} as {as_what} under the id {id:?}, of write {of:?}"
                ));
            }
        }
        numbers
    }

    /// Copies came to a node, which took the first so many of them.
    pub fn taken(&mut self, node: u64, shard: u64, copies: &[Sent], came: &[u64], takes: usize) {
        let numbers = &came[..takes.min(came.len())];
        self.note(node, shard, copies, came, numbers.len());
        let life = self.life();
        let (audits, is_strict) = (life.audits, life.is_strict);
        for (number, copy) in numbers.iter().zip(copies) {
            let came = match (audits, copy.is_hint) {
                (true, _) => Came::WhenDrained,
                (false, true) => Came::AsHint,
                (false, false) => Came::Directly,
            };
            if self.taken.contains_key(&(node, *number)) {
                self.figures.again += 1;
                continue;
            }
            self.taken.insert((node, *number), came);
            if !is_strict || shard >= OWN_SHARDS {
                continue;
            }
            let newest = self.newest.entry((node, shard)).or_default();
            let (before, is_in_order) = (*newest, *newest < *number);
            *newest = before.max(*number);
            self.figures.in_order += 1;
            if !is_in_order {
                let what = format!(
                    "{node} took {number} of shard {shard} after {before}: {came:?}; before: {:?}",
                    self.history.get(&(node, shard))
                );
                self.overtaken.push((*number, what));
            }
        }
    }

    fn note(&mut self, node: u64, shard: u64, copies: &[Sent], came: &[u64], takes: usize) {
        if shard >= OWN_SHARDS {
            return;
        }
        let life = self.lives.len();
        let history = self.history.entry((node, shard)).or_default();
        let hints = copies.iter().filter(|copy| copy.is_hint).count();
        let what = format!("life {life}: {came:?}, {hints} hints, {takes} taken");
        history.push_back(what);
        if history.len() > HISTORY {
            history.pop_front();
        }
    }

    pub fn gone(&mut self, node: u64, numbers: &[u64]) {
        self.gone
            .extend(numbers.iter().map(|number| (node, *number)));
    }

    pub fn letter(&mut self, node: u64, points: &[u8]) {
        match read_points(points).filter(|(number, _)| self.writes.contains_key(number)) {
            Some((number, _)) => {
                self.letters.insert((node, number));
            }
            None => self.violation(format!("{node} has a dead letter that nobody wrote")),
        }
    }

    pub fn lost(&mut self, node: u64, shard: Option<u64>, reason: LossReason, hints: u64) {
        let is_expected = matches!(
            reason,
            LossReason::NotStored
                | LossReason::Obsolete
                | LossReason::Quota
                | LossReason::DeadLetterQuota
        );
        match shard.filter(|_| is_expected) {
            Some(shard) => {
                let sums = self.lost.entry((node, shard)).or_default();
                *sums.entry(reason).or_default() += hints;
            }
            None => self.violation(format!(
                "{hints} hints of {node}, {shard:?} were lost: {reason:?}"
            )),
        }
    }

    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Judges all that was written so far, after an audit. Returns the figures with where each copy
    /// is.
    pub fn judge(&mut self) -> Figures {
        // Hints of a write that was refused are withdrawn, whatever is before them; what undoes
        // that brings them back late.
        for (number, what) in std::mem::take(&mut self.overtaken) {
            if self.is_success(number) {
                self.violation(what);
            }
        }
        let mut figures = self.figures;
        let mut missing: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
        for (number, write) in &self.writes {
            if !write.answered.is_some_and(|(_, is_ok)| is_ok) {
                continue;
            }
            for node in 1..=NODES {
                figures.copies += 1;
                match self.taken.get(&(node, *number)) {
                    Some(Came::Directly) => figures.directly += 1,
                    Some(Came::AsHint) => figures.as_hints += 1,
                    Some(Came::WhenDrained) => figures.when_drained += 1,
                    None if self.letters.contains(&(node, *number)) => figures.dead += 1,
                    None => missing
                        .entry((node, write.shard))
                        .or_default()
                        .push(*number),
                }
            }
        }
        for ((node, shard), numbers) in missing {
            self.judge_missing(node, shard, &numbers, &mut figures);
        }
        figures
    }

    fn is_success(&self, number: u64) -> bool {
        let write = self.writes.get(&number);
        write.is_some_and(|write| write.answered.is_some_and(|(_, is_ok)| is_ok))
    }

    fn judge_missing(&mut self, node: u64, shard: u64, numbers: &[u64], figures: &mut Figures) {
        let lost = self.lost.get(&(node, shard)).cloned().unwrap_or_default();
        let obsolete = lost.get(&LossReason::Obsolete).copied().unwrap_or(0);
        let recorded = lost.values().sum::<u64>();
        let (gone, others): (Vec<u64>, _) =
            (numbers.iter()).partition(|number| self.gone.contains(&(node, **number)));
        // Only what the owner said to be gone is covered by what left as gone.
        let mut covered = recorded - obsolete;
        let mut covered_gone = obsolete;
        for number in others.into_iter().chain(gone) {
            let is_gone = self.gone.contains(&(node, number));
            if is_gone && covered_gone > 0 {
                covered_gone -= 1;
                figures.recorded += 1;
            } else if let Some((age, allowed)) = self.was_outstanding(number) {
                figures.outstanding += 1;
                figures.outstanding_max = figures.outstanding_max.max(age);
                figures.allowed_max = figures.allowed_max.max(allowed);
            } else if covered > 0 {
                covered -= 1;
                figures.recorded += 1;
            } else {
                let known = self.known_of(number, node);
                self.violation(format!(
                    "MISSING: the copy of {number} for {node}, shard {shard}, in the journal for these {lost:?}: {known}"
                ));
            }
        }
    }

    /// If it may be missing since its coordinator died before it could be hinted: how old it was,
    /// and might be.
    fn was_outstanding(&self, number: u64) -> Option<(Duration, Duration)> {
        let write = &self.writes[&number];
        let life = &self.lives[write.life];
        let (AnswerWhen::Level, Some(stopped)) = (life.answer, life.stopped) else {
            return None;
        };
        // Without `hint_after` it is hinted when the level is reached, so right after the answer.
        let since = match life.hint_after.is_zero() {
            true => write.answered.map_or(write.tried, |(at, _)| at),
            false => write.tried,
        };
        let (age, allowed) = (
            stopped.saturating_duration_since(since),
            life.in_memory_max(),
        );
        (age <= allowed).then_some((age, allowed))
    }

    fn known_of(&self, number: u64, node: u64) -> String {
        let write = &self.writes[&number];
        let life = &self.lives[write.life];
        let before_stop = |at: Instant| life.stopped.map(|stop| stop.saturating_duration_since(at));
        let answered = write.answered.and_then(|(at, _)| before_stop(at));
        let others = (1..=NODES).map(|node| (node, self.taken.get(&(node, number))));
        format!(
            "life {} of {}, tried {:?} and answered {answered:?} before its stop, {:?}, hint_after {:?}, may be in memory for {:?}; at its \
             owners: {:?}; gone: {}",
            write.life,
            self.lives.len(),
            before_stop(write.tried),
            life.answer,
            life.hint_after,
            life.in_memory_max(),
            others.collect::<Vec<_>>(),
            self.gone.contains(&(node, number)),
        )
    }
}

/// Stands for a copy that came without one.
const NO_WRITE: WriteId = WriteId {
    boot: 0,
    counter: 0,
};

impl Life {
    /// How long a copy that the answer did not wait for may be in memory alone before the stop:
    /// `hint_after`, the timer, the commit that was under way and the next one, each as long as
    /// anything took of late. In strict order it may be behind one that is as old.
    fn in_memory_max(&self) -> Duration {
        let Some(stopped) = self.stopped else {
            return Duration::ZERO;
        };
        let told = self.alive.iter().copied().chain([stopped]);
        let told: Vec<Instant> = told.collect();
        let gaps = told
            .windows(2)
            .filter(|pair| pair[1] + LOOKS_BACK >= stopped);
        let gap = gaps.map(|pair| pair[1].saturating_duration_since(pair[0]));
        let once = self.hint_after + 3 * gap.max().unwrap_or_default();
        self.more + if self.is_strict { 2 * once } else { once }
    }
}
