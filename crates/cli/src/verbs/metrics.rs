//! `hh metrics`: what a scrape gets.

use std::{io::Write, process::ExitCode};

use clap::Args;

use crate::{
    client::{Client, Host},
    failure::Failure,
    output::Output,
};

/// Print the metrics of a host, as OpenMetrics text.
#[derive(Debug, Args)]
pub struct Metrics {
    #[command(flatten)]
    host: Host,
}

impl Metrics {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let text = Client::new(&self.host)?.text("/metrics")?;
        let written = output.writer().write_all(text.as_bytes());
        written.map_err(Failure::output)?;
        Ok(ExitCode::SUCCESS)
    }
}
