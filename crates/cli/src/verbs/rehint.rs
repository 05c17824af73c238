//! `hh rehint`: gives the hints of a node to other nodes.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use hinted_handoff::{Amount, NodeId, NodeStats, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    client::{Client, Host, LONG_WORK},
    failure::Failure,
    output::Output,
};

/// How often is asked whether something is being sent still.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Give the pending hints of a node to its shards' new owners, after a change of topology.
///
/// The node is paused first, and stays so: remove it, or resume it. Each hint leaves it in the step
/// in which it becomes a hint of all nodes that are named. Exit status 1 if hints of it stay, such
/// as one that is being sent: say it again.
#[derive(Debug, Args)]
pub struct Rehint {
    /// The node whose hints they are.
    from: NodeId,
    /// The nodes that are to have them, each all of them.
    #[arg(long, value_name = "NODE", value_delimiter = ',', required = true)]
    to: Vec<NodeId>,
    /// Of these shards only, such as those of which a node is the new owner.
    #[arg(long, value_name = "SHARD", value_delimiter = ',')]
    shard: Vec<ShardId>,
    /// How long to wait for what is being sent.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    timeout: humantime::Duration,
    #[command(flatten)]
    host: Host,
}

#[derive(Debug, Deserialize)]
struct Told {
    rehinted: Amount,
}

/// What became of the hints of the node.
#[derive(Debug, Serialize)]
struct Rehinted {
    rehinted: Amount,
    stays: Amount,
}

impl Rehint {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let node = format!("/v1/nodes/{}", self.from);
        let pause = json!({ "pause": "lasting" });
        let _: Value = client.post(&format!("{node}/pause"), pause)?;
        let by = Instant::now() + *self.timeout;
        while client.get::<NodeStats>(&node)?.in_flight > 0 && Instant::now() < by {
            thread::sleep(LOOK_EVERY);
        }
        let shards = Some(&self.shard).filter(|shards| !shards.is_empty());
        let body = json!({ "to": self.to, "shards": shards });
        let told: Told = client.post_and_wait(&format!("{node}/rehint"), body, LONG_WORK)?;
        let stays = client.get::<NodeStats>(&node)?.pending;
        let rehinted = Rehinted {
            rehinted: told.rehinted,
            stays,
        };
        match output.is_json() {
            true => output.json(&rehinted)?,
            false => output.pairs(&[
                ("rehinted", amount(output, told.rehinted)),
                ("stays", amount(output, stays)),
            ])?,
        }
        // Of other shards some may.
        match stays.hints > 0 && self.shard.is_empty() {
            true => Ok(ExitCode::from(1)),
            false => Ok(ExitCode::SUCCESS),
        }
    }
}

fn amount(output: &Output, amount: Amount) -> String {
    format!("{} ({})", amount.hints, output.bytes(amount.bytes))
}
