//! The figures that the store is held to: one table of them all, and `target/bench-ratios.json`.

use std::{fmt::Write, fs, path::Path};

use crate::common::{
    Outcome,
    report::{Spread, Table},
};

enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

use Goal::{AtLeast, AtMost};

/// Key, what it says, what it should be.
const GOALS: [(&str, &str, Goal); 15] = [
    (
        "append_64",
        "durable append, 64 producers, of the raw file's rate",
        AtLeast(0.8),
    ),
    ("append_1", "the same with 1 producer", AtLeast(0.75)),
    (
        "append_64_scraped",
        "durable append, 64 producers, with a scrape of the metrics each second, of that without",
        AtLeast(0.99),
    ),
    (
        "append_incompressible_16",
        "64 KiB incompressible, 16 producers, of the raw file's rate",
        AtLeast(0.25),
    ),
    (
        "append_64_vs_peer",
        "durable append, 64 producers, of the best durable peer's rate",
        AtLeast(2.0),
    ),
    (
        "append_while_draining",
        "durable append, 64 producers, while replay drains, of the raw file's rate while a reader does",
        AtLeast(0.6),
    ),
    (
        "append_while_draining_vs_peer",
        "the same, of the best durable peer's rate",
        AtLeast(6.0),
    ),
    (
        "replay_of_raw",
        "replay of a cold backlog to a free writer, of the raw file's reader",
        AtLeast(1.0),
    ),
    (
        "replay_vs_peer",
        "the same, of the best durable queue crate's drain",
        AtLeast(3.0),
    ),
    (
        "bytes_written_per_logical_byte",
        "bytes written to disk for each byte of line protocol, append and drain together",
        AtMost(1.0),
    ),
    (
        "append_p99_ratio",
        "99th percentile of a durable append's time at half the maximal rate, 64 producers, of the raw file's",
        AtMost(3.0),
    ),
    (
        "resident_mib",
        "resident MiB at most, 10 GiB waiting for 100 nodes, filled by 64 producers, then replayed",
        AtMost(128.0),
    ),
    (
        "reopen_seconds",
        "seconds from open to the first delivery, after SIGKILL with 10 GiB waiting",
        AtMost(1.0),
    ),
    (
        "rate_change_percent",
        "by how many per cent the append rate falls from 0 to 10 GiB waiting",
        AtMost(15.0),
    ),
    (
        "append_1000_nodes",
        "append for 1,000 nodes in turn, of the rate for one node",
        AtLeast(0.5),
    ),
];

/// What was measured so far.
#[derive(Default)]
pub struct Figures(Vec<(String, Spread)>);

impl Figures {
    pub fn note(&mut self, key: &str, figure: Spread) {
        self.0.push((key.to_owned(), figure));
    }

    fn get(&self, key: &str) -> Option<Spread> {
        let found = self.0.iter().find(|(noted, _)| noted == key);
        found.map(|(_, figure)| *figure)
    }

    pub fn print(&self) {
        let mut table = Table::new(&["figure", "goal", "measured (min..max)", "key"]);
        for (key, text, goal) in &GOALS {
            let (sign, bound) = match goal {
                AtLeast(bound) => ("≥", bound),
                AtMost(bound) => ("≤", bound),
            };
            table.row([
                (*text).to_owned(),
                format!("{sign} {bound}"),
                self.get(key)
                    .map_or("not in this run".to_owned(), |it| it.ratio()),
                format!("`{key}`"),
            ]);
        }
        println!("{}", table.markdown());
    }

    /// Writes the medians as one flat object; a key that was not measured is not there.
    pub fn write(&self, path: &Path) -> Outcome<()> {
        let mut text = String::from("{");
        let mut comma = "";
        for (key, figure) in GOALS
            .iter()
            .filter_map(|(key, ..)| Some((key, self.get(key)?)))
        {
            write!(text, "{comma}\n  \"{key}\": {:.4}", figure.median)?;
            comma = ",";
        }
        text.push_str("\n}\n");
        Ok(fs::write(path, text)?)
    }
}
