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
/// in which it becomes a hint of all nodes that are named. Exit status 1 if hints of it stay; none
/// leaves while some are being sent still after --timeout: run this again.
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
        if self.to.contains(&self.from) {
            let text = "--to names the node whose hints they are; name their new owners";
            return Err(Failure::Usage(text.to_owned()));
        }
        let client = Client::new(&self.host)?;
        let node = format!("/v1/nodes/{}", self.from);
        let pause = json!({ "pause": "lasting" });
        let _: Value = client.post(&format!("{node}/pause"), pause)?;
        let done = self.once_paused(&client, &node);
        if !matches!(done, Ok((_, 0))) {
            let from = self.from;
            anstream::eprintln!("hh: node {from} is paused; resume it, or run this again");
        }
        let (rehinted, sending) = done?;
        match output.is_json() {
            true => output.json(&rehinted)?,
            false => output.pairs(&[
                ("rehinted", amount(output, rehinted.rehinted)),
                ("stays", amount(output, rehinted.stays)),
            ])?,
        }
        // Of other shards some may stay.
        let stays = rehinted.stays.hints > 0 && self.shard.is_empty();
        match stays || sending > 0 {
            true => Ok(ExitCode::from(1)),
            false => Ok(ExitCode::SUCCESS),
        }
    }

    /// Gives them away unless some are being sent still: those that leave would come before these
    /// at their owners if their sends fail. Says how many are.
    fn once_paused(&self, client: &Client, node: &str) -> Result<(Rehinted, u64), Failure> {
        let began = Instant::now();
        let sending = loop {
            let sending = client.get::<NodeStats>(node)?.in_flight;
            if sending == 0 || began.elapsed() >= *self.timeout {
                break sending;
            }
            thread::sleep(LOOK_EVERY);
        };
        let rehinted = match sending {
            0 => {
                let shards = Some(&self.shard).filter(|shards| !shards.is_empty());
                let body = json!({ "to": self.to, "shards": shards });
                let path = format!("{node}/rehint");
                client
                    .post_and_wait::<Told>(&path, body, LONG_WORK)?
                    .rehinted
            }
            _ => {
                let (from, timeout) = (self.from, self.timeout);
                anstream::eprintln!(
                    "hh: of node {from} {sending} hints are being sent still after {timeout}, so \
                     nothing was given away: hints whose sends fail would reach their new owners \
                     behind newer ones"
                );
                Amount::default()
            }
        };
        let stays = client.get::<NodeStats>(node)?.pending;
        Ok((Rehinted { rehinted, stays }, sending))
    }
}

fn amount(output: &Output, amount: Amount) -> String {
    format!("{} ({})", amount.hints, output.bytes(amount.bytes))
}
