//! Verbs that change something at a host that runs: its nodes, its replay, its settings.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{ArgGroup, Args};
use hinted_handoff::{NodeId, NodeStats, ShardId};
use serde_json::{Map, Value, json};

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
    verbs::{barrier, settings},
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
        done(output, &self.host, &self.which.path("pause"), body)
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
        done(output, &self.host, &self.which.path("resume"), json!({}))
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
    host: Host,
}

impl Drain {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let barrier: Value = client.post("/v1/barriers", json!({ "nodes": [self.node] }))?;
        barrier::wait(output, &client, &barrier, *self.timeout)
    }
}

/// Forget a node: once nothing is pending for it, or at once with what is pending.
#[derive(Debug, Args)]
pub struct Remove {
    /// The node's number.
    node: NodeId,
    /// Discard what is pending instead of waiting for it.
    #[arg(long)]
    discard_pending: bool,
    /// How long to wait. The removal goes on when that is over.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    timeout: humantime::Duration,
    /// Do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: Host,
}

impl Remove {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let what = match self.discard_pending {
            true => "its hints and its dead letters are discarded",
            false => "its dead letters are discarded once its hints are delivered",
        };
        confirm(output, &client, self.node, what, self.yes)?;
        let path = format!("/v1/nodes/{}/remove", self.node);
        let started = Instant::now();
        let removed: Value = loop {
            let left = (*self.timeout).saturating_sub(started.elapsed());
            let once = left.min(barrier::ONCE);
            let body = json!({
                "discard_pending": self.discard_pending,
                "timeout_ms": ms(once),
            });
            match client.post_and_wait(&path, body, once) {
                Err(failure) if left > once && failure.is_problem("not-drained") => {}
                removed => break removed?,
            }
        };
        output.json(&removed)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Give the hints of a node to another name.
#[derive(Debug, Args)]
pub struct Rename {
    /// The node as it is called by now.
    from: NodeId,
    /// What it is to be called.
    to: NodeId,
    #[command(flatten)]
    host: Host,
}

impl Rename {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let path = format!("/v1/nodes/{}/rename", self.from);
        done(output, &self.host, &path, json!({ "to": self.to }))
    }
}

/// Say who is in the cluster: all other nodes are parked.
#[derive(Debug, Args)]
pub struct Retain {
    /// The nodes that are in it.
    #[arg(required = true)]
    nodes: Vec<NodeId>,
    /// These are all: nodes that are hinted for the first time later are parked, too.
    #[arg(long)]
    only: bool,
    #[command(flatten)]
    host: Host,
}

impl Retain {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let body = json!({ "nodes": self.nodes, "are_all": self.only });
        done(output, &self.host, "/v1/retain", body)
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
    /// Numbers of nodes. Of several each must have been hinted for, else none is concerned.
    #[arg(value_name = "NODE")]
    nodes: Vec<NodeId>,
    /// All nodes, those that are hinted for the first time later, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    host: Host,
}

impl Hinting {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let (path, body) = match self.nodes.as_slice() {
            [] => (format!("/v1/hinting/{}-hinting", self.what), json!({})),
            [node] => (
                format!("/v1/nodes/{node}/by-hand/{}-hinting", self.what),
                json!({}),
            ),
            nodes => (
                "/v1/hinting".to_owned(),
                json!({ "nodes": nodes, "hinting": self.what == "start" }),
            ),
        };
        done(output, &self.host, &path, body)
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
    host: Host,
}

impl Direct {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let path = format!("/v1/nodes/{}/by-hand/{}-direct", self.node, self.what);
        done(output, &self.host, &path, json!({}))
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
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let what = "those of its hints that are meant are discarded";
        confirm(output, &client, self.node, what, self.yes)?;
        let path = format!("/v1/nodes/{}/hints/discard", self.node);
        let mut body = Map::new();
        if let Some(age) = self.older_than {
            body.insert("older_than_ms".to_owned(), ms(*age).into());
        }
        if let Some(shard) = self.shard {
            body.insert("shard".to_owned(), json!(shard));
        }
        let wait = Duration::from_secs(300);
        let discarded: Value = client.post_and_wait(&path, body.into(), wait)?;
        output.json(&discarded)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Show the settings in effect, or change some until the host is opened again.
#[derive(Debug, Args)]
pub struct Set {
    /// Settings as a file of them has them; with nothing behind `=` a limit is taken away. Without
    /// any all are shown.
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    host: Host,
}

impl Set {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let mut changes = Map::new();
        for setting in &self.settings {
            let Some((name, value)) = setting.split_once('=') else {
                let text = format!("{setting}: write name=value");
                return Err(Failure::Usage(text));
            };
            let value = match value {
                "" => Value::Null,
                value => serde_json::from_str(value).unwrap_or(Value::String(value.to_owned())),
            };
            changes.insert(name.to_owned(), value);
        }
        let config: Value = match changes.is_empty() {
            true => client.get("/v1/config")?,
            false => client.post("/v1/config", changes.into())?,
        };
        settings::print(output, &config)?;
        Ok(ExitCode::SUCCESS)
    }
}

pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Has something done, and prints what the host says of it.
fn done(output: &mut Output, host: &Host, path: &str, body: Value) -> Result<ExitCode, Failure> {
    let answer: Value = Client::new(host)?.post(path, body)?;
    match !output.is_json() && answer.as_object().is_some_and(Map::is_empty) {
        true => output.line("done")?,
        false => output.json(&answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells on standard error what would go, and goes on only if that was said to be meant.
pub fn confirm(
    output: &Output,
    client: &Client,
    node: NodeId,
    what: &str,
    yes: bool,
) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let it: NodeStats = client.get(&format!("/v1/nodes/{node}"))?;
    let (hints, bytes) = (it.pending.hints, output.bytes(it.pending.bytes));
    let oldest = output.duration(it.oldest_age);
    let letters = it.dead_letters.hints;
    anstream::eprintln!(
        "hh: node {node}: {hints} hints wait ({bytes}), the oldest for {oldest}; {letters} dead \
         letters"
    );
    Err(Failure::Usage(format!("{what}; say --yes to do it")))
}
