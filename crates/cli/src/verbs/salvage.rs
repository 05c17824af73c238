//! `hh salvage`: a store made of what is intact in a damaged one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use hinted_handoff::offline::{ClosedStore, HeldStore, Severity};
use serde::Serialize;

use crate::{
    failure::{Failure, told},
    output::Output,
    progress::Progress,
};

/// Make a store in INTO of what is intact in the folder FROM.
///
/// FROM is a folder with sled's files in it, one that was moved aside or a generation of a store
/// that does not open, and is only read. Nobody may have it open. INTO is made, or empty. The new
/// store has the identity of the old one: only one of both may go on. Every record of it is read:
/// what is printed is what INTO gives. Exits with 1 if something is missing.
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
    /// Those that read, as the dead letters.
    pending_hints: u64,
    pending_bytes: u64,
    dead_letters: u64,
    /// Hints and dead letters that are known to be missing.
    lost_hints: u64,
    /// Whether FROM was closed. If it was not, nothing tells whether the end of a queue is there.
    is_clean: bool,
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
        let progress = Progress::of_bytes("verify");
        let set = |done, total| progress.set(done, total);
        let store = ClosedStore::open_with(&self.into, set)?;
        let verified = store.verify(set)?;
        drop(progress);
        let lost = verified.findings.iter();
        let lost = lost.filter(|it| it.severity == Severity::Lost);
        let salvaged = Salvaged {
            store: store.id().to_string(),
            pending_hints: verified.pending.hints,
            pending_bytes: verified.pending.bytes,
            dead_letters: verified.dead_letters.hints,
            lost_hints: lost.map(|it| it.hints).sum(),
            is_clean: verified.is_clean,
        };
        match output.is_json() {
            true => output.json(&salvaged)?,
            false => output.pairs(&[
                ("store", salvaged.store.clone()),
                ("pending hints", salvaged.pending_hints.to_string()),
                ("pending bytes", output.bytes(salvaged.pending_bytes)),
                ("dead letters", salvaged.dead_letters.to_string()),
                ("lost hints", salvaged.lost_hints.to_string()),
            ])?,
        }
        if !verified.is_clean {
            anstream::eprintln!(
                "hh: it was not closed, or does not say so: what was written last may be missing"
            );
        }
        Ok(told(&verified.findings))
    }
}

/// Keeps a store closed while it is read, damaged as it may be: the one whose generation `from` is,
/// and `from` itself.
fn hold(from: &Path) -> Result<Vec<HeldStore>, Failure> {
    let whole = fs::canonicalize(from).map_err(|source| Failure::file("look at", from, source))?;
    let is_generation = whole
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"gen-"));
    // A folder that was moved aside is not what the store beside it has open.
    let store = whole.parent().filter(|_| is_generation);
    let held = store.into_iter().chain([whole.as_path()]);
    held.map(|dir| Ok(HeldStore::hold(dir)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use hinted_handoff::{Config, OpenError, internals::Store};

    use super::*;

    #[test]
    fn a_store_that_does_not_open_for_damage_is_kept_closed_while_it_is_read() {
        for (damaged, content) in [("gen-000001/db", ""), ("CURRENT", "none of them")] {
            let dir = tempfile::tempdir().unwrap();
            let store = dir.path().join("store");
            let mut config = Config::new(&store);
            config.min_free_disk = 0;
            let open = || Store::open(&config, Box::new(|_| {}));
            open().unwrap().close().unwrap();
            fs::write(store.join(damaged), content).unwrap();
            let held = hold(&store.join("gen-000001")).unwrap();
            let opened = open();
            let is_refused = matches!(opened, Err(OpenError::Locked { .. }));
            assert!(is_refused, "{damaged}: {opened:?}");
            drop(held);
            let lock = File::open(store.join("LOCK")).unwrap();
            assert!(lock.try_lock().is_ok(), "{damaged}: by what was held");
        }
    }
}
