//! `hh info`: what a closed store is, and what waits in it.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use hinted_handoff::offline::{ClosedInfo, ClosedNode};

use crate::{
    failure::{Failure, told},
    output::Output,
    progress::open,
};

/// Say what a store that nobody has open is, and what waits in it.
///
/// Nothing in the directory is changed. As long as this runs nobody can open the store. What is
/// wrong is told on standard error, and exits with 1 if it is damage. `hh verify` looks at every
/// record; this does not.
#[derive(Debug, Args)]
pub struct Info {
    /// The store's directory, or a folder with sled's files in it.
    dir: PathBuf,
}

impl Info {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let store = open(&self.dir)?;
        let info = store.info()?;
        match output.is_json() {
            true => output.json(&info)?,
            false => print(output, &info)?,
        }
        Ok(told(store.findings()))
    }
}

fn print(output: &mut Output, info: &ClosedInfo) -> Result<(), Failure> {
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    output.pairs(&[
        ("store", info.store.to_string()),
        ("schema", info.schema.to_string()),
        ("path", info.path.display().to_string()),
        (
            "generation",
            info.generation.clone().unwrap_or("-".to_owned()),
        ),
        ("closed cleanly", yes(info.is_clean)),
        ("paused", yes(info.is_paused)),
        ("opens that died", info.opens_died.to_string()),
        ("compacting", yes(info.is_compacting)),
        ("moved aside", info.moved_aside.join(" ")),
        ("log bytes", output.bytes(info.log_bytes)),
        ("pending hints", info.pending.hints.to_string()),
        ("pending bytes", output.bytes(info.pending.bytes)),
        ("dead letters", info.dead_letters.hints.to_string()),
    ])?;
    let header = [
        "node",
        "hints",
        "bytes",
        "oldest",
        "letters",
        "state",
        "attempts",
        "last error",
    ];
    let rows = info.nodes.iter().map(|node| row(output, node));
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    match output.is_terminal() {
        true => output.line("")?,
        false => {
            let rows = rows
                .into_iter()
                .map(|row| [vec!["node".to_owned()], row].concat());
            return output.table(&header, rows.collect());
        }
    }
    output.table(&header, rows)
}

fn row(output: &Output, node: &ClosedNode) -> Vec<String> {
    vec![
        node.node.to_string(),
        node.pending.hints.to_string(),
        output.bytes(node.pending.bytes),
        output.time(node.oldest_unix_ms),
        node.dead_letters.hints.to_string(),
        state(node).to_owned(),
        node.failed_attempts.to_string(),
        node.last_error.clone().unwrap_or("-".to_owned()),
    ]
}

fn state(node: &ClosedNode) -> &'static str {
    match (node.is_leaving, node.parked_since_unix_ms, node.is_paused) {
        (true, _, _) => "leaving",
        (_, Some(_), _) => "parked",
        (_, _, true) => "paused",
        _ => "active",
    }
}
