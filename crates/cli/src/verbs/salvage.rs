//! `hh salvage`: a store made of what is intact in a damaged one.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use hinted_handoff::offline::ClosedStore;
use serde::Serialize;

use crate::{failure::Failure, output::Output};

/// Make a store in INTO of what is intact in the folder FROM.
///
/// FROM is a folder with sled's files in it, one that was moved aside or a generation of a store
/// that does not open, and is only read. INTO is made, or empty. The new store has the identity of
/// the old one.
#[derive(Debug, Args)]
pub struct Salvage {
    /// The folder with the file `db` in it.
    from: PathBuf,
    /// Where the store is made.
    into: PathBuf,
}

#[derive(Debug, Serialize)]
struct Salvaged {
    store: String,
    pending_hints: u64,
    pending_bytes: u64,
    dead_letters: u64,
}

impl Salvage {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        if !self.from.join("db").is_file() {
            let from = self.from.display();
            return Err(Failure::Usage(format!(
                "{from} has no file db in it; name the folder of a generation, such as \
                 {from}/gen-000001"
            )));
        }
        hinted_handoff::salvage(&self.from, &self.into)?;
        let info = ClosedStore::open(&self.into)?.info()?;
        let salvaged = Salvaged {
            store: info.store.to_string(),
            pending_hints: info.pending.hints,
            pending_bytes: info.pending.bytes,
            dead_letters: info.dead_letters.hints,
        };
        match output.is_json() {
            true => output.json(&salvaged)?,
            false => output.pairs(&[
                ("store", salvaged.store.clone()),
                ("pending hints", salvaged.pending_hints.to_string()),
                ("pending bytes", output.bytes(salvaged.pending_bytes)),
                ("dead letters", salvaged.dead_letters.to_string()),
            ])?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
