//! `hh man`: the manual pages.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory};

use crate::{Arguments, failure::Failure, output::Output};

/// Write the manual pages into a directory: hh.1, and one for each verb.
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Man {
    /// An existing directory.
    dir: PathBuf,
}

impl Man {
    pub fn run(self, _output: &mut Output) -> Result<ExitCode, Failure> {
        let made = clap_mangen::generate_to(Arguments::command(), &self.dir);
        made.map_err(|source| Failure::File {
            action: "write manual pages to",
            file: self.dir.display().to_string(),
            source,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
