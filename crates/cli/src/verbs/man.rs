//! `hh man`: the manual pages.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory};
use serde_json::json;

use crate::{Arguments, failure::Failure, output::Output};

/// Write the manual pages into a directory: hh.1, and one for each verb.
#[derive(Debug, Args)]
pub struct Man {
    /// An existing directory.
    dir: PathBuf,
}

impl Man {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let made = clap_mangen::generate_to(Arguments::command(), &self.dir);
        made.map_err(|source| Failure::file("write manual pages to", &self.dir, source))?;
        if output.is_json() {
            output.json(&json!({ "written_to": self.dir }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
