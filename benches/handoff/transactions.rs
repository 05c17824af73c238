//! Transactions that write a row of the host's and enqueue a hint, beside plain appends and beside
//! sled, in alternating rounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{Abort, NodeId, sled::Tree};

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::Place,
        ours::{Appender, Handoff, SHARD, check_pending, open_down, open_down_shared},
        producers::{Done, Target, Until, produce},
        report::{Spread, Table, ratio, thousands},
    },
    plain_sled::{self, row_key},
};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(2500);
const TASKS: usize = 64;
const ENTRIES: usize = 20_000;
const ROW_BYTES: usize = 200;
/// Rows that a task changes in turn.
const ROWS_A_TASK: u64 = 256;

/// What a transaction does with rows.
#[derive(Clone, Copy)]
enum Rows {
    /// Each task writes new rows in a range of its own, without looking.
    Blind,
    /// Each task reads a row of its own, and writes it with what it counts one higher.
    Own,
    /// The same, with one row for all tasks.
    Hot,
}

enum Load {
    /// Entries appended to a store of its own, without rows.
    Append,
    /// The same change by a transaction of sled's each.
    Sled,
    Transactions {
        tasks: usize,
        rows: Rows,
    },
}

/// The first is what the others are compared with.
const LOADS: [(&str, Load, Option<f64>); 6] = [
    ("append, 64 tasks", Load::Append, None),
    (
        "transactions, 64 tasks, new rows",
        Load::Transactions {
            tasks: TASKS,
            rows: Rows::Blind,
        },
        Some(0.5),
    ),
    (
        "transactions, 64 tasks, read and write own rows",
        Load::Transactions {
            tasks: TASKS,
            rows: Rows::Own,
        },
        None,
    ),
    ("sled, 64 tasks, new rows", Load::Sled, None),
    (
        "transactions, 64 tasks, read and write one row",
        Load::Transactions {
            tasks: TASKS,
            rows: Rows::Hot,
        },
        None,
    ),
    (
        "transactions, 1 task, reads and writes one row",
        Load::Transactions {
            tasks: 1,
            rows: Rows::Hot,
        },
        None,
    ),
];

#[derive(Default)]
struct Round {
    done: Done,
    entries_a_group: Option<f64>,
    /// Runs of the closure for each transaction.
    runs: Option<f64>,
    /// The longest that a transaction took.
    longest_ms: Option<f64>,
    /// Transactions of the task that got the fewest done, for each of the mean task.
    slowest_task: Option<f64>,
}

pub async fn run(settings: &Settings, place: &Place) -> Outcome<()> {
    let entries = &Arc::new(Entries::line_protocol(ENTRIES, POINTS)?);
    let until = Until::Elapsed(ROUND.mul_f64(settings.scale));
    let mut rounds = Table::new(&[
        "load, round",
        "entries/s",
        "of append",
        "entries a group",
        "runs each",
        "longest ms",
        "slowest task of mean",
    ]);
    let mut medians = Table::new(&[
        "load",
        "entries/s (min..max)",
        "of append (min..max)",
        "goal",
    ]);
    // What the first of all rounds alone would pay for.
    let warm_up = Until::Elapsed(ROUND.mul_f64(settings.scale / 5.0));
    for (_, load, _) in &LOADS {
        round(place, entries, load, warm_up).await?;
    }
    let mut rates: [Vec<f64>; LOADS.len()] = Default::default();
    let mut ratios: [Vec<f64>; LOADS.len()] = Default::default();
    for number in 1..=ROUNDS {
        let mut append_rate = None;
        let all = LOADS.iter().zip(rates.iter_mut().zip(&mut ratios));
        for ((name, load, _), (rates, ratios)) in all {
            let round = round(place, entries, load, until).await?;
            let rate = round.done.per_second();
            let of_append = rate / *append_rate.get_or_insert(rate);
            rounds.row([
                format!("{name}, {number}"),
                thousands(rate),
                ratio(Some(of_append)),
                ratio(round.entries_a_group),
                ratio(round.runs),
                ratio(round.longest_ms),
                ratio(round.slowest_task),
            ]);
            rates.push(rate);
            ratios.push(of_append);
        }
    }
    for ((name, _, goal), (rates, ratios)) in LOADS.iter().zip(rates.into_iter().zip(ratios)) {
        medians.row([
            (*name).to_owned(),
            Spread::of(rates).rate(),
            Spread::of(ratios).ratio(),
            ratio(*goal),
        ]);
    }
    rounds.print("Transactions, round by round");
    medians.print("Transactions, medians");
    Ok(())
}

async fn round(place: &Place, entries: &Arc<Entries>, load: &Load, until: Until) -> Outcome<Round> {
    match load {
        Load::Append => append_round(place, entries, until).await,
        Load::Sled => sled_round(place, entries, until).await,
        Load::Transactions { tasks, rows } => {
            transactions_round(place, entries, *tasks, *rows, until).await
        }
    }
}

async fn append_round(place: &Place, entries: &Arc<Entries>, until: Until) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let handoff = open_down(&dir.path().join("store")).await?;
    let done = produce(&Appender::new(&handoff, 1), entries, TASKS, until).await?;
    let groups = check_pending(&handoff, &done)?.store.groups;
    handoff.shutdown().await?;
    Ok(Round {
        done,
        entries_a_group: Some(done.entries as f64 / groups as f64),
        ..Round::default()
    })
}

async fn sled_round(place: &Place, entries: &Arc<Entries>, until: Until) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let database = plain_sled::start(&dir.path().join("db"), TASKS as u64, ROW_BYTES)?;
    let done = produce(&database.writer(), entries, TASKS, until).await?;
    database.close()?;
    Ok(Round {
        done,
        ..Round::default()
    })
}

async fn transactions_round(
    place: &Place,
    entries: &Arc<Entries>,
    tasks: usize,
    rows: Rows,
    until: Until,
) -> Outcome<Round> {
    let dir = place.fresh_dir()?;
    let (db, handoff) = open_down_shared(&dir.path().join("db")).await?;
    let tallies: Arc<[Tally]> = (0..tasks).map(|_| Tally::default()).collect();
    let target = Transactor {
        handoff: handoff.clone(),
        tree: db.open_tree("rows")?,
        rows,
        number: 0,
        tallies: Arc::clone(&tallies),
    };
    let done = produce(&target, entries, tasks, until).await?;
    let groups = check_pending(&handoff, &done)?.store.groups;
    check_rows(&target.tree, rows, tasks, &done)?;
    handoff.shutdown().await?;

    let all = |of: fn(&Tally) -> &AtomicU64| {
        let figures: Vec<u64> = tallies.iter().map(|it| of(it).load(Relaxed)).collect();
        figures
    };
    let entries = done.entries as f64;
    let runs: u64 = all(|it| &it.runs).iter().sum();
    let longest_us = all(|it| &it.longest_us).into_iter().max();
    let fewest = all(|it| &it.transactions).into_iter().min();
    Ok(Round {
        done,
        entries_a_group: Some(entries / groups as f64),
        runs: Some(runs as f64 / entries),
        longest_ms: longest_us.map(|us| us as f64 / 1e3),
        slowest_task: fewest.map(|fewest| fewest as f64 * tasks as f64 / entries),
    })
}

/// No row that was answered may be missing, and no change of one may be lost.
fn check_rows(tree: &Tree, rows: Rows, tasks: usize, done: &Done) -> Outcome<()> {
    let (mut count, mut changes) = (0, 0);
    for row in tree.iter() {
        count += 1;
        changes += counted(&row?.1);
    }
    let expected = match rows {
        Rows::Blind => done.entries,
        Rows::Own => done.entries.min(tasks as u64 * ROWS_A_TASK),
        Rows::Hot => done.entries.min(1),
    };
    let is_short = match rows {
        // A task that got less done than another may not have come to its last row.
        Rows::Own => count > expected,
        Rows::Blind | Rows::Hot => count != expected,
    };
    if is_short || changes != done.entries {
        let answered = done.entries;
        return Err(format!(
            "LOST: {answered} transactions were answered, {count} rows with {changes} changes are there"
        )
        .into());
    }
    Ok(())
}

/// How often a row was changed, which it begins with.
fn counted(row: &[u8]) -> u64 {
    row.first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What a task got done.
#[derive(Default)]
struct Tally {
    transactions: AtomicU64,
    runs: AtomicU64,
    longest_us: AtomicU64,
}

/// For each entry writes a row and enqueues the entry, in one transaction.
#[derive(Clone)]
struct Transactor {
    handoff: Handoff,
    tree: Tree,
    rows: Rows,
    number: u64,
    tallies: Arc<[Tally]>,
}

impl Target for Transactor {
    fn of_producer(&self, number: u64) -> Self {
        Transactor {
            number,
            ..self.clone()
        }
    }

    async fn append(&self, entry: Bytes) -> Outcome<()> {
        let tally = self.tallies.get(self.number as usize);
        let tally = tally.ok_or("a task without a tally")?;
        let turn = tally.transactions.fetch_add(1, Relaxed);
        let key = match self.rows {
            Rows::Blind => row_key(self.number, turn),
            Rows::Own => row_key(self.number, turn % ROWS_A_TASK),
            Rows::Hot => row_key(0, 0),
        };
        let started = Instant::now();
        let trees = [&self.tree];
        let committed = self.handoff.transaction(&trees, |trees, hints| {
            tally.runs.fetch_add(1, Relaxed);
            let [rows] = trees else {
                return Err(Abort::new("not one tree"));
            };
            let before = match self.rows {
                Rows::Blind => 0,
                Rows::Own | Rows::Hot => rows.get(key)?.map_or(0, |row| counted(&row)),
            };
            let mut row = [0; ROW_BYTES];
            for (to, from) in row.iter_mut().zip(entry.iter()) {
                *to = *from;
            }
            if let Some(count) = row.first_chunk_mut() {
                *count = (before + 1).to_be_bytes();
            }
            rows.insert(key, row.as_slice())?;
            hints.enqueue(NodeId(1), SHARD, &entry)?;
            Ok(())
        });
        committed.await?;
        let took_us = started.elapsed().as_micros() as u64;
        tally.longest_us.fetch_max(took_us, Relaxed);
        Ok(())
    }
}
