//! Verbs that change something at a host that runs: its replay, its hints.

use std::{process::ExitCode, time::Duration};

use clap::{ArgGroup, Args};
use hinted_handoff::{NodeId, NodeStats, ShardId};
use indicatif::HumanBytes;
use serde_json::{Map, Value, json};

use crate::{
    client::{Client, Host, LONG_WORK},
    failure::Failure,
    output::{Output, printable, whole_seconds},
    verbs::barrier,
};

/// One node, or all.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["node", "all"])))]
struct Which {
    /// The node's number; not with --all.
    node: Option<NodeId>,
    /// All nodes, those that are hinted for the first time later, too.
    #[arg(long)]
    all: bool,
}

impl Which {
    /// The path of a verb for it.
    fn path(&self, verb: &str) -> String {
        match self.node {
            Some(node) => format!("/v1/nodes/{node}/{verb}"),
            None => format!("/v1/{verb}"),
        }
    }
}

/// What to make of a node that the host does not know.
#[derive(Debug, Args)]
struct Unknown {
    /// Do it although nothing was ever hinted for the node.
    #[arg(long)]
    unknown: bool,
}

impl Unknown {
    /// Fails if the node is not known: its number may be a typo.
    fn check(&self, client: &Client, node: NodeId) -> Result<(), Failure> {
        match self.unknown {
            true => Ok(()),
            false => waiting_for(client, node).map(drop).map_err(or_unknown),
        }
    }
}

/// The same failure; of a node that is not known it says what to do.
fn or_unknown(failure: Failure) -> Failure {
    match failure.is_problem("unknown-node") {
        true => Failure::NotThere(format!(
            "{}; say --unknown to do it all the same",
            failure.text()
        )),
        false => failure,
    }
}

/// Pause replay: hints wait, and others are accepted.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    which: Which,
    /// Over restarts, too.
    #[arg(long)]
    lasting: bool,
    #[command(flatten)]
    host: Host,
}

impl Pause {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let pause = if self.lasting {
            "lasting"
        } else {
            "until_restart"
        };
        let body = json!({ "pause": pause });
        done(
            output,
            &Client::new(&self.host)?,
            &self.which.path("pause"),
            body,
        )
    }
}

/// Let replay go on.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    host: Host,
}

impl Resume {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        done(
            output,
            &Client::new(&self.host)?,
            &self.which.path("resume"),
            json!({}),
        )
    }
}

/// Wait until a node has all hints that are pending for it now. Exit status 1 if it has not.
#[derive(Debug, Args)]
pub struct Drain {
    /// The node's number.
    node: NodeId,
    /// How long.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    timeout: humantime::Duration,
    #[command(flatten)]
    unknown: Unknown,
    #[command(flatten)]
    host: Host,
}

impl Drain {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        self.unknown.check(&client, self.node)?;
        let barrier: Value = client.post("/v1/barriers", json!({ "nodes": [self.node] }))?;
        barrier::wait(output, &client, &barrier, *self.timeout)
    }
}

/// Stop or start making hints, for some nodes or for all, until the host is opened again.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whose").required(true).args(["nodes", "all"])))]
// clap puts the group first.
#[command(override_usage = "hh hinting [OPTIONS] --socket <PATH> <WHAT> <NODE...|--all>")]
pub struct Hinting {
    /// What to do.
    #[arg(value_parser = ["stop", "start"])]
    what: String,
    /// Numbers of nodes. Each must have been hinted for, else none is concerned.
    #[arg(value_name = "NODE")]
    nodes: Vec<NodeId>,
    /// All nodes, those that are hinted for the first time later, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    unknown: Unknown,
    #[command(flatten)]
    host: Host,
}

impl Hinting {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        if self.all {
            let path = format!("/v1/hinting/{}-hinting", self.what);
            return done(output, &client, &path, json!({}));
        }
        if self.unknown.unknown {
            for node in &self.nodes {
                let path = format!("/v1/nodes/{node}/by-hand/{}-hinting", self.what);
                client.post::<Value>(&path, json!({}))?;
            }
            return said(output, &json!({}));
        }
        let body = json!({ "nodes": self.nodes, "hinting": self.what == "start" });
        done(output, &client, "/v1/hinting", body).map_err(or_unknown)
    }
}

/// Hold direct writes to a node, so that they become hints, or release them.
#[derive(Debug, Args)]
pub struct Direct {
    /// What to do.
    #[arg(value_parser = ["hold", "release"])]
    what: String,
    /// The node that they are to.
    node: NodeId,
    #[command(flatten)]
    unknown: Unknown,
    #[command(flatten)]
    host: Host,
}

impl Direct {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        self.unknown.check(&client, self.node)?;
        let path = format!("/v1/nodes/{}/by-hand/{}-direct", self.node, self.what);
        done(output, &client, &path, json!({}))
    }
}

/// Discard pending hints of a node that are old, or of one shard. Those that are being sent stay.
#[derive(Debug, Args)]
pub struct Discard {
    /// The node that they are for.
    node: NodeId,
    /// Those that were enqueued at least so long ago.
    #[arg(long, value_name = "DURATION", required_unless_present = "shard")]
    older_than: Option<humantime::Duration>,
    /// Those of this shard.
    #[arg(long)]
    shard: Option<ShardId>,
    /// Do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: Host,
}

impl Discard {
    /// Which hints these are, in words.
    fn meant(&self) -> String {
        let age = self.older_than.map(|age| format!("is older than {age}"));
        let shard = self.shard.map(|shard| format!("is of shard {shard}"));
        let both: Vec<String> = age.into_iter().chain(shard).collect();
        both.join(" and ")
    }

    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let what = format!(
            "that is all that waits; of it only what {} is discarded",
            self.meant()
        );
        confirm(self.yes, &what, || waiting_for(&client, self.node))?;
        let path = format!("/v1/nodes/{}/hints/discard", self.node);
        let mut body = Map::new();
        if let Some(age) = self.older_than {
            body.insert("older_than_ms".to_owned(), ms(*age).into());
        }
        if let Some(shard) = self.shard {
            body.insert("shard".to_owned(), json!(shard));
        }
        let discarded: Value = client.post_and_wait(&path, body.into(), LONG_WORK)?;
        output.json(&discarded)?;
        Ok(ExitCode::SUCCESS)
    }
}

pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Has something done, and prints what the host says of it.
pub fn done(
    output: &mut Output,
    client: &Client,
    path: &str,
    body: Value,
) -> Result<ExitCode, Failure> {
    let answer: Value = client.post(path, body)?;
    said(output, &answer)
}

fn said(output: &mut Output, answer: &Value) -> Result<ExitCode, Failure> {
    match !output.is_json() && answer.as_object().is_some_and(Map::is_empty) {
        true => output.line("done")?,
        false => output.json(answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes on if what happens was said to be meant. Otherwise tells on standard error what it happens
/// to, and goes on only if that is nothing.
pub fn confirm(
    yes: bool,
    what: &str,
    seen: impl FnOnce() -> Result<Vec<String>, Failure>,
) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let seen = seen()?;
    if seen.is_empty() {
        return Ok(());
    }
    for line in seen {
        anstream::eprintln!("hh: {}", printable(&line));
    }
    Err(Failure::Usage(format!("{what}; say --yes to do it")))
}

/// What waits for a node, for people to read.
pub fn waiting(it: &NodeStats) -> String {
    let age = it.oldest_age.map(whole_seconds);
    let age = age.unwrap_or("not read yet".to_owned());
    let oldest = match it.pending.hints {
        0 => String::new(),
        _ => format!(", the oldest for {age}"),
    };
    format!(
        "node {}: {} hints wait ({}){oldest}; {} dead letters",
        it.node,
        it.pending.hints,
        HumanBytes(it.pending.bytes),
        it.dead_letters.hints
    )
}

/// The same, where the host is asked for it.
pub fn waiting_for(client: &Client, node: NodeId) -> Result<Vec<String>, Failure> {
    let it: NodeStats = client.get(&format!("/v1/nodes/{node}"))?;
    Ok(vec![waiting(&it)])
}
