//! `hh letters`: the dead letters of a closed store, or of a host that runs.

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgGroup, Args, Subcommand};
use hinted_handoff::{
    DeadLetter, HintId, NodeId, ShardId,
    offline::{ClosedLetter, Selection},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, Host, HostIfAny},
    failure::{Failure, told},
    json::name_of,
    output::Output,
    progress::open,
    record::Record,
    verbs::operate::confirm,
};

/// Of a list, wherever the letters are.
const COLUMNS: [&str; 8] = [
    "id", "node", "shard", "bytes", "enqueued", "reason", "attempts", "error",
];

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
    Redrive(Redrive),
    Discard(Discard),
}

/// List the dead letters of a store that nobody has open, or of a node of a host that runs.
///
/// The columns are the same; a host does not tell when a letter was enqueued. As JSON those of a
/// store are as in an export, without the payload, and those of a host as its interface tells them.
#[derive(Debug, Args)]
struct List {
    /// The store's directory, or a folder with sled's files in it.
    dir: Option<PathBuf>,
    #[command(flatten)]
    host: HostIfAny,
    /// Only those of this node; of a host one must be named.
    #[arg(long, required_unless_present = "dir")]
    node: Option<NodeId>,
    /// Only those of this shard.
    #[arg(long)]
    shard: Option<ShardId>,
}

/// Show one dead letter with its payload, of a store that nobody has open. Exits with 1 if it does
/// not read where it should.
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
            Verb::Redrive(verb) => verb.run(output),
            Verb::Discard(verb) => verb.run(output),
        }
    }
}

impl List {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let Some(dir) = &self.dir else {
            return self.of_host(output);
        };
        let store = open(dir)?;
        let mut selection = Selection::default();
        (selection.node, selection.shard) = (self.node, self.shard);
        let mut letters = store.letters(&selection)?;
        let (mut records, mut rows) = (Vec::new(), Vec::new());
        for letter in letters.by_ref() {
            let letter = letter?;
            match output.is_json() {
                true => {
                    // The payload is for `show`.
                    let mut record = shown(Record::without_payload_of(&letter), letter.reads)?;
                    if let Some(record) = record.as_object_mut() {
                        record.remove("payload_base64");
                    }
                    records.push(record);
                }
                false => rows.push(row(output, &letter)),
            }
        }
        match output.is_json() {
            true => output.json(&records)?,
            false => output.table(&COLUMNS, rows)?,
        }
        Ok(told(store.findings().iter().chain(letters.findings())))
    }
}

impl Show {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let store = open(&self.dir)?;
        let mut selection = Selection::default();
        selection.sequences = Some(self.id.sequence.0..=self.id.sequence.0);
        let mut letters = store.letters(&selection)?;
        while let Some(letter) = letters.next().transpose()? {
            if letter.hint.id == self.id {
                output.json(&shown(Record::of_letter(&letter), letter.reads)?)?;
                let queue = Some(self.id.queue);
                let findings = letters.findings().iter();
                return Ok(told(findings.filter(|it| it.queue == queue)));
            }
        }
        let text = format!("{} is no dead letter of this store", self.id);
        Err(Failure::Usage(text))
    }
}

/// A letter as JSON, with whether its payload reads.
fn shown(record: Record, reads: bool) -> Result<Value, Failure> {
    let record = serde_json::to_value(record);
    let mut record = record.map_err(|error| Failure::output(error.into()))?;
    if let Some(record) = record.as_object_mut() {
        record.insert("reads".to_owned(), reads.into());
    }
    Ok(record)
}

impl List {
    fn of_host(&self, output: &mut Output) -> Result<ExitCode, Failure> {
        let (Some(host), Some(node)) = (self.host.host(false)?, self.node) else {
            return Err(Failure::Usage("name a node of the host".to_owned()));
        };
        let client = Client::new(&host)?;
        let (mut letters, mut after) = (Vec::new(), String::new());
        loop {
            let page: Page = client.get(&format!("/v1/nodes/{node}/letters?max=1000{after}"))?;
            letters.extend(page.letters);
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        letters.retain(|it| self.shard.is_none_or(|shard| it.shard == shard));
        if output.is_json() {
            output.json(&letters)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = letters.iter().map(|it| {
            vec![
                it.id.to_string(),
                it.node.to_string(),
                it.shard.to_string(),
                output.bytes(it.payload_bytes),
                // A host does not tell it in a list.
                "-".to_owned(),
                name_of(&it.reason),
                it.attempts.to_string(),
                it.error.clone(),
            ]
        });
        let rows = rows.collect();
        output.table(&COLUMNS, rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Deserialize)]
struct Page {
    letters: Vec<DeadLetter>,
    next: Option<HintId>,
}

/// Which dead letters of a node.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("letters").required(true).args(["ids", "all"])))]
struct Named {
    /// The node that they are for.
    node: NodeId,
    /// Their ids, as the list has them.
    ids: Vec<HintId>,
    /// All of them.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    host: Host,
}

impl Named {
    fn body(&self) -> Value {
        match self.all {
            true => json!({ "all": true }),
            false => json!({ "hints": self.ids }),
        }
    }
}

/// Send dead letters of a node on once more, at a host that runs.
#[derive(Debug, Args)]
struct Redrive {
    #[command(flatten)]
    named: Named,
}

impl Redrive {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.named.host)?;
        let path = format!("/v1/nodes/{}/letters/redrive", self.named.node);
        let redriven: Value = client.post(&path, self.named.body())?;
        output.json(&redriven)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Discard dead letters of a node, at a host that runs.
#[derive(Debug, Args)]
struct Discard {
    #[command(flatten)]
    named: Named,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

impl Discard {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.named.host)?;
        let what = match self.named.all {
            true => "all its dead letters are discarded".to_owned(),
            false => format!("{} of its dead letters are discarded", self.named.ids.len()),
        };
        confirm(output, &client, self.named.node, &what, self.yes)?;
        let path = format!("/v1/nodes/{}/letters/discard", self.named.node);
        let discarded: Value = client.post(&path, self.named.body())?;
        output.json(&discarded)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(output: &Output, letter: &ClosedLetter) -> Vec<String> {
    let (hint, cause) = (&letter.hint, letter.cause.as_ref());
    let bytes = match letter.reads {
        true => output.bytes(hint.payload.len() as u64),
        false => "damaged".to_owned(),
    };
    vec![
        hint.id.to_string(),
        hint.node.to_string(),
        hint.shard.to_string(),
        bytes,
        output.time(letter.reads.then_some(hint.enqueued_unix_ms)),
        cause.map_or("-".to_owned(), |it| name_of(&it.reason)),
        cause.map_or("-".to_owned(), |it| it.attempts.to_string()),
        cause.map_or("-".to_owned(), |it| it.error.clone()),
    ]
}
