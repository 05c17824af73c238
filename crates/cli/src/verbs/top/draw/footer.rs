//! Below: what keys do, what is asked, what came of it.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::Line,
};

use super::{Room, Theme, rows_of, wrapped};
use crate::{
    output::Tone,
    verbs::top::{
        state::{Mode, State, Verb},
        text,
    },
};

const HELP: [(&str, &str); 9] = [
    ("q Esc ^C", "end it"),
    ("j Down", "the next node"),
    ("k Up", "the node before"),
    ("PgUp PgDn", "ten nodes on"),
    ("Home End", "the first, the last"),
    ("s", "another order: pending, oldest, out/s, node"),
    ("p", "pause replay to the node, until the host restarts"),
    ("r", "resume it"),
    ("?", "this"),
];

pub fn draw(frame: &mut Frame, room: &mut Room, state: &State, theme: Theme) {
    let columns = room.0.width;
    let (tone, text) = said(state);
    // What is asked and what went wrong is shown whole, if half of the screen is enough for it.
    let rows = match tone {
        Some(_) => rows_of(&text, columns).min(room.0.height / 2).max(1),
        None => 1,
    };
    let area = room.lower(rows);
    match tone {
        Some(tone) => frame.render_widget(wrapped(text).style(theme.tone(tone)), area),
        None => frame.render_widget(Line::raw(text::cut(&text, columns.into())), area),
    }
}

fn said(state: &State) -> (Option<Tone>, String) {
    if let Mode::Ask(act) = state.mode() {
        let what = match act.verb {
            Verb::Pause => format!("pause node {} until the host restarts", act.called),
            Verb::Resume => format!("resume node {}", act.called),
        };
        return (Some(Tone::Doubtful), format!("{what}? y/n"));
    }
    if let Some((tone, message)) = state.message() {
        return (Some(tone), message.to_owned());
    }
    if let Some(act) = state.under_way() {
        let what = match act.verb {
            Verb::Pause => "pausing",
            Verb::Resume => "resuming",
        };
        return (Some(Tone::Doubtful), format!("{what} node {}", act.called));
    }
    let order = state.order().name();
    let keys = format!("?:help q:quit s:order ({order}) p:pause r:resume j/k:select");
    (None, keys)
}

/// All keys.
pub fn help(frame: &mut Frame, area: Rect) {
    let columns = usize::from(area.width);
    for (at, (keys, what)) in (0..area.height).zip(HELP) {
        let row = Rect {
            y: area.y + at,
            height: 1,
            ..area
        };
        let line = text::cut(&format!("{keys:<9} {what}"), columns);
        let style = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Line::styled(line, style), row);
    }
}
