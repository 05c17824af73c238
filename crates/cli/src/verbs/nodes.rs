//! `hh nodes`: what waits for each node, and why.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use hinted_handoff::{NodeId, NodeStats};
use serde::{Deserialize, Serialize};

use crate::{
    client::{Client, Host},
    failure::Failure,
    json::name_of,
    output::Output,
};

/// Nodes that a sentence names.
const SHOWN: usize = 5;

/// List the nodes of a host, or show one.
///
/// "by hand" has what somebody did to a node and has not taken back: no_hints, no hints are made
/// for it; held, direct writes to it become hints; leaving, it is removed once it is drained.
#[derive(Debug, Args)]
pub struct Nodes {
    /// Only this one, with all that is known of it.
    node: Option<NodeId>,
    /// What comes first.
    #[arg(long, value_enum, default_value_t = Order::Pending)]
    sort: Order,
    #[command(flatten)]
    host: Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// The deepest.
    Pending,
    /// The one with the oldest hint.
    Age,
    /// The lowest number.
    Node,
}

/// A node as the host tells of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Named {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(flatten)]
    pub stats: NodeStats,
}

#[derive(Deserialize)]
struct Page {
    nodes: Vec<Named>,
    next: Option<NodeId>,
}

/// All nodes of a host.
pub fn all(client: &Client) -> Result<Vec<Named>, Failure> {
    let mut nodes = Vec::new();
    let mut path = "/v1/nodes".to_owned();
    loop {
        let page: Page = client.get(&path)?;
        nodes.extend(page.nodes);
        match page.next {
            Some(next) => path = format!("/v1/nodes?after={next}"),
            None => return Ok(nodes),
        }
    }
}

/// Those of the nodes of which it is so, in words, if there are any.
pub fn named(nodes: &[Named], is_so: impl Fn(&NodeStats) -> bool) -> Option<String> {
    let found = nodes.iter().map(|it| &it.stats).filter(|it| is_so(it));
    let found: Vec<String> = found.map(|it| it.node.to_string()).collect();
    let shown = found.get(..SHOWN).unwrap_or(&found).join(", ");
    match found.len() {
        0 => None,
        1 => Some(format!("node {shown}")),
        all if all > SHOWN => Some(format!("nodes {shown} and {} more", all - SHOWN)),
        _ => Some(format!("nodes {shown}")),
    }
}

impl Nodes {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        if let Some(node) = self.node {
            let node: serde_json::Value = client.get(&format!("/v1/nodes/{node}"))?;
            output.json(&node)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut nodes = all(&client)?;
        nodes.sort_by_key(|it| match self.sort {
            Order::Pending => std::cmp::Reverse(it.stats.pending.hints),
            Order::Age => {
                let age = it.stats.oldest_age.map_or(0, |age| age.as_millis() as u64);
                std::cmp::Reverse(age)
            }
            Order::Node => std::cmp::Reverse(u64::MAX - it.stats.node.0),
        });
        if output.is_json() {
            output.json(&nodes)?;
            return Ok(ExitCode::SUCCESS);
        }
        let header = [
            "node",
            "name",
            "state",
            "pending",
            "bytes",
            "oldest",
            "rate/s",
            "done in",
            "letters",
            "by hand",
            "last error",
        ];
        let rows = nodes.iter().map(|it| row(output, it)).collect();
        output.table(&header, rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(output: &Output, node: &Named) -> Vec<String> {
    let it = &node.stats;
    vec![
        it.node.to_string(),
        node.name.clone().unwrap_or("-".to_owned()),
        name_of(&it.state),
        it.pending.hints.to_string(),
        output.bytes(it.pending.bytes),
        output.duration(it.oldest_age),
        format!("{:.0}", it.delivery_rate),
        output.duration(it.caught_up_in),
        it.dead_letters.hints.to_string(),
        by_hand(it),
        it.last_error.clone().unwrap_or("-".to_owned()),
    ]
}

/// What somebody did to it, and has not taken back; its state tells of a pause.
fn by_hand(it: &NodeStats) -> String {
    let done = [
        (!it.hinting, "no_hints"),
        (it.direct.held_since_unix_ms.is_some(), "held"),
        (it.leaving, "leaving"),
    ];
    let done = done.iter().filter(|(is_so, _)| *is_so);
    let done: Vec<&str> = done.map(|(_, name)| *name).collect();
    match done.is_empty() {
        true => "-".to_owned(),
        false => done.join(","),
    }
}
