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

/// List the nodes of a host, or show one.
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
        it.last_error.clone().unwrap_or("-".to_owned()),
    ]
}
