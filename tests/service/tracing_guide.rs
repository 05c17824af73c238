//! The tables of docs/tracing.md have every span, event and field of the source, and nothing else.
//!
//! Method: the macros of `tracing` are read out of `src`, by a scanner that knows strings and
//! parentheses, and the rows out of the guide. A use of `tracing` that the scanner does not know
//! fails the test.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const GUIDE: &str = "docs/tracing.md";
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A span, or an event of a level.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// `span` for a span: all are of one level, which the guide says.
    kind: String,
    /// The message of an event, the name of a span.
    text: String,
    fields: Vec<String>,
    target: String,
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
            false => {}
        }
    }
}

/// `src/store/mod.rs` is `store`.
fn target(file: &Path) -> String {
    let module = file.strip_prefix("src").unwrap().with_extension("");
    let names = module.iter().map(|name| name.to_str().unwrap());
    names
        .filter(|name| *name != "mod")
        .collect::<Vec<_>>()
        .join("::")
}

/// The arguments of a macro, whose opening parenthesis is just before `text`.
fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut depth, mut in_string) = (vec![String::new()], 0, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if in_string => {
                let escaped = letters.next().unwrap();
                if escaped == '\n' {
                    let rest = letters.as_str().trim_start();
                    letters = rest.chars();
                } else {
                    all.last_mut().unwrap().extend([letter, escaped]);
                }
                continue;
            }
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        all.last_mut().unwrap().push(letter);
    }
    let trimmed = all.iter().map(|it| it.trim().to_owned());
    trimmed.filter(|it| !it.is_empty()).collect()
}

/// What the source has.
fn written() -> BTreeSet<Entry> {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (at, name) in text.match_indices("tracing::") {
            let line = &text[text[..at].rfind('\n').map_or(0, |it| it + 1)..at];
            let rest = &text[at + name.len()..];
            let is_known = ["Instrument;", "Span::current()", "field::Empty"];
            if line.contains("//") || is_known.iter().any(|it| rest.starts_with(it)) {
                continue;
            }
            let (called, inside) = rest.split_once("!(").unwrap();
            let kind = match called {
                "debug_span" => "span",
                level if LEVELS.contains(&level) => level,
                other => panic!("{}: tracing::{other}", file.display()),
            };
            let (texts, fields): (Vec<_>, Vec<_>) = arguments(inside)
                .into_iter()
                .partition(|it| it.starts_with('"'));
            let [text] = &texts[..] else {
                panic!("{}: {texts:?} is not one text", file.display());
            };
            let text = text.trim_matches('"').to_owned();
            assert!(
                !text.contains(['{', '|']),
                "{text}: what differs is a field"
            );
            let name = |field: String| {
                let name = field.split('=').next().unwrap().trim();
                name.trim_start_matches(['%', '?']).to_owned()
            };
            found.insert(Entry {
                kind: kind.to_owned(),
                text,
                fields: fields.into_iter().map(name).collect(),
                target: target(&file),
            });
        }
    }
    found
}

/// The cells of all rows of the tables, without code marks.
fn rows(guide: &str) -> Vec<Vec<String>> {
    let rows = guide.lines().filter_map(|line| {
        let inside = line.strip_prefix('|')?.strip_suffix('|')?;
        let cells = inside.split('|').map(|it| it.trim().replace('`', ""));
        Some(cells.collect())
    });
    rows.collect()
}

fn names(cell: &str) -> Vec<String> {
    let names = cell.split(',').map(|it| it.trim().to_owned());
    names.filter(|it| !it.is_empty()).collect()
}

/// What the guide has.
fn told() -> BTreeSet<Entry> {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let entries = rows(&guide).into_iter().filter_map(|row| {
        let (kind, text, fields, target) = match &row[..] {
            [level, text, fields, target] if LEVELS.contains(&level.as_str()) => {
                (level.as_str(), text, fields, target)
            }
            [name, fields, target, _] if target.contains("::") => ("span", name, fields, target),
            _ => return None,
        };
        Some(Entry {
            kind: kind.to_owned(),
            text: text.clone(),
            fields: names(fields),
            target: target.clone(),
        })
    });
    entries.collect()
}

#[test]
fn the_guide_has_every_span_and_event_of_the_source_and_no_other() {
    let (written, told) = (written(), told());
    assert!(written.len() > 80, "the scanner finds too little");
    assert_eq!(written.iter().filter(|it| it.kind == "span").count(), 2);
    let missing: Vec<_> = written.difference(&told).collect();
    let left: Vec<_> = told.difference(&written).collect();
    assert!(
        missing.is_empty() && left.is_empty(),
        "{GUIDE} has not: {missing:#?}\nand has, without it being there: {left:#?}"
    );
}

#[test]
fn every_field_of_the_source_is_explained_and_no_other() {
    let used: BTreeSet<String> = written().into_iter().flat_map(|it| it.fields).collect();
    let guide = fs::read_to_string(GUIDE).unwrap();
    let (_, section) = guide.split_once("\n## Fields\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // Behind the heading and the line under it.
    let fields = rows(section).into_iter().skip(2);
    let explained: BTreeSet<String> = fields.flat_map(|row| names(&row[0])).collect();
    assert_eq!(explained, used);
}
