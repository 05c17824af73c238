//! What the program prints: a table on a terminal, columns elsewhere, JSON where it is asked for.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    os::fd::AsFd,
    time::{Duration, UNIX_EPOCH},
};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use crate::failure::Failure;

/// A terminal that does not say how wide it is.
const WIDTH: u16 = 100;
/// A terminal with fewer columns for each column of a table gets its rows as names and values.
const COLUMN_WIDTH_MIN: u16 = 6;
/// One with fewer columns has no room to align values.
const ALIGNED_WIDTH_MIN: u16 = 40;
const BUFFER_BYTES: usize = 1 << 18;

/// Standard output.
pub struct Output {
    to: BufWriter<File>,
    is_json: bool,
    is_terminal: bool,
    has_colours: bool,
}

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Doubtful,
    Bad,
}

impl Output {
    pub fn new(is_json: bool) -> Result<Output, Failure> {
        let stdout = io::stdout();
        // Without a look for the ends of lines, which an export has many of.
        let plain = stdout.as_fd().try_clone_to_owned();
        let plain = File::from(plain.map_err(Failure::output)?);
        // On a terminal only, and not where NO_COLOR is set.
        let colours = anstream::AutoStream::choice(&stdout);
        Ok(Output {
            to: BufWriter::with_capacity(BUFFER_BYTES, plain),
            is_json,
            is_terminal: stdout.is_terminal(),
            has_colours: colours != anstream::ColorChoice::Never,
        })
    }

    pub fn is_json(&self) -> bool {
        self.is_json
    }

    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether to write in colours: on a terminal, by `NO_COLOR`.
    pub fn has_colours(&self) -> bool {
        self.has_colours
    }

    /// Where to write what is neither a table nor one document.
    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.to
    }

    pub fn finish(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::output)
    }

    /// One document.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer_pretty(&mut self.to, value);
        written.map_err(|error| Failure::output(error.into()))?;
        self.line("")
    }

    /// One document of many, on a line of its own.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.to, value);
        written.map_err(|error| Failure::output(error.into()))?;
        self.line("")
    }

    /// A text that is of a format of its own: as it is, or as a document that has it by a name.
    pub fn text(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        if self.is_json {
            return self.json(&std::collections::BTreeMap::from([(name, text)]));
        }
        let written = self.to.write_all(text.as_bytes());
        written.map_err(Failure::output)
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.to, "{text}").map_err(Failure::output)
    }

    /// A line in the colour of what it means.
    pub fn toned(&mut self, tone: Tone, text: &str) -> Result<(), Failure> {
        let colour = match tone {
            Tone::Good => AnsiColor::Green,
            Tone::Doubtful => AnsiColor::Yellow,
            Tone::Bad => AnsiColor::Red,
        };
        let style = match self.has_colours {
            true => Style::new().fg_color(Some(colour.into())).bold(),
            false => Style::new(),
        };
        let line = writeln!(self.to, "{style}{}{style:#}", printable(text));
        line.map_err(Failure::output)
    }

    /// Names and values: aligned on a terminal, elsewhere separated by tabs.
    pub fn pairs(&mut self, pairs: &[(&str, String)]) -> Result<(), Failure> {
        let is_narrow = width() < ALIGNED_WIDTH_MIN;
        for (name, value) in pairs {
            let value = printable(value);
            match (self.is_terminal, is_narrow) {
                (true, false) => self.line(&format!("{name:<16} {value}"))?,
                (true, true) => self.line(&format!("{name}: {value}"))?,
                (false, _) => self.line(&format!("{}\t{value}", name.replace(' ', "_")))?,
            }
        }
        Ok(())
    }

    /// Rows under a header, as wide as the terminal; elsewhere without the header, in columns that
    /// are separated by tabs.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        if !self.is_terminal {
            for row in rows {
                let row: Vec<String> = row.iter().map(|cell| printable(cell)).collect();
                self.line(&row.join("\t"))?;
            }
            return Ok(());
        }
        let width = width();
        if usize::from(width / COLUMN_WIDTH_MIN) < header.len() {
            return self.records(header, rows);
        }
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width)
            .set_header(header.iter().copied());
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)));
        }
        self.line(&table.to_string())
    }

    /// Rows where they do not fit beside each other: a line a cell, an empty one between two.
    fn records(&mut self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                self.line("")?;
            }
            for (name, cell) in header.iter().zip(row) {
                self.line(&format!("{name}: {}", printable(cell)))?;
            }
        }
        Ok(())
    }

    /// A number of bytes: for people on a terminal, plain elsewhere.
    pub fn bytes(&self, bytes: u64) -> String {
        match self.is_terminal {
            true => indicatif::HumanBytes(bytes).to_string(),
            false => bytes.to_string(),
        }
    }

    /// How long: for people on a terminal, in milliseconds elsewhere.
    pub fn duration(&self, duration: Option<Duration>) -> String {
        let Some(duration) = duration else {
            return "-".to_owned();
        };
        match self.is_terminal {
            true => whole_seconds(duration),
            false => duration.as_millis().to_string(),
        }
    }

    /// A time: for people on a terminal, in milliseconds since 1970 elsewhere.
    pub fn time(&self, unix_ms: Option<u64>) -> String {
        let Some(unix_ms) = unix_ms else {
            return "-".to_owned();
        };
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
        // humantime panics beyond the year 9999.
        let far = 253_402_300_800_000;
        match time.filter(|_| self.is_terminal && unix_ms < far) {
            Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
            None => unix_ms.to_string(),
        }
    }
}

/// How long, in words, without parts of a second.
pub fn whole_seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// Columns of the terminal.
fn width() -> u16 {
    terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0)
}

/// What a terminal would take for a command, or what would break a column, as an escape.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() || is_layout(letter) {
            true => printable.extend(letter.escape_default()),
            false => printable.push(letter),
        }
    }
    printable
}

/// Ends a line, or turns the direction of what follows: then a line does not say what it seems to.
fn is_layout(letter: char) -> bool {
    matches!(
        letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_printed_as_an_escape() {
        assert_eq!(printable("a\tb\n\u{1b}[2Jc ü"), "a\\tb\\n\\u{1b}[2Jc ü");
        assert_eq!(
            printable("a\u{2028}b\u{202e}c\u{7f}"),
            "a\\u{2028}b\\u{202e}c\\u{7f}"
        );
    }
}
