//! What waited at the last answers, as bars: of the node that is selected, and of all.

use std::time::Instant;

use hinted_handoff::NodeId;
use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::Line,
    widgets::{RenderDirection, Sparkline},
};

use crate::verbs::top::{history::ANSWERS_MAX, state::State, text};

/// A screen that is narrower has the bars of the node alone.
const COLUMNS_FOR_TWO: u16 = 60;
/// Steps of a bar within a row.
const STEPS: u64 = 8;

pub fn draw(frame: &mut Frame, area: Rect, state: &State, now: Instant) {
    let selected = state.selected();
    let of_node = selected.map(|it| (it.stats.node, text::node(it)));
    let areas = match (area.width >= COLUMNS_FOR_TWO, &of_node) {
        (true, Some(_)) => {
            let half = (area.width - 2) / 2;
            let left = Rect {
                width: half,
                ..area
            };
            let right = Rect {
                x: area.x + half + 2,
                width: area.width - half - 2,
                ..area
            };
            (Some(left), Some(right))
        }
        (false, Some(_)) => (Some(area), None),
        (_, None) => (None, Some(area)),
    };
    if let (Some(area), Some((node, called))) = (areas.0, of_node) {
        one(frame, area, state, Some(node), &called, now);
    }
    if let Some(area) = areas.1 {
        one(frame, area, state, None, "all nodes", now);
    }
}

fn one(
    frame: &mut Frame,
    area: Rect,
    state: &State,
    node: Option<NodeId>,
    called: &str,
    now: Instant,
) {
    let shown = usize::from(area.width).min(ANSWERS_MAX);
    let history = state.history();
    let newest_first: Vec<u64> = history.newest_first(node).take(shown).collect();
    let Some(most) = newest_first.iter().copied().max() else {
        return;
    };
    let since = history.time_of(newest_first.len() - 1);
    let since = since.map(|it| now.saturating_duration_since(it));
    let title = format!(
        "at most {} in {}: backlog of {called}",
        text::count(most),
        text::duration(since)
    );
    let title = text::cut(&title, area.width.into());
    let style = Style::new().add_modifier(Modifier::BOLD);
    let title_row = Rect { height: 1, ..area };
    frame.render_widget(Line::styled(title, style), title_row);
    let bars_area = Rect {
        y: area.y + 1,
        height: area.height.saturating_sub(1),
        ..area
    };
    let steps = u64::from(bars_area.height) * STEPS;
    let bars = Sparkline::default()
        .direction(RenderDirection::RightToLeft)
        .max(steps)
        .data(newest_first.into_iter().map(|it| step(it, most, steps)));
    frame.render_widget(bars, bars_area);
}

/// The height of a bar. Whatever is not nothing is seen.
fn step(hints: u64, most: u64, steps: u64) -> u64 {
    let scaled = (u128::from(hints) * u128::from(steps)).div_ceil(u128::from(most.max(1)));
    u64::try_from(scaled).unwrap_or(steps)
}
