//! The state on a screen of any size: fewer parts where it is low, fewer columns where it is
//! narrow.

mod backlog;
mod footer;
mod header;
mod table;

use std::time::Instant;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{
    state::{Mode, State},
    text,
};
use crate::output::Tone;

/// The smallest screen that shows anything of use.
const COLUMNS_MIN: u16 = 20;
const ROWS_MIN: u16 = 5;

/// Rows of the parts, where the screen has so many.
const ROWS_FOR_FIGURES: u16 = 8;
const ROWS_FOR_MORE_FIGURES: u16 = 12;
const ROWS_FOR_CAUSE: u16 = 12;
const ROWS_FOR_BACKLOG: u16 = 18;
const CAUSE_ROWS: u16 = 2;
const BACKLOG_ROWS: u16 = 4;

/// How something looks that means something.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    pub has_colours: bool,
}

impl Theme {
    fn tone(self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Good => Color::Green,
            Tone::Doubtful => Color::Yellow,
            Tone::Bad => Color::Red,
        };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match self.has_colours {
            true => bold.fg(colour),
            false => bold,
        }
    }
}

/// Hands out a screen from its upper and its lower end.
struct Room(Rect);

impl Room {
    fn upper(&mut self, rows: u16) -> Rect {
        let rows = rows.min(self.0.height);
        let taken = Rect {
            height: rows,
            ..self.0
        };
        self.0.y += rows;
        self.0.height -= rows;
        taken
    }

    fn lower(&mut self, rows: u16) -> Rect {
        let rows = rows.min(self.0.height);
        self.0.height -= rows;
        Rect {
            y: self.0.y + self.0.height,
            height: rows,
            ..self.0
        }
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame, state: &State, theme: Theme, now: Instant) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let least = format!("too small: {COLUMNS_MIN}x{ROWS_MIN} at least; q quits");
        frame.render_widget(wrapped(least), area);
        return;
    }
    let mut room = Room(area);
    header::draw(frame, &mut room, state, theme, now);
    footer::draw(frame, &mut room, state, theme);
    if *state.mode() == Mode::Help {
        footer::help(frame, room.0);
        return;
    }
    if area.height >= ROWS_FOR_BACKLOG {
        let rows = room.lower(BACKLOG_ROWS);
        backlog::draw(frame, rows, state, now);
    }
    if area.height >= ROWS_FOR_CAUSE {
        let rows = room.lower(CAUSE_ROWS);
        draw_cause(frame, rows, state);
    }
    table::draw(frame, room.0, state, theme);
}

/// Why nothing comes of the node that is selected, with more of it than the table has room for.
fn draw_cause(frame: &mut Frame, area: Rect, state: &State) {
    let Some(node) = state.selected() else { return };
    let cause = text::cause(&node.stats);
    if cause.is_empty() {
        return;
    }
    let text = Line::from(vec![
        Span::styled(
            format!("{}: ", text::node(node)),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw(cause),
    ]);
    frame.render_widget(wrapped(text), area);
}

fn wrapped<'a>(text: impl Into<ratatui::text::Text<'a>>) -> Paragraph<'a> {
    Paragraph::new(text).wrap(Wrap { trim: true })
}

/// How many rows a text takes at most when it is wrapped.
fn rows_of(text: &str, columns: u16) -> u16 {
    let columns = usize::from(columns.max(1));
    // Words that do not fit leave room behind them: no more than a half of each row.
    let whole = text::width(text).div_ceil(columns);
    let rows = match whole {
        0 | 1 => 1,
        rows => rows + rows.div_ceil(2),
    };
    u16::try_from(rows).unwrap_or(u16::MAX)
}
