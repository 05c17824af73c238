//! The nodes: as many as there are rows for, around the one that is selected.

use hinted_handoff::{NodeState, NodeStats};
use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::Theme;
use crate::{
    output::Tone,
    verbs::{
        nodes::Named,
        top::{
            state::{Order, State},
            text,
        },
    },
};

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Node,
    State,
    Pending,
    Bytes,
    Oldest,
    In,
    Out,
    DoneIn,
    Cause,
}

use Column::*;

/// From left to right.
const COLUMNS: [Column; 9] = [Node, State, Pending, Bytes, Oldest, In, Out, DoneIn, Cause];
/// What comes first where there is no room for all.
const BY_WORTH: [Column; 9] = [Node, State, Pending, Oldest, Out, DoneIn, In, Bytes, Cause];
/// A name gets more where there is more.
const NODE_MAX: usize = 32;

impl Column {
    /// How many terminal columns it takes at least.
    fn width(self) -> usize {
        match self {
            Node => 8,
            State => 9,
            Pending | Bytes => 10,
            Oldest | DoneIn => 8,
            In | Out => 7,
            Cause => 16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Node => "node",
            State => "state",
            Pending => "pending",
            Bytes => "bytes",
            Oldest => "oldest",
            In => "in/s",
            Out => "out/s",
            DoneIn => "done in",
            Cause => "cause",
        }
    }

    /// Whether it stands at the left edge of its column.
    fn is_left(self) -> bool {
        matches!(self, Node | State | Cause)
    }

    fn is_of(self, order: Order) -> bool {
        self.name() == order.name()
    }

    fn cell(self, state: &State, node: &Named) -> String {
        let it = &node.stats;
        match self {
            Node => text::node(node),
            State => text::state(it.state),
            Pending => text::count(it.pending.hints),
            Bytes => text::bytes(it.pending.bytes),
            Oldest => text::duration(it.oldest_age),
            In => text::rate(state.rates_of(it.node).into),
            Out => text::rate(state.rates_of(it.node).out),
            DoneIn => text::duration(it.caught_up_in),
            Cause => text::cause(it),
        }
    }
}

/// The columns that there is room for, with their widths.
fn columns_in(width: usize, longest_name: usize) -> Vec<(Column, usize)> {
    let mut left = width + 1;
    let mut fitting = Vec::new();
    for column in BY_WORTH {
        let takes = column.width() + 1;
        if takes > left {
            break;
        }
        left -= takes;
        fitting.push(column);
    }
    let for_name = longest_name.min(NODE_MAX).saturating_sub(Node.width());
    let for_name = for_name.min(left);
    left -= for_name;
    let shown = COLUMNS.into_iter().filter(|it| fitting.contains(it));
    let shown = shown.map(|column| match column {
        Node => (column, column.width() + for_name),
        Cause => (column, column.width() + left),
        column => (column, column.width()),
    });
    shown.collect()
}

pub fn draw(frame: &mut Frame, area: Rect, state: &State, theme: Theme) {
    let Some(rows) = usize::from(area.height).checked_sub(1) else {
        return;
    };
    let nodes = state.nodes();
    let selected = state.selected_at().unwrap_or(0);
    let first = selected.checked_div(rows).unwrap_or(0) * rows;
    let shown = || nodes.iter().skip(first).take(rows);
    let longest = shown().map(|it| text::width(&text::node(it))).max();
    let columns = columns_in(area.width.into(), longest.unwrap_or(0));
    let row = |at: usize| Rect {
        y: area.y + at as u16,
        height: 1,
        ..area
    };
    let head = columns.iter().map(|&(column, width)| {
        let name = aligned(column, column.name(), width);
        let style = Style::new().add_modifier(Modifier::UNDERLINED);
        match column.is_of(state.order()) {
            true => Span::styled(name, style.add_modifier(Modifier::BOLD)),
            false => Span::styled(name, style),
        }
    });
    frame.render_widget(in_line(head), row(0));
    for (at, node) in shown().enumerate() {
        let cells = columns.iter().map(|&(column, width)| {
            let cell = aligned(column, &column.cell(state, node), width);
            match (column, tone(&node.stats)) {
                (State, Some(tone)) => Span::styled(cell, theme.tone(tone)),
                _ => Span::raw(cell),
            }
        });
        let mut line = in_line(cells);
        if first + at == selected {
            line = line.patch_style(Style::new().add_modifier(Modifier::REVERSED));
        }
        frame.render_widget(line, row(at + 1));
    }
}

/// Cells with a column between two.
fn in_line<'a>(cells: impl Iterator<Item = Span<'a>>) -> Line<'a> {
    let mut spans = Vec::new();
    for cell in cells {
        if !spans.is_empty() {
            spans.push(Span::raw(" "));
        }
        spans.push(cell);
    }
    Line::from(spans)
}

fn aligned(column: Column, cell: &str, width: usize) -> String {
    let cell = text::cut(cell, width);
    let space = " ".repeat(width.saturating_sub(text::width(&cell)));
    match column.is_left() {
        true => cell + &space,
        false => space + &cell,
    }
}

/// What a state means for whom it is the state of.
fn tone(node: &NodeStats) -> Option<Tone> {
    match node.state {
        NodeState::CaughtUp | NodeState::Replaying => Some(Tone::Good),
        NodeState::Failing | NodeState::Paused | NodeState::Parked => Some(Tone::Doubtful),
        NodeState::Down | NodeState::Stopped | NodeState::UnknownFormat => Some(Tone::Bad),
        _ => None,
    }
}
