//! `hh letters`: the dead letters of a closed store, or of a host that runs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgGroup, Args, Subcommand};
use hinted_handoff::{DeadLetter, HintId, NodeId, Redriven, ShardId, offline::Selection};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, Host, HostIfAny},
    failure::{Failure, exit_if_damaged, told},
    letter::{Letter, OfHost, Shown},
    output::Output,
    progress::open,
    verbs::{
        nodes,
        operate::{confirm, waiting_for},
    },
};

/// Of a payload that a host shows: it shows no more.
const SHOWN_BYTES: usize = 1024 * 1024;

/// Look at dead letters, of a store that nobody has open or of a host that runs. At a host, send
/// them on or discard them.
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

/// List the dead letters of a store that nobody has open, or of a host that runs.
///
/// As JSON an array, with the same names for both. What is not known is null: a host does not look
/// at payloads for a list, and does not tell when letters were enqueued.
#[derive(Debug, Args)]
struct List {
    /// The store's directory, or a folder with sled's files in it. Without it the host is asked.
    dir: Option<PathBuf>,
    #[command(flatten)]
    host: HostIfAny,
    /// Only those of this node.
    #[arg(long)]
    node: Option<NodeId>,
    /// Only those of this shard.
    #[arg(long)]
    shard: Option<ShardId>,
}

/// Show one dead letter with its payload, as JSON.
///
/// Of a store that nobody has open, or of a host that runs. Exits with 1 if it does not read where
/// it should.
///
/// The names are those of the list, and format, redriven_from, payload_base64, and what a host's
/// decoder makes of it. Of a payload a host shows 1 MiB; cut says whether there is more.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
struct Show {
    /// The store's directory, or a folder with sled's files in it. Without it the host is asked.
    dir: Option<PathBuf>,
    /// Its id, as the list has it.
    id: HintId,
    #[command(flatten)]
    host: HostIfAny,
    /// The node that it is for; without it all nodes are asked for it.
    #[arg(long)]
    node: Option<NodeId>,
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
        let (letters, code) = match &self.dir {
            Some(dir) => self.of_store(dir)?,
            None => (self.of_host(&self.host.host()?)?, ExitCode::SUCCESS),
        };
        match output.is_json() {
            true => output.json(&letters)?,
            false => {
                let rows = letters.iter().map(|it| it.row(output)).collect();
                output.table(&Letter::COLUMNS, rows)?;
            }
        }
        Ok(code)
    }

    fn of_store(&self, dir: &Path) -> Result<(Vec<Letter>, ExitCode), Failure> {
        let store = open(dir)?;
        let mut selection = Selection::default();
        (selection.node, selection.shard) = (self.node, self.shard);
        let (mut letters, mut found) = (store.letters(&selection)?, Vec::new());
        for letter in letters.by_ref() {
            found.push(Letter::from(&letter?));
        }
        let findings = store.findings().iter().chain(letters.findings());
        Ok((found, told(findings)))
    }

    fn of_host(&self, host: &Host) -> Result<Vec<Letter>, Failure> {
        let client = Client::new(host)?;
        let mut letters = Vec::new();
        for node in with_letters(&client, self.node)? {
            all(&client, node, |letter| letters.push(letter))?;
        }
        letters.retain(|it| self.shard.is_none_or(|shard| it.shard == shard));
        Ok(letters)
    }
}

/// The node that is meant, or all that have dead letters.
fn with_letters(client: &Client, node: Option<NodeId>) -> Result<Vec<NodeId>, Failure> {
    if let Some(node) = node {
        return Ok(vec![node]);
    }
    let nodes = nodes::all(client)?.into_iter().map(|it| it.stats);
    let with_letters = nodes.filter(|it| it.dead_letters.hints > 0);
    let mut nodes: Vec<NodeId> = with_letters.map(|it| it.node).collect();
    nodes.sort();
    Ok(nodes)
}

#[derive(Deserialize)]
struct Page {
    letters: Vec<DeadLetter>,
    next: Option<HintId>,
}

/// Calls `each` with every dead letter of a node.
fn all(client: &Client, node: NodeId, mut each: impl FnMut(Letter)) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page: Page = client.get(&format!("/v1/nodes/{node}/letters?max=1000{after}"))?;
        page.letters.into_iter().for_each(|it| each(it.into()));
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(()),
        }
    }
}

impl Show {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let (found, code) = match &self.dir {
            Some(dir) => self.of_store(dir)?,
            None => self.of_host(&self.host.host()?)?,
        };
        let Some(shown) = found else {
            let text = format!("{} is no dead letter here", self.id);
            return Err(Failure::NotThere(text));
        };
        output.json(&shown)?;
        Ok(code)
    }

    fn of_store(&self, dir: &Path) -> Result<(Option<Shown>, ExitCode), Failure> {
        let store = open(dir)?;
        let mut selection = Selection::default();
        selection.node = self.node;
        selection.sequences = Some(self.id.sequence.0..=self.id.sequence.0);
        let mut letters = store.letters(&selection)?;
        while let Some(letter) = letters.next().transpose()? {
            if letter.hint.id == self.id {
                let queue = Some(self.id.queue);
                let findings = letters.findings().iter();
                let code = told(findings.filter(|it| it.queue == queue));
                return Ok((Some(Shown::from(&letter)), code));
            }
        }
        Ok((None, ExitCode::SUCCESS))
    }

    fn of_host(&self, host: &Host) -> Result<(Option<Shown>, ExitCode), Failure> {
        let client = Client::new(host)?;
        for node in with_letters(&client, self.node)? {
            let path = format!("/v1/nodes/{node}/letters/{}?bytes={SHOWN_BYTES}", self.id);
            match client.get::<OfHost>(&path) {
                Ok(shown) => return Ok((Some(shown.into()), ExitCode::SUCCESS)),
                Err(failure) if failure.is_problem("unknown-hint") => {}
                Err(failure) if failure.is_problem("damaged") => {
                    let mut found = None;
                    all(&client, node, |it| {
                        if it.id == self.id {
                            found = Some(Shown::damaged(it));
                        }
                    })?;
                    anstream::eprintln!("hh: {}", failure.line());
                    return Ok((found, exit_if_damaged(true)));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok((None, ExitCode::SUCCESS))
    }
}

/// Which dead letters of a node.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("letters").required(true).args(["ids", "all"])))]
struct Named {
    /// The node that they are for.
    node: NodeId,
    /// Their ids, as the list has them; not with --all.
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

/// Send dead letters of a node on once more, at a host that runs. Exits with 1 if some do not read,
/// and stay.
#[derive(Debug, Args)]
// clap puts the group first.
#[command(override_usage = "hh letters redrive [OPTIONS] --socket <PATH> <NODE> <IDS|--all>...")]
struct Redrive {
    #[command(flatten)]
    named: Named,
}

impl Redrive {
    fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.named.host)?;
        let path = format!("/v1/nodes/{}/letters/redrive", self.named.node);
        let redriven: Redriven = client.post(&path, self.named.body())?;
        output.json(&redriven)?;
        for id in &redriven.damaged {
            anstream::eprintln!("hh: {id} does not read, and stays a dead letter");
        }
        Ok(exit_if_damaged(!redriven.damaged.is_empty()))
    }
}

/// Discard dead letters of a node, at a host that runs. It is an error if none of them is there.
#[derive(Debug, Args)]
#[command(override_usage = "hh letters discard [OPTIONS] --socket <PATH> <NODE> <IDS|--all>...")]
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
        confirm(self.yes, &what, || waiting_for(&client, self.named.node))?;
        let path = format!("/v1/nodes/{}/letters/discard", self.named.node);
        let answer: Value = client.post(&path, self.named.body())?;
        let discarded = answer.pointer("/discarded/hints").and_then(Value::as_u64);
        if discarded == Some(0) && !self.named.all {
            let node = self.named.node;
            let text =
                format!("none of these is a dead letter of node {node}; see hh letters list");
            return Err(Failure::NotThere(text));
        }
        output.json(&answer)?;
        Ok(ExitCode::SUCCESS)
    }
}
