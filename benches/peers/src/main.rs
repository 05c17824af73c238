//! Other queues beside ours and beside the raw file, under the same loads in the same run. See
//! `benches/README.md`.
//!
//! Tables go to the standard error; to the standard output the figures that `benches/handoff` takes
//! over, a line each: key, median, lowest, highest.

#[path = "../../common/mod.rs"]
mod common;
mod files;
mod loads;
mod peer;
mod persistent;
mod redb_alone;
mod sled_alone;
mod subjects;
mod watchdog;

use std::{process::ExitCode, sync::Arc};

use common::{
    Outcome,
    entries::{Entries, POINTS},
    machine::Place,
    report::{Spread, Table, thousands},
    scale,
};
use loads::{Bench, Load};
use subjects::{Kind, Subject, subjects};

const ROUNDS: usize = 5;
const ENTRIES: usize = 20_000;
const LARGE_ENTRIES: usize = 256;
const LARGE_BYTES: usize = 64 * 1024;

const LOADS: [(&str, Load); 7] = [
    ("append-1", Load::Append(1)),
    ("append-16", Load::Append(16)),
    ("append-64", Load::Append(64)),
    ("draining-1", Load::Draining(1)),
    ("draining-16", Load::Draining(16)),
    ("draining-64", Load::Draining(64)),
    ("drain", Load::Drain),
];

/// Entries of a kind, how many a backlog has, and what is done with them.
struct Entered {
    name: &'static str,
    generate: fn() -> Outcome<Entries>,
    backlog: f64,
    loads: &'static [&'static str],
}

const SMALL_LOADS: [&str; 5] = [
    "append-1",
    "append-64",
    "draining-1",
    "draining-64",
    "drain",
];

const ENTERED: [Entered; 3] = [
    Entered {
        name: "line-protocol",
        generate: || Ok(Entries::line_protocol(ENTRIES, POINTS)?),
        backlog: 60_000.0,
        loads: &SMALL_LOADS,
    },
    Entered {
        name: "short",
        generate: || Ok(Entries::line_protocol(ENTRIES, 1)?),
        backlog: 100_000.0,
        loads: &SMALL_LOADS,
    },
    Entered {
        name: "incompressible",
        generate: || Ok(Entries::incompressible(LARGE_ENTRIES, LARGE_BYTES)),
        backlog: 2_000.0,
        loads: &["append-16", "draining-16", "drain"],
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let is_kind = |name: &str| ENTERED.iter().any(|it| it.name == name);
    let is_load = |name: &str| LOADS.iter().any(|it| it.0 == name);
    if let Some(unknown) = named.iter().find(|it| !is_kind(it) && !is_load(it)) {
        let kinds = ENTERED.map(|it| it.name).join(", ");
        let loads = LOADS.map(|it| it.0).join(", ");
        return Err(format!("{unknown:?} is neither of {kinds} nor of {loads}").into());
    }
    let wants = |name: &str, is_of_its_sort: &dyn Fn(&str) -> bool| {
        !named.iter().any(|it| is_of_its_sort(it)) || named.iter().any(|it| it == name)
    };
    for entered in ENTERED.iter().filter(|it| wants(it.name, &is_kind)) {
        let loads: Vec<(&str, Load)> = LOADS
            .into_iter()
            .filter(|(name, _)| entered.loads.contains(name) && wants(name, &is_load))
            .collect();
        measure(entered, &loads)?;
    }
    Ok(())
}

/// All rounds of all subjects: of each load and subject the rates, those of the raw file, and what
/// was delivered meanwhile.
#[derive(Default)]
struct Cell {
    rates: Vec<f64>,
    of_raw: Vec<f64>,
    delivered: Vec<f64>,
    failed: Option<String>,
}

fn measure(entered: &Entered, loads: &[(&str, Load)]) -> Outcome<()> {
    let scale = scale()?;
    let bench = Bench {
        place: Place::find(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tmp"))?,
        scale,
        entries: Arc::new((entered.generate)()?),
        backlog: (entered.backlog * scale).max(1.0) as u64,
    };
    let subjects = subjects();
    let mut cells: Vec<Vec<Cell>> = Vec::new();
    for (_, load) in loads {
        let mut row: Vec<Cell> = subjects.iter().map(|_| Cell::default()).collect();
        for _ in 0..ROUNDS {
            let mut raw = f64::NAN;
            for (subject, cell) in subjects.iter().zip(&mut row) {
                let round = watchdog::guard(subject.name, || bench.round(subject, *load));
                match round {
                    Ok(rates) => {
                        if let Kind::Raw = subject.kind {
                            raw = rates.rate;
                        }
                        cell.rates.push(rates.rate);
                        cell.of_raw.push(rates.rate / raw);
                        cell.delivered.extend(rates.delivered);
                    }
                    // The others are measured all the same.
                    Err(error) => cell.failed = Some(error.to_string()),
                }
            }
        }
        cells.push(row);
    }
    print(entered, &bench, loads, &subjects, &cells);
    if entered.name == "line-protocol" {
        for ((name, _), row) in loads.iter().zip(&cells) {
            tell(name, &subjects, row);
        }
    }
    Ok(())
}

fn print(
    entered: &Entered,
    bench: &Bench,
    loads: &[(&str, Load)],
    subjects: &[Subject],
    cells: &[Vec<Cell>],
) {
    let mut headers = vec!["", "an answer means"];
    headers.extend(loads.iter().map(|(name, _)| *name));
    let mut table = Table::new(&headers);
    for (number, subject) in subjects.iter().enumerate() {
        let mut row = vec![subject.name.to_owned(), subject.ack.to_owned()];
        for cell in cells.iter().filter_map(|row| row.get(number)) {
            row.push(match &cell.failed {
                Some(error) => error.clone(),
                None => cell.text(),
            });
        }
        table.row(row);
    }
    table.print(&format!(
        "{}, {} bytes: entries/s, of raw (min..max), delivered/s meanwhile; backlog of {}",
        entered.name,
        bench.entries.mean_bytes(),
        thousands(bench.backlog as f64),
    ));
}

impl Cell {
    fn text(&self) -> String {
        let rate = thousands(Spread::of(self.rates.iter().copied()).median);
        let of_raw = Spread::of(self.of_raw.iter().copied()).ratio();
        match self.delivered.is_empty() {
            true => format!("{rate}; {of_raw}"),
            false => {
                let delivered = thousands(Spread::of(self.delivered.iter().copied()).median);
                format!("{rate}; {of_raw}; {delivered}")
            }
        }
    }
}

/// Ours against the best of the peers whose answers are durable, round by round.
fn tell(load: &str, subjects: &[Subject], row: &[Cell]) {
    let key = match load {
        "append-64" => "append_64_vs_peer",
        "draining-64" => "append_while_draining_vs_peer",
        "drain" => "replay_vs_peer",
        _ => return,
    };
    let of = |is: &dyn Fn(&Subject) -> bool| {
        let all = subjects
            .iter()
            .zip(row)
            .filter(|(subject, cell)| is(subject) && cell.failed.is_none());
        all.map(|(_, cell)| cell).max_by(|a, b| {
            let median = |cell: &Cell| Spread::of(cell.rates.iter().copied()).median;
            median(a).total_cmp(&median(b))
        })
    };
    let ours = of(&|it| matches!(it.kind, Kind::Ours));
    let best = of(&|it| {
        let is_peer = matches!(it.kind, Kind::Peer(_)) && it.is_durable;
        is_peer && (load != "drain" || it.is_queue)
    });
    let (Some(ours), Some(best)) = (ours, best) else {
        return;
    };
    let ratios = ours
        .rates
        .iter()
        .zip(&best.rates)
        .map(|(ours, best)| ours / best);
    let ratios = Spread::of(ratios);
    println!("{key} {} {} {}", ratios.median, ratios.min, ratios.max);
}
