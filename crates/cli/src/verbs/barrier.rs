//! `hh barrier`: a mark of what is pending now, to be waited for.

use std::{
    fs, io,
    path::{Path, PathBuf},
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
    #[arg(value_name = "NODE", required_unless_present = "barrier")]
    nodes: Vec<NodeId>,
    /// Wait until all of it is delivered.
    #[arg(long)]
    wait: bool,
    /// Wait for a barrier that was made before, as it was printed: a file, or standard input for
    /// `-`.
    #[arg(long, value_name = "FILE", requires = "wait", conflicts_with = "nodes")]
    barrier: Option<PathBuf>,
    /// How long.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    timeout: humantime::Duration,
    #[command(flatten)]
    host: Host,
}

impl Barrier {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        if let Some(file) = &self.barrier {
            return wait(output, &client, &read(file)?, *self.timeout);
        }
        let barrier: Value = client.post("/v1/barriers", json!({ "nodes": self.nodes }))?;
        if !self.wait {
            output.json(&barrier)?;
            return Ok(ExitCode::SUCCESS);
        }
        wait(output, &client, &barrier, *self.timeout)
    }
}

/// A barrier as it was printed.
fn read(file: &Path) -> Result<Value, Failure> {
    let text = match file.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    let text = text.map_err(|source| Failure::file("read", file, source))?;
    serde_json::from_str(&text).map_err(|error| {
        let file = file.display();
        Failure::Usage(format!(
            "{file} has no barrier that hh barrier printed: {error}"
        ))
    })
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
