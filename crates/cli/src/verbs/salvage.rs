//! `hh salvage`: a store made of what is intact in a damaged one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use hinted_handoff::{OpenError, offline::ClosedStore};
use serde::Serialize;

use crate::{failure::Failure, output::Output};

/// Make a store in INTO of what is intact in the folder FROM.
///
/// FROM is a folder with sled's files in it, one that was moved aside or a generation of a store
/// that does not open, and is only read. Nobody may have it open. INTO is made, or empty. The new
/// store has the identity of the old one: only one of both may go on.
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
        let held = hold(&self.from)?;
        hinted_handoff::salvage(&self.from, &self.into)?;
        drop(held);
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

/// Keeps a store closed while it is read: the one whose generation `from` is, or `from` itself.
fn hold(from: &Path) -> Result<Option<ClosedStore>, Failure> {
    let whole = fs::canonicalize(from).map_err(|source| Failure::file("look at", from, source))?;
    let is_generation = whole
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"gen-"));
    // A folder that was moved aside is not what the store beside it has open.
    let held = match whole.parent() {
        Some(store) if is_generation => store,
        _ => whole.as_path(),
    };
    match ClosedStore::open(held) {
        Ok(store) => Ok(Some(store)),
        Err(error @ OpenError::Locked { .. }) => Err(error.into()),
        // One that is damaged is what this is for. Whether it can be salvaged the salvage says.
        Err(_) => Ok(None),
    }
}
