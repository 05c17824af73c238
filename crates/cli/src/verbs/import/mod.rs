//! `hh import`: puts hints and dead letters of an export into a store, or into a host that runs.

mod host;
mod lines;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use hinted_handoff::offline::{self, ImportTally, Importer};
use serde::Serialize;

use self::{host::HostImport, lines::Lines};
use crate::{client::HostIfAny, failure::Failure, output::Output};

/// Put the hints and dead letters of an export into a store that nobody has open, or with --online
/// into a host that runs.
///
/// A store is made if there is none. Node, shard, order, payload, format, age, lifetime and the
/// id of the write are kept; each hint gets a new id. It stops at the first line that is no hint,
/// and at the first error, and says how much of the input is in the store then; that comes twice if
/// all is imported again.
#[derive(Debug, Args)]
pub struct Import {
    /// The store's directory, but with --online; and JSON lines as `hh export` writes them,
    /// standard input if that is left out or `-`.
    #[arg(value_names = ["DIR", "FILE"], num_args = 0..=2)]
    places: Vec<PathBuf>,
    /// Into the host at --socket: behind what waits there, within its limits.
    #[arg(long)]
    online: bool,
    /// With --online, write a line for each hint that has a new id: its old one and its new one.
    #[arg(long, value_name = "FILE", requires = "online")]
    ids: Option<PathBuf>,
    /// Only check the input, and say how much it is.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    host: HostIfAny,
}

#[derive(Debug, Default, Serialize)]
struct Imported {
    /// Then nothing was stored, and this is what would be.
    dry_run: bool,
    /// Whether it came to the end of the input.
    is_complete: bool,
    imported_hints: u64,
    imported_dead_letters: u64,
    imported_payload_bytes: u64,
}

impl Import {
    pub fn run(self, output: &mut Output) -> Result<ExitCode, Failure> {
        let (into, file) = self.places()?;
        let lines = Lines::of(&file)?;
        let (tally, ended) = match into {
            _ if self.dry_run => check(lines),
            Some(dir) => import(&dir, lines)?,
            None => self.import_online(lines)?,
        };
        let imported = Imported {
            dry_run: self.dry_run,
            is_complete: ended.is_ok(),
            imported_hints: tally.hints,
            imported_dead_letters: tally.dead_letters,
            imported_payload_bytes: tally.bytes,
        };
        if ended.is_err() && !self.dry_run {
            let hints = tally.hints + tally.dead_letters;
            // A host may have stored more than it said.
            let is_exact = !self.online || matches!(ended, Err(Failure::Input { .. }));
            let at_least = if is_exact { "" } else { "at least " };
            anstream::eprintln!("hh: {at_least}{hints} hints of the input are in the store");
        }
        print(output, &imported)?;
        ended.map(|()| ExitCode::SUCCESS)
    }

    /// The directory, if it is one that is meant, and the file.
    fn places(&self) -> Result<(Option<PathBuf>, PathBuf), Failure> {
        let mut places = self.places.iter().cloned();
        let into = match self.online {
            true => None,
            false => Some(places.next().ok_or_else(|| {
                let text = "name the directory of a store that nobody has open, or say --online";
                Failure::Usage(text.to_owned())
            })?),
        };
        let file = places.next().unwrap_or_else(|| PathBuf::from("-"));
        match places.next() {
            Some(more) => {
                let text = format!("{}: with --online name the input alone", more.display());
                Err(Failure::Usage(text))
            }
            None => Ok((into, file)),
        }
    }

    fn import_online(&self, lines: Lines) -> Result<Ended, Failure> {
        let missing = "name the --socket of the host that is to have the hints";
        let host = self.host.host_or(missing)?;
        HostImport::new(&host, self.ids.as_deref())?.run(lines)
    }
}

/// What was stored, and how it ended.
type Ended = (ImportTally, Result<(), Failure>);

fn note(tally: &mut ImportTally, import: &offline::Import) {
    tally.bytes += import.payload.len() as u64;
    match import.dead {
        Some(_) => tally.dead_letters += 1,
        None => tally.hints += 1,
    }
}

fn next(lines: &mut Lines) -> Result<Option<offline::Import>, Failure> {
    let Some((record, _)) = lines.next()? else {
        return Ok(None);
    };
    let import = record.into_import().map_err(|why| lines.wrong(why))?;
    Ok(Some(import))
}

fn check(mut lines: Lines) -> Ended {
    let mut tally = ImportTally::default();
    let ended = loop {
        match next(&mut lines) {
            Ok(Some(import)) => note(&mut tally, &import),
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    (tally, ended)
}

fn import(dir: &std::path::Path, mut lines: Lines) -> Result<Ended, Failure> {
    let mut importer = Importer::open(dir)?;
    let pushed = loop {
        match next(&mut lines) {
            Ok(Some(import)) => match importer.push(import) {
                Ok(()) => {}
                Err(error) => break Err(error.into()),
            },
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    // What was handed in before may be stored still.
    let settled = importer.settle();
    let tally = importer.tally();
    let closed = importer.finish();
    let ended = pushed
        .and(settled.map_err(Failure::from))
        .and(closed.map(drop).map_err(Failure::from));
    Ok((tally, ended))
}

fn print(output: &mut Output, imported: &Imported) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(imported);
    }
    let bytes = output.bytes(imported.imported_payload_bytes);
    output.pairs(&[
        ("imported hints", imported.imported_hints.to_string()),
        ("dead letters", imported.imported_dead_letters.to_string()),
        ("payload bytes", bytes),
    ])
}
