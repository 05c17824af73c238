//! `hh peek`: the next hints of a node, which stay where they are.

use std::process::ExitCode;

use clap::Args;
use hinted_handoff::{HintId, NodeId};
use serde_json::Value;

use crate::{
    client::{Client, Host},
    failure::Failure,
    json::{number, text},
    output::Output,
};

/// Show the next hints of a node. They stay where they are.
#[derive(Debug, Args)]
pub struct Peek {
    /// The node that they are for.
    node: NodeId,
    /// Those behind this one.
    #[arg(long, value_name = "ID")]
    after: Option<HintId>,
    /// At most so many.
    #[arg(long, default_value_t = 20, value_name = "HINTS")]
    max: u64,
    #[command(flatten)]
    host: Host,
}

impl Peek {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let (node, max) = (self.node, self.max);
        let after = self
            .after
            .map_or(String::new(), |id| format!("&after={id}"));
        let hints: Value = client.get(&format!("/v1/nodes/{node}/hints?max={max}{after}"))?;
        if output.is_json() {
            output.json(&hints)?;
            return Ok(ExitCode::SUCCESS);
        }
        let all = hints.get("hints").and_then(Value::as_array);
        let rows = all.into_iter().flatten().map(|it| {
            let decoded = it.get("decoded").and_then(Value::as_str);
            vec![
                text(it, "id"),
                number(it, "shard").to_string(),
                output.time(Some(number(it, "enqueued_unix_ms"))),
                output.bytes(number(it, "payload_bytes")),
                decoded.map_or_else(|| text(it, "payload"), str::to_owned),
            ]
        });
        let rows = rows.collect();
        output.table(&["id", "shard", "enqueued", "bytes", "payload"], rows)?;
        Ok(ExitCode::SUCCESS)
    }
}
