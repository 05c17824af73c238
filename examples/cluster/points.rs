//! Points, and the line protocol they come in.

use serde::{Deserialize, Serialize};

use crate::protocol::Failure;

/// The input, by the name of its file in `examples/data/`.
const INPUT: [(&str, &str); 2] = [
    ("weather.lp", include_str!("../data/weather.lp")),
    ("normals.lp", include_str!("../data/normals.lp")),
];

/// One line of line protocol. The fields stay text: they are moved here, not calculated with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Measurement and tags: with the timestamp, what a point is told apart by.
    pub series: String,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    pub fields: String,
}

impl Point {
    /// Reads `series fields timestamp`.
    pub fn parse(line: &str) -> Result<Point, Failure> {
        let bad = |what: &str| Failure::from(format!("{what} in the line {line:?}"));
        let (series, rest) = cut(line).ok_or_else(|| bad("no fields"))?;
        let (fields, timestamp) = cut(rest).ok_or_else(|| bad("no timestamp"))?;
        if series.is_empty() || series.contains('\0') || !fields.contains('=') {
            return Err(bad("an empty or broken series or field"));
        }
        let timestamp = timestamp.parse();
        Ok(Point {
            series: series.to_owned(),
            timestamp: timestamp.map_err(|_| bad("a timestamp that is no number"))?,
            fields: fields.to_owned(),
        })
    }

    pub fn line(&self) -> String {
        format!("{} {} {}", self.series, self.fields, self.timestamp)
    }
}

/// Cuts at the first space that is neither escaped nor quoted.
fn cut(text: &str) -> Option<(&str, &str)> {
    let (mut escaped, mut quoted) = (false, false);
    let space = text.char_indices().find(|(_, char)| {
        let found = *char == ' ' && !escaped && !quoted;
        quoted ^= *char == '"' && !escaped;
        escaped = *char == '\\' && !escaped;
        found
    });
    text.split_at_checked(space?.0)
        .map(|(before, after)| (before, after.trim_start_matches(' ')))
}

/// All points of a text, one a line.
pub fn parse_lines(lines: &str) -> Result<Vec<Point>, Failure> {
    lines.lines().map(Point::parse).collect()
}

/// The points of all input files, in the order of the files.
pub fn input() -> Result<Vec<Point>, Failure> {
    let mut points = Vec::new();
    for (name, text) in INPUT {
        let parsed = parse_lines(text).map_err(|error| format!("examples/data/{name}: {error}"))?;
        points.extend(parsed);
    }
    Ok(points)
}
