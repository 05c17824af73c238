//! Which points of a hint a server refuses.

use std::fmt::Write;

use super::answer::{Answer, NodeAnswer};
use crate::LinePoints;

/// So many lines are shown, and so much of each, in letters.
const LINES_SHOWN: usize = 3;
const LINE_SHOWN: usize = 100;

/// Points that a server refused, and why it refused the first of them.
#[derive(Debug, Default)]
pub struct Refused {
    first: Option<NodeAnswer>,
    points: u32,
    /// Whether it may be more.
    is_least: bool,
    lines: Vec<String>,
}

impl Refused {
    /// The server refused all of these points, or so many of them.
    pub fn add(&mut self, points: &LinePoints, answer: Answer) {
        let dropped = answer.dropped().clamp(1, points.points().max(1));
        let are_all = !answer.is_partial() || dropped == points.points();
        self.first.get_or_insert_with(|| answer.into_error());
        if !are_all {
            self.points += dropped;
            self.is_least = true;
            return;
        }
        self.points += points.points();
        let missing = LINES_SHOWN.saturating_sub(self.lines.len());
        self.lines.extend(first_lines(points, missing));
    }

    /// The answer for all of the points, if some were refused.
    pub fn into_answer(self, of: u32) -> Option<NodeAnswer> {
        let mut answer = self.first?;
        let least = if self.is_least { "at least " } else { "" };
        let text = &mut answer.text;
        // Writing to a text does not fail.
        let _ = write!(text, "; refused: {least}{} of {of} points", self.points);
        if !self.lines.is_empty() {
            let _ = write!(text, ": {}", self.lines.join(" | "));
        }
        Some(answer)
    }
}

fn first_lines(points: &LinePoints, count: usize) -> Vec<String> {
    let lines = points.lines();
    // A letter has four bytes at most.
    let begin = lines.get(..count * LINE_SHOWN * 4).unwrap_or(lines);
    let text = String::from_utf8_lossy(begin);
    let shown = text.lines().take(count);
    shown
        .map(|line| line.chars().take(LINE_SHOWN).collect())
        .collect()
}
