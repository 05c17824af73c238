//! On top: whether the host serves or answers at all, and the figures of all nodes.

use std::{collections::BTreeMap, time::Instant};

use hinted_handoff::{NodeState, Pause};
use ratatui::{Frame, text::Line};

use super::{ROWS_FOR_FIGURES, ROWS_FOR_MORE_FIGURES, Room, Theme, rows_of, wrapped};
use crate::{
    output::Tone,
    verbs::{
        status,
        top::{answer::Status, state::State, text},
    },
};

/// Between figures.
const GAP: &str = "  ";
/// Rows that the state of the host may take.
const STATE_ROWS_MAX: u16 = 4;

pub fn draw(frame: &mut Frame, room: &mut Room, state: &State, theme: Theme, now: Instant) {
    let (rows, columns) = (room.0.height, room.0.width);
    let (tone, said) = said(state, now);
    let state_rows = match rows >= ROWS_FOR_FIGURES {
        true => rows_of(&said, columns)
            .min(rows / 6)
            .clamp(1, STATE_ROWS_MAX),
        false => 1,
    };
    let area = room.upper(state_rows);
    let style = tone.map(|tone| theme.tone(tone)).unwrap_or_default();
    match state_rows {
        1 => {
            let line = text::cut(&said, columns.into());
            frame.render_widget(Line::styled(line, style), area);
        }
        _ => frame.render_widget(wrapped(said).style(style), area),
    }
    let Some(status) = state.status() else { return };
    let mut figures = Vec::new();
    if rows >= ROWS_FOR_FIGURES {
        figures.push(waiting(state, status));
    }
    if rows >= ROWS_FOR_MORE_FIGURES {
        figures.push(rest(status));
    }
    for line in figures {
        let line = text::cut(&line, columns.into());
        frame.render_widget(Line::raw(line), room.upper(1));
    }
}

/// How the host is, in words.
fn said(state: &State, now: Instant) -> (Option<Tone>, String) {
    if let Some((silence, why)) = state.silence(now) {
        let silence = text::duration(Some(silence));
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return (Some(Tone::Bad), format!("no answer for {silence}{why}"));
    }
    let Some(status) = state.status() else {
        return (None, "asking the host".to_owned());
    };
    let (nodes, plain) = (state.nodes(), text::plain(&status.text));
    let is_each = nodes.iter().all(|it| it.stats.state == NodeState::Paused) && !nodes.is_empty();
    let is_paused = is_each || status.paused_all.is_some();
    let (tone, said) = status::in_words(&status.health, plain, is_paused);
    (Some(tone), said)
}

/// What waits, since when, until when.
fn waiting(state: &State, status: &Status) -> String {
    let pending = status.pending;
    let rates = state.total_rates();
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for node in state.nodes() {
        *states.entry(text::state(node.stats.state)).or_default() += 1;
    }
    let states: Vec<String> = states
        .into_iter()
        .map(|(state, nodes)| format!("{} {state}", text::count(nodes)))
        .collect();
    let nodes = match states.is_empty() {
        true => "no nodes".to_owned(),
        false => format!("nodes: {}", states.join(", ")),
    };
    [
        format!(
            "pending {} ({})",
            text::count(pending.hints),
            text::bytes(pending.bytes)
        ),
        format!("oldest {}", text::duration(status.oldest_age())),
        format!("in {}/s", text::rate(rates.into)),
        format!("out {}/s", text::rate(rates.out)),
        format!("done in {}", text::duration(status.caught_up_in())),
        nodes,
    ]
    .join(GAP)
}

fn rest(status: &Status) -> String {
    let store = &status.store;
    // Other nodes have now what is rehinted.
    let lost = store
        .lost
        .iter()
        .filter(|(reason, _)| *reason != "rehinted")
        .fold(0, |sum: u64, (_, lost)| sum.saturating_add(lost.hints));
    let free = store
        .free_disk_bytes
        .map_or(text::UNKNOWN.to_owned(), text::bytes);
    let mut figures = Vec::new();
    match status.paused_all {
        None => {}
        Some(Pause::Lasting) => figures.push("ALL PAUSED, over restarts too".to_owned()),
        Some(_) => figures.push("ALL PAUSED".to_owned()),
    }
    if status.read_only {
        figures.push("read-only".to_owned());
    }
    figures.extend([
        format!(
            "disk: log {}, free {free} (reserve {})",
            text::bytes(store.log_bytes),
            text::bytes(store.reserve_bytes)
        ),
        format!("dead letters {}", text::count(status.dead_letters.hints)),
        format!("lost {}", text::count(lost)),
        format!("in flight {}", text::count(status.in_flight)),
    ]);
    figures.join(GAP)
}
