//! `hh export`: hints and dead letters of a closed store, as JSON lines or as files.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use hinted_handoff::{
    NodeId, ShardId,
    offline::{ClosedHint, ClosedStore, Finding, Selection},
};
use serde::Serialize;

use crate::{
    failure::{Failure, told},
    output::Output,
    progress::{Progress, open},
    record::LineWriter,
};

/// Write the hints and dead letters of a store that nobody has open.
///
/// As JSON lines on standard output, payloads in base64; `hh import` reads them, and --json changes
/// nothing. Or, with --raw, as one file a payload; then how many is printed.
///
/// Nothing in the store's directory is changed. What does not read is passed over; of dead letters
/// so is, but with --raw, what does not say how it became one. What is wrong with the store is told
/// on standard error; this exits with 1 if something is damaged or lost.
#[derive(Debug, Args)]
pub struct Export {
    /// The store's directory, or a folder with sled's files in it.
    dir: PathBuf,
    /// Only what is for this node.
    #[arg(long)]
    node: Option<NodeId>,
    /// Only what is of this shard.
    #[arg(long)]
    shard: Option<ShardId>,
    /// Only what has this sequence in its queue, or a higher one.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// Only what has this sequence in its queue, or a lower one.
    #[arg(long, value_name = "SEQUENCE", default_value_t = u64::MAX)]
    to: u64,
    /// Pending hints, dead letters, or both.
    #[arg(long, value_enum, default_value_t = What::All)]
    only: What,
    /// Write each payload to a file of its own in this directory, which must not exist:
    /// hints/NODE/SHARD/QUEUE-SEQUENCE, and letters/ in the same way.
    #[arg(long, value_name = "DIR")]
    raw: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Hints,
    Letters,
    All,
}

/// What was written to files.
#[derive(Debug, Default, Serialize)]
struct Exported {
    exported_hints: u64,
    exported_dead_letters: u64,
    exported_payload_bytes: u64,
}

impl Export {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let store = open(&self.dir)?;
        if let Some(raw) = &self.raw {
            fs::create_dir(raw).map_err(|source| Failure::file("create", raw, source))?;
        }
        let mut selection = Selection::default();
        selection.node = self.node;
        selection.shard = self.shard;
        selection.sequences = Some(self.from..=self.to);
        let mut findings = store.findings().to_vec();
        let mut exported = Exported::default();
        if self.only != What::Letters {
            findings.extend(self.hints(&store, &selection, output, &mut exported)?);
        }
        if self.only != What::Hints {
            findings.extend(self.letters(&store, &selection, output, &mut exported)?);
        }
        if self.raw.is_some() {
            exported.print(output)?;
        }
        Ok(told(&findings))
    }

    fn hints(
        &self,
        store: &ClosedStore,
        selection: &Selection,
        output: &mut Output,
        exported: &mut Exported,
    ) -> Result<Vec<Finding>, Failure> {
        let progress = Progress::of_bytes("hints");
        let (mut done, total) = (0, store.info()?.pending.bytes);
        let (mut hints, mut lines) = (store.hints(selection), LineWriter::default());
        for hint in hints.by_ref() {
            let hint = hint?;
            done += hint.payload.len() as u64;
            progress.set(done.min(total), total);
            match &self.raw {
                Some(raw) => {
                    write_raw(&raw.join("hints"), &hint)?;
                    exported.exported_hints += 1;
                    exported.exported_payload_bytes += hint.payload.len() as u64;
                }
                None => {
                    let written = lines.hint(output.writer(), &hint);
                    written.map_err(Failure::output)?;
                }
            }
        }
        Ok(hints.findings().to_vec())
    }

    fn letters(
        &self,
        store: &ClosedStore,
        selection: &Selection,
        output: &mut Output,
        exported: &mut Exported,
    ) -> Result<Vec<Finding>, Failure> {
        let (mut letters, mut lines) = (store.letters(selection)?, LineWriter::default());
        for letter in letters.by_ref() {
            let letter = letter?;
            if !letter.reads {
                continue;
            }
            match &self.raw {
                Some(raw) => {
                    write_raw(&raw.join("letters"), &letter.hint)?;
                    exported.exported_dead_letters += 1;
                    exported.exported_payload_bytes += letter.hint.payload.len() as u64;
                }
                // An import refuses one that does not say how it became one.
                None if letter.cause.is_none() => {}
                None => {
                    let written = lines.letter(output.writer(), &letter);
                    written.map_err(Failure::output)?;
                }
            }
        }
        Ok(letters.findings().to_vec())
    }
}

impl Exported {
    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.json(self);
        }
        output.pairs(&[
            ("exported hints", self.exported_hints.to_string()),
            ("dead letters", self.exported_dead_letters.to_string()),
            ("payload bytes", output.bytes(self.exported_payload_bytes)),
        ])
    }
}

fn write_raw(into: &Path, hint: &ClosedHint) -> Result<(), Failure> {
    let folder = into
        .join(hint.node.to_string())
        .join(hint.shard.to_string());
    fs::create_dir_all(&folder).map_err(|source| Failure::file("create", &folder, source))?;
    // Names sort as the hints do.
    let name = format!("{:020}-{:020}", hint.id.queue.0, hint.id.sequence.0);
    let path = folder.join(name);
    let written = File::create_new(&path).and_then(|mut it| it.write_all(&hint.payload));
    written.map_err(|source| Failure::file("write", &path, source))
}
