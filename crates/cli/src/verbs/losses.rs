//! `hh losses`: the loss journal of a closed store.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use hinted_handoff::{Loss, LossReason, NodeId, offline::ClosedStore};

use crate::{failure::Failure, output::Output, progress::Progress};

/// Say which hints of a store left undelivered, and why: its loss journal.
///
/// Of a store that nobody has open. Nothing in the directory is changed.
#[derive(Debug, Args)]
pub struct Losses {
    /// The store's directory, or a folder with sled's files in it.
    dir: PathBuf,
    /// Only entries of this index and above.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    since: u64,
    /// Only those of this node.
    #[arg(long)]
    node: Option<NodeId>,
}

impl Losses {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let progress = Progress::of_bytes("log");
        let store = ClosedStore::open_with(&self.dir, |done, total| progress.set(done, total))?;
        drop(progress);
        let mut losses = store.losses(self.since);
        if let Some(node) = self.node {
            losses = losses.of_node(node);
        }
        if output.is_json() {
            output.json(&losses)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = losses.entries.iter();
        let rows = rows
            .map(|(index, loss)| row(output, *index, loss))
            .collect();
        let header = [
            "index", "node", "shard", "queue", "first", "last", "hints", "bytes", "reason",
            "since", "until",
        ];
        output.table(&header, rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn name(reason: LossReason) -> String {
    let name = serde_json::to_value(reason).ok();
    let name = name.and_then(|it| it.as_str().map(str::to_owned));
    name.unwrap_or("-".to_owned())
}

fn row(output: &Output, index: u64, loss: &Loss) -> Vec<String> {
    let text = |it: Option<u64>| it.map_or("-".to_owned(), |it| it.to_string());
    vec![
        index.to_string(),
        loss.node.to_string(),
        text(loss.shard.map(|it| it.0)),
        text(loss.place.map(|it| it.queue.0)),
        text(loss.place.map(|it| it.first.0)),
        text(loss.place.map(|it| it.last.0)),
        loss.amount.hints.to_string(),
        output.bytes(loss.amount.bytes),
        name(loss.reason),
        output.time(Some(loss.since_unix_ms)),
        output.time(Some(loss.until_unix_ms)),
    ]
}
