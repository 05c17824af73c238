//! The lines of an export, read one by one.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{failure::Failure, record::Record};

/// A payload has 64 MiB at most, and base64 makes it a third longer.
const LINE_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// What is read of a file, or of standard input.
pub struct Lines {
    file: PathBuf,
    from: BufReader<Box<dyn Read>>,
    number: u64,
}

impl Lines {
    /// Of standard input for `-`.
    pub fn of(file: &Path) -> Result<Lines, Failure> {
        let input: Box<dyn Read> = match file == Path::new("-") {
            true => Box::new(io::stdin()),
            false => {
                let opened = File::open(file);
                Box::new(opened.map_err(|source| Failure::file("read", file, source))?)
            }
        };
        Ok(Lines::reading(file, input))
    }

    /// Of an input that a message calls `file`.
    pub fn reading(file: &Path, input: Box<dyn Read>) -> Lines {
        Lines {
            file: file.to_owned(),
            from: BufReader::with_capacity(1 << 18, input),
            number: 0,
        }
    }

    /// The next line and how long it is; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(Record, usize)>, Failure> {
        loop {
            let mut line = Vec::new();
            let mut bounded = self.from.by_ref().take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut line);
            let read = read.map_err(|source| Failure::file("read", &self.file, source))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if line.len() as u64 == LINE_BYTES_MAX {
                return Err(self.wrong(format!("it is over {LINE_BYTES_MAX} bytes long")));
            }
            let record = serde_json::from_slice::<Record>(&line);
            let record = record.map_err(|error| self.wrong(error.to_string()))?;
            return Ok(Some((record, line.len())));
        }
    }

    /// The line that was read last is no hint.
    pub fn wrong(&self, why: String) -> Failure {
        Failure::Input {
            line: self.number,
            why,
        }
    }
}
