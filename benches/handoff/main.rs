//! How fast the store is, beside the fastest that the same disk allows. See `benches/README.md`.
//!
//! It prints, it decides nothing: the exit code is 1 only if something that was answered is missing
//! or out of order, or if a scenario could not run. The table of all figures goes to the standard
//! output, what they are made of to the other.

mod append;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod fan_out;
mod figures;
mod latency;
mod nodes;
mod outage;
mod peers;
mod plain_sled;
mod replay;
mod scraped;
mod space;
mod sweep;
mod transactions;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use common::{
    Outcome, WORKERS,
    entries::{Entries, POINTS, SEED},
    machine::Place,
    runtime, scale,
};
use figures::Figures;

/// Where stores are put if nothing else is said.
pub const TEMPORARY_DIR: &str = env!("CARGO_TARGET_TMPDIR");

const SCENARIOS: [&str; 11] = [
    "append",
    "latency",
    "replay",
    "peers",
    "transactions",
    "fan_out",
    "nodes",
    "producers",
    "outage",
    "space",
    "scraped",
];
/// What runs if nothing is named: all figures but that of `scraped` and those of 10 GiB.
const QUICK: [&str; 4] = ["append", "latency", "replay", "peers"];

const USAGE: &str =
    "HH_BENCH_SCALE=0.1 makes everything ten times smaller, HH_BENCH_DIR says where";

/// What the caller chose.
pub struct Settings {
    /// Sizes and durations are multiplied by this.
    pub scale: f64,
    /// The build's directory, where results are left.
    pub target: PathBuf,
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

/// The scenarios that were named, and the single loads of `append`.
fn chosen(args: &[String]) -> Outcome<(Vec<&'static str>, Vec<&'static str>)> {
    let named: Vec<&str> = match args {
        [] => QUICK.to_vec(),
        [all] if all == "all" => SCENARIOS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let (mut scenarios, mut loads) = (Vec::new(), Vec::new());
    for name in named {
        let scenario = SCENARIOS.iter().find(|it| **it == name);
        let load = append::KEYS.iter().find(|it| **it == name);
        match (scenario, load) {
            (Some(&"append"), _) => loads.extend(append::KEYS),
            (Some(scenario), _) => scenarios.push(*scenario),
            (_, Some(load)) => loads.push(*load),
            _ => {
                return Err(format!(
                    "{name:?} is no scenario; there are {}, {} and all; {USAGE}",
                    SCENARIOS.join(", "),
                    append::KEYS.join(", ")
                )
                .into());
            }
        }
    }
    Ok((scenarios, loads))
}

fn run(args: &[String]) -> Outcome<()> {
    let target = Path::new(TEMPORARY_DIR).parent();
    let settings = Settings {
        scale: scale()?,
        target: target.ok_or("the build's directory has no parent")?.into(),
    };
    let (scenarios, loads) = chosen(args)?;
    let place = Place::find(TEMPORARY_DIR)?;
    let mut figures = Figures::default();
    eprintln!(
        "seed {SEED:#x}; {} cores, {WORKERS} runtime workers; scale {}; on {place}",
        std::thread::available_parallelism()?,
        settings.scale,
    );
    if !loads.is_empty() {
        runtime()?.block_on(append::run(&settings, &place, &loads, &mut figures))?;
    }
    for scenario in scenarios {
        match scenario {
            "scraped" => runtime()?.block_on(scraped::run(&settings, &place, &mut figures))?,
            "latency" => runtime()?.block_on(latency::run(&settings, &place, &mut figures))?,
            "replay" => runtime()?.block_on(replay::run(&settings, &place, &mut figures))?,
            "peers" => peers::run(&settings, &place, &mut figures)?,
            "producers" => runtime()?.block_on(sweep::run(&settings, &place))?,
            "fan_out" => runtime()?.block_on(fan_out::run(&settings, &place))?,
            "space" => runtime()?.block_on(space::run(&settings, &place))?,
            "outage" => outage::run(&settings, &place, &mut figures)?,
            "transactions" => runtime()?.block_on(transactions::run(&settings, &place))?,
            _ => nodes::run(&settings, &place)?,
        }
    }
    figures.print();
    figures.write(&settings.target.join("bench-ratios.json"))
}

/// Children have their memory looked at, so they keep few.
const CHILD_ENTRIES: usize = 2_000;

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
    let entries = Arc::new(Entries::line_protocol(CHILD_ENTRIES, POINTS)?);
    runtime()?.block_on(async {
        match (part.as_str(), figures.as_slice()) {
            ("nodes-fill", &[nodes, killed]) => {
                nodes::fill(dir, &entries, nodes, killed != 0).await
            }
            ("outage-fill", &[count]) => outage::fill(dir, &entries, count).await,
            ("outage-first", &[]) => outage::first(dir).await,
            ("outage-drain", &[count, bytes]) => outage::drain(dir, count, bytes).await,
            ("nodes-drain", &[nodes, bytes]) => nodes::drain(dir, nodes, bytes).await,
            _ => Err(format!("a child cannot do {part} {figures:?}").into()),
        }
    })
}
