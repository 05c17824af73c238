//! `hh events`: what happens, as it happens.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
};

/// Tell what happens at a host, until it is shut down: a line of JSON an event.
#[derive(Debug, Args)]
pub struct Events {
    /// End after so many.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    #[command(flatten)]
    host: Host,
}

impl Events {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.host)?;
        let mut left = self.max.unwrap_or(u64::MAX);
        let told = client.lines("/v1/events", |line| {
            // What server-sent events have besides is for browsers.
            let Some(event) = line.trim_end().strip_prefix("data: ") else {
                return Ok(());
            };
            let event: Value = serde_json::from_str(event).map_err(|error| Failure::Answer {
                path: "/v1/events".to_owned(),
                why: error.to_string(),
            })?;
            output.line(&event.to_string())?;
            output.finish()?;
            left = left.saturating_sub(1);
            match left {
                0 => Err(Failure::Enough),
                _ => Ok(()),
            }
        });
        match told {
            Ok(()) | Err(Failure::Enough) => Ok(ExitCode::SUCCESS),
            Err(failure) => Err(failure),
        }
    }
}
