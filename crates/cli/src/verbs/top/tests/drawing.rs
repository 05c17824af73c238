//! The screen, as a terminal of a size would have it.

use std::collections::BTreeSet;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::KeyCode,
    style::{Color, Modifier},
};

use super::{keys::{letter, press}, *};
use crate::{
    failure::Failure,
    verbs::top::{
        draw::{Theme, draw},
        text,
    },
};

const PLAIN: Theme = Theme { has_colours: false };
const COLOURED: Theme = Theme { has_colours: true };

fn buffer(state: &State, now: Instant, columns: u16, rows: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state, theme, now)).unwrap();
    terminal.backend().buffer().clone()
}

/// Its rows, without the space at their ends.
fn rows(state: &State, now: Instant, columns: u16, rows: u16) -> Vec<String> {
    let buffer = buffer(state, now, columns, rows, PLAIN);
    let row = |y| {
        let mut text = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            // A wide letter has the cell behind it, too.
            x += text::width(symbol).max(1) as u16;
        }
        text.trim_end().to_owned()
    };
    (0..rows).map(row).collect()
}

#[track_caller]
fn assert_rows(found: Vec<String>, expected: &str) {
    let expected: Vec<&str> = expected.trim_matches('\n').lines().collect();
    assert_eq!(found, expected, "\n{}\n", found.join("\n"));
}

fn counted(mut node: Value, enqueued: u64, delivered: u64) -> Value {
    node["enqueued"]["hints"] = enqueued.into();
    node["delivered"]["hints"] = delivered.into();
    node
}

/// Three nodes in different states, with rates.
fn three() -> (State, Instant) {
    let nodes = |at: u64| {
        let mut down = waiting(2, 1_200 + at * 34);
        down["name"] = "replica-2".into();
        down["oldest_age_ms"] = 192_000.into();
        down["last_error"] = "the node may take it later: connection refused (os error 111)".into();
        let mut replaying = waiting(3, 900 - at * 300);
        replaying["name"] = "replica-3".into();
        replaying["state"] = "replaying".into();
        replaying["oldest_age_ms"] = 61_000.into();
        replaying["caught_up_in_ms"] = 4_000.into();
        vec![
            counted(down, at * 34, 0),
            counted(replaying, 0, at * 300),
            counted(node(11, json!({ "name": "replica-11" })), at, at),
        ]
    };
    let answers = (0..3).map(|at| answer(at, nodes(at)));
    after(answers.collect())
}

#[test]
fn a_wide_screen_has_all_columns_and_the_backlog_of_the_node_and_of_all() {
    let (state, now) = three();
    assert_rows(rows(&state, now, 130, 20), "");
}

#[test]
fn a_screen_of_80_columns_leaves_out_what_is_worth_least() {
    let (state, now) = three();
    assert_rows(rows(&state, now, 80, 24), "");
}

#[test]
fn a_narrow_and_low_screen_has_the_nodes_with_what_waits() {
    let (state, now) = three();
    assert_rows(rows(&state, now, 40, 9), "");
    assert_rows(rows(&state, now, 20, 5), "");
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    let (state, now) = three();
    assert_rows(rows(&state, now, 19, 4), "");
    assert_eq!(rows(&state, now, 1, 1), ["t"]);
}
