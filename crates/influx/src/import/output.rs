//! What is printed.

use std::{
    io::{self, Write},
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    error::ImportFailure,
    load::Loaded,
    survey::{NodeSurvey, ShardSurvey, Survey},
};

#[derive(Serialize)]
struct Document<'a> {
    /// Then nothing was imported.
    dry_run: bool,
    #[serde(flatten)]
    survey: &'a Survey,
    #[serde(flatten)]
    loaded: Option<&'a Loaded>,
}

/// Prints what there is.
pub fn survey(survey: &Survey, is_json: bool) -> Result<(), ImportFailure> {
    match is_json {
        true => json(survey, None),
        false => print(&text(survey)),
    }
}

/// Prints what there was, and what is in the store now.
pub fn loaded(survey: &Survey, loaded: &Loaded, is_json: bool) -> Result<(), ImportFailure> {
    if is_json {
        return json(survey, Some(loaded));
    }
    let mut lines = text(survey);
    lines.push(format!(
        "imported: {} points in {} hints, {} payload bytes",
        loaded.imported_points, loaded.imported_hints, loaded.imported_payload_bytes
    ));
    if loaded.known_hints > 0 {
        let known = loaded.known_hints;
        lines.push(format!("imported before: {known} hints"));
    }
    if loaded.timed_points > 0 {
        let timed = loaded.timed_points;
        lines.push(format!(
            "{timed} points had no time and were given that of the last change of their file"
        ));
    }
    if let Some(report) = &loaded.report {
        let report = report.display();
        lines.push(format!("what could not be read is said in {report}"));
    }
    print(&lines)
}

fn text(survey: &Survey) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &survey.nodes {
        lines.push(self::node(node));
        lines.extend(node.shards.iter().map(|it| format!("  {}", shard(it))));
    }
    if survey.ignored_entries > 0 {
        let more = survey.ignored_entries - survey.ignored.len() as u64;
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let names = survey.ignored.join(", ");
        lines.push(format!("no part of a queue: {names}{more}"));
    }
    lines
}

fn node(node: &NodeSurvey) -> String {
    let NodeSurvey {
        old_node,
        segments,
        segment_bytes,
        ..
    } = node;
    let place = match node.node {
        _ if node.is_skipped => "left out".to_owned(),
        Some(new) => format!("to node {new}"),
        None => "to no node".to_owned(),
    };
    let mut line = format!("node {old_node}, {place}: {segments} segments, {segment_bytes} bytes");
    if node.is_skipped {
        return line;
    }
    line += &format!(
        ", {} records, {} points, {} records delivered before",
        node.records, node.points, node.acknowledged_records
    );
    if let Some(oldest) = node.oldest_file_unix_ms {
        let oldest = UNIX_EPOCH + Duration::from_millis(oldest);
        let oldest = humantime::format_rfc3339_seconds(oldest);
        line += &format!(", oldest file of {oldest}");
    }
    if node.unreadable > 0 {
        line += &format!(", {} places unreadable", node.unreadable);
    }
    line
}

/// A shard in a line.
pub fn shard(of: &ShardSurvey) -> String {
    let ShardSurvey {
        shard,
        records,
        points,
        ..
    } = of;
    let place = of
        .place
        .as_ref()
        .map_or("no database".to_owned(), ToString::to_string);
    format!("shard {shard}, to {place}: {records} records, {points} points")
}

fn json(survey: &Survey, loaded: Option<&Loaded>) -> Result<(), ImportFailure> {
    let document = Document {
        dry_run: loaded.is_none(),
        survey,
        loaded,
    };
    let text = serde_json::to_string_pretty(&document).map_err(io::Error::other);
    print(&[text.map_err(ImportFailure::file("write", "standard output"))?])
}

fn print(lines: &[String]) -> Result<(), ImportFailure> {
    let mut out = io::stdout().lock();
    let mut lines = lines.iter();
    let written = lines.try_for_each(|line| writeln!(out, "{line}"));
    written
        .and_then(|()| out.flush())
        .map_err(ImportFailure::file("write", "standard output"))
}
