//! `hh barrier`: a mark of what is pending now, to be waited for.

use std::process::ExitCode;

use clap::Args;
use hinted_handoff::NodeId;
use serde_json::{Value, json};

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
    verbs::operate::ms,
};

const NOT_YET: u8 = 1;

/// Make a barrier of all that is pending for nodes now, or wait for it. Exit status 1 if it is not
/// delivered in time.
#[derive(Debug, Args)]
pub struct Barrier {
    /// The nodes' numbers.
    #[arg(required = true)]
    nodes: Vec<NodeId>,
    /// Wait until all of it is delivered.
    #[arg(long)]
    wait: bool,
    /// How long.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    timeout: humantime::Duration,
    #[command(flatten)]
    host: Host,
}

impl Barrier {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let barrier: Value = client.post("/v1/barriers", json!({ "nodes": self.nodes }))?;
        if !self.wait {
            output.json(&barrier)?;
            return Ok(ExitCode::SUCCESS);
        }
        let body = json!({ "barrier": barrier, "timeout_ms": ms(*self.timeout) });
        let state = client.post_and_wait("/v1/barriers/wait", body, *self.timeout)?;
        told(output, &state)
    }
}

/// Prints what became of what a barrier marks.
pub fn told(output: &mut Output, state: &Value) -> Result<ExitCode, Failure> {
    let is_delivered = state.as_str() == Some("delivered");
    match (output.is_json(), is_delivered) {
        (false, true) => output.line("delivered")?,
        _ => output.json(state)?,
    }
    Ok(match is_delivered {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_YET),
    })
}
