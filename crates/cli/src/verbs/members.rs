//! Verbs that say who is in the cluster, at a host that runs.

use std::{collections::BTreeSet, process::ExitCode, time::Instant};

use clap::Args;
use hinted_handoff::NodeId;
use serde_json::{Value, json};

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
    verbs::{
        barrier, nodes,
        operate::{confirm, done, ms, waiting, waiting_for},
    },
};

/// Forget a node: once nothing is pending for it, or at once with what is pending. Or call that
/// off.
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
    /// Call off a removal that waits: the node stays.
    #[arg(long, conflicts_with = "discard_pending")]
    cancel: bool,
    /// Do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: Host,
}

impl Remove {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        if self.cancel {
            let path = format!("/v1/nodes/{}/cancel-removal", self.node);
            return done(output, &client, &path, json!({}));
        }
        let what = match self.discard_pending {
            true => "its hints and its dead letters are discarded",
            false => "its dead letters are discarded once its hints are delivered",
        };
        confirm(self.yes, what, || waiting_for(&client, self.node))?;
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
                removed => break removed.map_err(|it| self.goes_on(&client, it))?,
            }
        };
        output.json(&removed)?;
        Ok(ExitCode::SUCCESS)
    }

    /// What the host says of a removal that goes on, with the verbs of this program.
    fn goes_on(&self, client: &Client, mut failure: Failure) -> Failure {
        let is_waiting = failure.is_problem("not-drained");
        if let Failure::Refused { detail, .. } = &mut failure
            && is_waiting
            && let Ok(waiting) = waiting_for(client, self.node)
        {
            let (node, waiting) = (self.node, waiting.concat());
            *detail = format!(
                "{waiting}; its removal goes on: hh remove {node} --cancel calls it off, hh remove \
                 {node} --discard-pending discards what waits"
            );
        }
        failure
    }
}

/// Give the hints of a node to another name. Where that has a queue already, both become one.
#[derive(Debug, Args)]
pub struct Rename {
    /// The node as it is called by now.
    from: NodeId,
    /// What it is to be called.
    to: NodeId,
    /// Do it although that name has a queue.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: Host,
}

impl Rename {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let (from, to) = (self.from, self.to);
        let what = format!("the hints of node {from} go behind those of node {to}, for good");
        confirm(self.yes, &what, || self.both(&client))?;
        let path = format!("/v1/nodes/{from}/rename");
        done(output, &client, &path, json!({ "to": to }))
    }

    /// What waits for both, if the new name has a queue.
    fn both(&self, client: &Client) -> Result<Vec<String>, Failure> {
        let there = match waiting_for(client, self.to) {
            Err(failure) if failure.is_problem("unknown-node") => return Ok(Vec::new()),
            there => there?,
        };
        Ok([waiting_for(client, self.from)?, there].concat())
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
    /// Do it although some of these are not known, or hints wait for others.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    host: Host,
}

impl Retain {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let what = "all nodes that are not named are parked";
        confirm(self.yes, what, || self.doubtful(&client))?;
        let body = json!({ "nodes": self.nodes, "are_all": self.only });
        done(output, &client, "/v1/retain", body)
    }

    /// Nodes that are named and not known, and those that are parked with what waits for them.
    fn doubtful(&self, client: &Client) -> Result<Vec<String>, Failure> {
        let all = nodes::all(client)?;
        let known: BTreeSet<NodeId> = all.iter().map(|it| it.stats.node).collect();
        let unknown = self.nodes.iter().filter(|it| !known.contains(it));
        let mut seen: Vec<String> = unknown
            .map(|node| format!("node {node} is not known: nothing was ever hinted for it"))
            .collect();
        let parked = all.iter().map(|it| &it.stats).filter(|it| {
            let is_new = it.parked_since_unix_ms.is_none() && !self.nodes.contains(&it.node);
            is_new && it.pending.hints + it.dead_letters.hints > 0
        });
        seen.extend(parked.map(|it| format!("to be parked: {}", waiting(it))));
        Ok(seen)
    }
}
