//! `hh metrics`: what a scrape gets.

use std::process::ExitCode;

use clap::Args;

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
};

/// Print the metrics of a host, as OpenMetrics text. With --json that text is in a document.
#[derive(Debug, Args)]
pub struct Metrics {
    #[command(flatten)]
    host: Host,
}

impl Metrics {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let text = Client::new(&self.host)?.text("/metrics")?;
        output.text("openmetrics", &text)?;
        Ok(ExitCode::SUCCESS)
    }
}
