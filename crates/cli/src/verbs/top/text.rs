//! Figures and names in few columns.

use std::time::Duration;

use hinted_handoff::{Gate, NodeState, NodeStats, Pause};
use indicatif::{HumanBytes, HumanCount};
use unicode_width::UnicodeWidthChar;

use crate::{
    json::name_of,
    output::{printable, whole_seconds},
    verbs::nodes::Named,
};

/// What is not known.
pub const UNKNOWN: &str = "-";

/// `12,345`.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `1.50 KiB`.
pub fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// The two largest units of it: `3h 12m`.
pub fn duration(duration: Option<Duration>) -> String {
    let Some(duration) = duration else {
        return UNKNOWN.to_owned();
    };
    let whole = whole_seconds(duration);
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

/// Hints a second: `12.3`, `1,234`.
pub fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.to_owned(),
        Some(rate) if rate >= 100.0 => count(rate as u64),
        Some(rate) if rate > 0.0 => format!("{rate:.1}"),
        Some(_) => "0".to_owned(),
    }
}

/// A text that takes as many columns as it says: what a terminal would obey, what turns the
/// direction of writing, and what joins letters or makes them wider, as terminals do in different
/// ways, is an escape.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in printable(text).chars() {
        match letter {
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e0fff}' => plain.extend(letter.escape_unicode()),
            letter => plain.push(letter),
        }
    }
    plain
}

/// How many columns it takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|it| it.width().unwrap_or(0)).sum()
}

/// As much of it as fits, and an ellipsis where that is not all.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut left = columns.saturating_sub(1);
    for letter in text.chars() {
        let takes = letter.width().unwrap_or(0);
        if takes > left {
            break;
        }
        left -= takes;
        cut.push(letter);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// `3 replica-3`, for a table.
pub fn node(node: &Named) -> String {
    match &node.name {
        Some(name) => format!("{} {}", node.stats.node, plain(name)),
        None => node.stats.node.to_string(),
    }
}

/// The state in words.
pub fn state(state: NodeState) -> String {
    match state {
        NodeState::Manual => "by hand".to_owned(),
        state => name_of(&state).replace('_', " "),
    }
}

/// What a node said, without what the library says before it, which the state says, too.
fn said_by_node(error: &str) -> &str {
    const BEFORE: [&str; 2] = [
        "the node may take it later: ",
        "the node will never accept it: ",
    ];
    let stripped = BEFORE.iter().find_map(|before| error.strip_prefix(before));
    stripped.filter(|it| !it.is_empty()).unwrap_or(error)
}

/// Why hints wait for it: what somebody did, then what keeps them, as it was said.
pub fn cause(node: &NodeStats) -> String {
    let mut parts: Vec<String> = Vec::new();
    match node.paused {
        Some(Pause::Lasting) => parts.push("paused, over restarts too".to_owned()),
        Some(_) => parts.push("paused until the host restarts".to_owned()),
        None => {}
    }
    if node.parked_since_unix_ms.is_some() {
        parts.push("not named as a member".to_owned());
    }
    if !node.hinting {
        parts.push("no hints are made for it".to_owned());
    }
    if let Some(it) = node.unknown_format {
        parts.push(format!(
            "shard {} waits for a build that reads payload format {}, this one writes {}",
            it.shard, it.found, it.written
        ));
    }
    if let Some(error) = &node.last_error {
        parts.push(plain(said_by_node(error)));
    }
    if let Some(shard) = node.stalled_by {
        parts.push(format!("stuck at shard {shard}"));
    }
    if let (true, Gate::Closed { why, .. }) = (parts.is_empty(), &node.gate) {
        parts.push(plain(why));
    }
    if node.leaving {
        parts.push("removed once nothing waits".to_owned());
    }
    parts.join("; ")
}
