//! `hh barrier`: a mark of what is pending now, to be waited for.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

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
/// A host waits no longer for one request.
pub const ONCE: Duration = Duration::from_secs(300);

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
        wait(output, &client, &barrier, *self.timeout)
    }
}

/// Waits for what a barrier marks, and prints what became of it.
pub fn wait(
    output: &mut Output,
    client: &Client,
    barrier: &Value,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        let once = left.min(ONCE);
        let body = json!({ "barrier": barrier, "timeout_ms": ms(once) });
        let state: Value = client.post_and_wait("/v1/barriers/wait", body, once)?;
        if left <= ONCE || state.get("waiting").is_none() {
            return told(output, &state);
        }
    }
}

/// Prints what became of what a barrier marks.
fn told(output: &mut Output, state: &Value) -> Result<ExitCode, Failure> {
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
