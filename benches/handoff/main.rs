//! How fast the store is, beside the fastest that the same disk allows. See `benches/README.md`.
//!
//! It prints, it decides nothing: the exit code is 1 only if something that was answered is missing or out of order,
//! or if a scenario could not run.

mod append;
mod child;
mod entries;
mod machine;
mod memory;
mod nodes;
mod ours;
mod producers;
mod raw;
mod receiver;
mod reopen;
mod replay;
mod report;
mod space;
mod transactions;

use std::{error::Error, path::Path, process::ExitCode, sync::Arc};

use entries::{Entries, SEED};
use machine::Place;

/// What everything here returns.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes.
pub const GIB: u64 = 1 << 30;

const USAGE: &str = "scenarios: append transactions replay (the default), reopen memory nodes space (large), all; \
    HH_BENCH_SCALE=0.1 makes everything ten times smaller, HH_BENCH_DIR says where";

const SCENARIOS: [&str; 7] = [
    "append",
    "transactions",
    "replay",
    "reopen",
    "nodes",
    "memory",
    "space",
];

/// As many as the machine that the figures in the documentation come from has cores.
const WORKERS: usize = 2;
const ENTRIES: usize = 20_000;
/// Children have their memory looked at, so they keep few.
const CHILD_ENTRIES: usize = 2_000;

/// What the caller chose.
pub struct Settings {
    /// Sizes and durations are multiplied by this.
    pub scale: f64,
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let is_child = args.first().is_some_and(|arg| arg == child::MARK);
    let is_bench = args.iter().any(|arg| arg == "--bench");
    if !is_bench && !is_child {
        println!("this only runs under `cargo bench`");
        return ExitCode::SUCCESS;
    }
    args.retain(|arg| arg != "--bench" && arg != child::MARK);
    let outcome = match is_child {
        true => run_child(&args),
        false => run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
}

fn run(args: &[String]) -> Outcome<()> {
    let scale = match std::env::var("HH_BENCH_SCALE") {
        Ok(text) => text.parse()?,
        Err(_) => 1.0,
    };
    if !(scale > 0.0 && scale <= 100.0) {
        return Err(format!("HH_BENCH_SCALE={scale} is not over 0 and at most 100").into());
    }
    let settings = Settings { scale };
    let scenarios: Vec<&str> = match args.iter().map(String::as_str).collect::<Vec<_>>() {
        none if none.is_empty() => vec!["append", "transactions", "replay"],
        all if all == ["all"] => SCENARIOS.to_vec(),
        named => named,
    };
    if let Some(unknown) = scenarios.iter().find(|it| !SCENARIOS.contains(it)) {
        return Err(format!("{unknown:?} is no scenario; {USAGE}").into());
    }

    let place = Place::find()?;
    let entries = Arc::new(Entries::generate(ENTRIES)?);
    println!(
        "{ENTRIES} entries of {} bytes in the mean, seed {SEED:#x}; {} cores, {WORKERS} runtime workers; scale {scale}",
        entries.mean_bytes(),
        std::thread::available_parallelism()?,
    );
    println!("on {place}");
    for scenario in scenarios {
        match scenario {
            "append" => runtime()?.block_on(append::run(&settings, &place, &entries))?,
            "transactions" => {
                runtime()?.block_on(transactions::run(&settings, &place, &entries))?;
            }
            "replay" => runtime()?.block_on(replay::run(&settings, &place, &entries))?,
            "reopen" => reopen::run(&settings, &place, &entries)?,
            "nodes" => nodes::run(&settings, &place)?,
            "space" => runtime()?.block_on(space::run(&settings, &place, &entries))?,
            _ => memory::run(&settings, &place, &entries)?,
        }
    }
    Ok(())
}

/// What a child is told: its part, the directory of the store, figures.
fn run_child(args: &[String]) -> Outcome<()> {
    let [part, dir, figures @ ..] = args else {
        return Err("a child needs its part and a directory".into());
    };
    let dir = Path::new(dir);
    let figures: Vec<u64> = figures
        .iter()
        .map(|figure| figure.parse())
        .collect::<Result<_, _>>()?;
    let entries = Arc::new(Entries::generate(CHILD_ENTRIES)?);
    runtime()?.block_on(async {
        match (part.as_str(), figures.as_slice()) {
            ("reopen-fill", &[count]) => reopen::fill(dir, &entries, count).await,
            ("reopen-first", &[]) => reopen::first(dir).await,
            ("reopen-drain", &[count, bytes]) => reopen::drain(dir, count, bytes).await,
            ("nodes-fill", &[nodes, killed]) => {
                nodes::fill(dir, &entries, nodes, killed != 0).await
            }
            ("nodes-drain", &[nodes, bytes]) => nodes::drain(dir, nodes, bytes).await,
            ("memory-fill", &[count]) => memory::fill(dir, &entries, count).await,
            ("memory-drain", &[count, bytes]) => memory::drain(dir, count, bytes).await,
            _ => Err(format!("a child cannot do {part} {figures:?}").into()),
        }
    })
}
