//! Other queues under the same load: `benches/peers`, a program of its own, which this builds and
//! starts.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    Settings,
    common::{Outcome, machine::Place, report::Spread},
    figures::Figures,
};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/Cargo.toml");
/// What the figures need; by hand it does more.
const LOADS: [&str; 4] = ["line-protocol", "append-64", "draining-64", "drain"];

pub fn run(settings: &Settings, place: &Place, figures: &mut Figures) -> Outcome<()> {
    if !Path::new(MANIFEST).is_file() {
        eprintln!("peers: left out, {MANIFEST} is not there; a published crate comes without it");
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = Command::new(cargo)
        .args(["run", "--release", "--manifest-path", MANIFEST])
        .arg("--target-dir")
        .arg(settings.target.join("peers"))
        .arg("--")
        .args(LOADS)
        .env("HH_BENCH_DIR", place.path())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !run.status.success() {
        return Err(format!("the peers' benchmark ended with {}", run.status).into());
    }
    for line in String::from_utf8(run.stdout)?.lines() {
        let mut words = line.split(' ');
        let key = words.next().unwrap_or_default();
        let figures_told: Vec<f64> = words.map(str::parse).collect::<Result<_, _>>()?;
        let &[median, min, max] = figures_told.as_slice() else {
            return Err(format!("the peers' benchmark told {line:?}").into());
        };
        figures.note(key, Spread { median, min, max });
    }
    Ok(())
}
