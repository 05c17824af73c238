//! `hh letters`: the dead letters of a closed store.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use hinted_handoff::{
    HintId, NodeId, ShardId,
    offline::{ClosedLetter, ClosedStore, Selection},
};

use crate::{
    failure::{DAMAGED, Failure},
    output::Output,
    progress::Progress,
    record::Record,
};

/// Look at dead letters.
#[derive(Debug, Args)]
pub struct Letters {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
    Show(Show),
}

/// List the dead letters of a store that nobody has open.
#[derive(Debug, Args)]
struct List {
    /// The store's directory, or a folder with sled's files in it.
    dir: PathBuf,
    /// Only those of this node.
    #[arg(long)]
    node: Option<NodeId>,
    /// Only those of this shard.
    #[arg(long)]
    shard: Option<ShardId>,
}

/// Show one dead letter with its payload, of a store that nobody has open.
#[derive(Debug, Args)]
struct Show {
    /// The store's directory, or a folder with sled's files in it.
    dir: PathBuf,
    /// Its id, as the list has it.
    id: HintId,
}

impl Letters {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::List(verb) => verb.run(output),
            Verb::Show(verb) => verb.run(output),
        }
    }
}

fn open(dir: &PathBuf) -> Result<ClosedStore, Failure> {
    let progress = Progress::of_bytes("log");
    let opened = ClosedStore::open_with(dir, |done, total| progress.set(done, total));
    Ok(opened?)
}

impl List {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let store = open(&self.dir)?;
        let mut selection = Selection::default();
        (selection.node, selection.shard) = (self.node, self.shard);
        let mut letters = store.letters(&selection)?;
        let (mut records, mut rows) = (Vec::new(), Vec::new());
        for letter in letters.by_ref() {
            let letter = letter?;
            match output.is_json() {
                true => {
                    // The payload is for `show`.
                    let record = Record::of_letter(&letter);
                    let record = serde_json::to_value(record);
                    let mut record = record.map_err(|error| Failure::output(error.into()))?;
                    if let Some(record) = record.as_object_mut() {
                        record.remove("payload_base64");
                        record.insert("reads".to_owned(), letter.reads.into());
                    }
                    records.push(record);
                }
                false => rows.push(row(output, &letter)),
            }
        }
        match output.is_json() {
            true => output.json(&records)?,
            false => {
                let header = [
                    "id", "node", "shard", "bytes", "enqueued", "reason", "attempts", "error",
                ];
                output.table(&header, rows)?;
            }
        }
        Ok(match letters.findings() {
            [] => ExitCode::SUCCESS,
            _ => ExitCode::from(DAMAGED),
        })
    }
}

impl Show {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let store = open(&self.dir)?;
        let mut selection = Selection::default();
        selection.sequences = Some(self.id.sequence.0..=self.id.sequence.0);
        for letter in store.letters(&selection)? {
            let letter = letter?;
            if letter.hint.id == self.id {
                output.json(&Record::of_letter(&letter))?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let text = format!("{} is no dead letter of this store", self.id);
        Err(Failure::Usage(text))
    }
}

fn row(output: &Output, letter: &ClosedLetter) -> Vec<String> {
    let (hint, cause) = (&letter.hint, letter.cause.as_ref());
    let reason = cause.and_then(|it| serde_json::to_value(it.reason).ok());
    let reason = reason.and_then(|it| it.as_str().map(str::to_owned));
    let bytes = match letter.reads {
        true => output.bytes(hint.payload.len() as u64),
        false => "damaged".to_owned(),
    };
    vec![
        hint.id.to_string(),
        hint.node.to_string(),
        hint.shard.to_string(),
        bytes,
        output.time(Some(hint.enqueued_unix_ms)),
        reason.unwrap_or("-".to_owned()),
        cause.map_or("-".to_owned(), |it| it.attempts.to_string()),
        cause.map_or("-".to_owned(), |it| it.error.clone()),
    ]
}
