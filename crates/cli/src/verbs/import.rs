//! `hh import`: puts hints and dead letters of an export into a store.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use hinted_handoff::offline::{ImportTally, Importer};
use serde::Serialize;

use crate::{failure::Failure, output::Output, record::Record};

/// A payload has 64 MiB at most, and base64 makes it a third longer.
const LINE_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// Put the hints and dead letters of an export into a store that nobody has open.
///
/// The store is made if there is none. Node, shard, order, payload, format, age, lifetime and the
/// id of the write are kept; each hint gets a new id. It stops at the first line that is no hint,
/// and at the first error, and says how much of the input is in the store then; that comes twice if
/// all is imported again.
#[derive(Debug, Args)]
pub struct Import {
    /// The store's directory.
    dir: PathBuf,
    /// JSON lines as `hh export` writes them; standard input if it is left out or `-`.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Only check the input, and say how much it is.
    #[arg(long)]
    dry_run: bool,
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
        let input: Box<dyn Read> = match self.file == Path::new("-") {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(&self.file).map_err(|source| self.unread(source))?),
        };
        let lines = Lines {
            from: BufReader::with_capacity(1 << 18, input),
            number: 0,
        };
        let (tally, ended) = match self.dry_run {
            true => self.check(lines),
            false => self.import(lines)?,
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
            anstream::eprintln!("hh: {hints} hints of the input are in the store");
        }
        print(output, &imported)?;
        ended.map(|()| ExitCode::SUCCESS)
    }

    fn unread(&self, source: io::Error) -> Failure {
        Failure::file("read", &self.file, source)
    }

    fn check(&self, mut lines: Lines) -> (ImportTally, Result<(), Failure>) {
        let mut tally = ImportTally::default();
        let ended = loop {
            match lines.next(self) {
                Ok(Some(import)) => {
                    tally.bytes += import.payload.len() as u64;
                    match import.dead {
                        Some(_) => tally.dead_letters += 1,
                        None => tally.hints += 1,
                    }
                }
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        (tally, ended)
    }

    fn import(&self, mut lines: Lines) -> Result<(ImportTally, Result<(), Failure>), Failure> {
        let mut importer = Importer::open(&self.dir)?;
        let pushed = loop {
            match lines.next(self) {
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

struct Lines {
    from: BufReader<Box<dyn Read>>,
    number: u64,
}

impl Lines {
    fn next(&mut self, verb: &Import) -> Result<Option<hinted_handoff::offline::Import>, Failure> {
        loop {
            let mut line = Vec::new();
            let mut bounded = self.from.by_ref().take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut line);
            if read.map_err(|source| verb.unread(source))? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line_number = self.number;
            let wrong = |why: String| Failure::Input {
                line: line_number,
                why,
            };
            if line.len() as u64 == LINE_BYTES_MAX {
                return Err(wrong(format!("it is over {LINE_BYTES_MAX} bytes long")));
            }
            let record = serde_json::from_slice::<Record>(&line);
            let record = record.map_err(|error| wrong(error.to_string()))?;
            return record.into_import().map(Some).map_err(wrong);
        }
    }
}
