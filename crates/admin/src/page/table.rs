//! The table of nodes, which is sorted by links.

use std::{cmp::Reverse, time::Duration};

use hinted_handoff::{Gate, Health, NodeState, NodeStats, Pause, Stats};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{act::Act, actions::button, words};
use crate::{health, settings::Settings, summary::Summary};

/// Rows that are shown at a time.
const ROWS: usize = 100;

/// What the nodes are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Those with trouble first, then those with most that waits.
    #[default]
    State,
    Node,
    Pending,
    Age,
    Rate,
    Letters,
}

/// How the nodes are shown.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Order {
    #[serde(default)]
    pub sort: Sort,
    /// The other way round.
    #[serde(default)]
    pub reverse: bool,
    /// So many rows are passed over.
    #[serde(default)]
    pub skip: usize,
}

/// How much a state is to be worried about.
pub fn severity(node: &NodeStats) -> u8 {
    match node.state {
        NodeState::Stopped => 4,
        NodeState::Down | NodeState::Failing | NodeState::UnknownFormat => 3,
        NodeState::Paused | NodeState::Parked if node.pending.hints > 0 => 2,
        NodeState::Waiting if node.last_error.is_some() => 2,
        NodeState::CaughtUp => 0,
        _ => 1,
    }
}

/// Whether somebody should look at the node.
pub fn has_trouble(node: &NodeStats) -> bool {
    severity(node) > 1 && node.pending.hints > 0
}

/// The state in words, coloured.
pub fn pill(node: &NodeStats) -> Markup {
    let words = match node.state {
        NodeState::CaughtUp => "caught up",
        NodeState::Waiting => "waiting",
        NodeState::Replaying => "replaying",
        NodeState::Failing => "failing",
        NodeState::Down => "down",
        NodeState::Stopped => "stopped",
        NodeState::UnknownFormat => "unknown format",
        NodeState::Paused => "paused",
        NodeState::Parked => "parked",
        NodeState::Manual => "by hand",
        _ => "unknown",
    };
    let class = match severity(node) {
        0 => "pill good",
        1 => "pill",
        2 => "pill warn",
        _ => "pill bad",
    };
    html! { span class=(class) { (words) } }
}

/// Why hints wait for a node: the cause first, as it was said.
pub fn cause(node: &NodeStats, health: &Health) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    match node.state {
        NodeState::Stopped => parts.push(health::text(health)),
        NodeState::Paused => parts.push(match node.paused {
            Some(Pause::Lasting) => "Paused by an operator, over restarts too".to_owned(),
            _ => "Paused by an operator, until the next restart".to_owned(),
        }),
        NodeState::Parked => {
            let since = node.parked_since_unix_ms.map(words::moment);
            let since = since.map_or_else(String::new, |since| format!(" since {since}"));
            parts.push(format!(
                "Not named as a member{since}: it waits until it is purged"
            ));
        }
        NodeState::UnknownFormat => parts.extend(node.unknown_format.map(|it| {
            format!(
                "Shard {} waits for a build that reads payload format {} (this one writes {})",
                it.shard, it.found, it.written
            )
        })),
        _ => {}
    }
    if let Some(error) = &node.last_error
        && node.state != NodeState::CaughtUp
    {
        let at = node
            .last_error_unix_ms
            .map(words::moment)
            .unwrap_or_default();
        let error = words::cause(error);
        parts.push(format!(
            "{error}\n{}, last {at}",
            words::counted(node.attempts, "try", "tries")
        ));
    }
    if let Some(shard) = node.stalled_by {
        parts.push(format!("Stuck at shard {shard}"));
    }
    if !node.hinting {
        parts.push("No hints are made for it: an operator stopped that".to_owned());
    }
    if let Some(since) = node.direct.held_since_unix_ms {
        let since = words::moment(since);
        parts.push(format!("An operator holds its direct writes since {since}"));
    }
    if node.leaving {
        parts.push("It is removed once nothing waits".to_owned());
    }
    if parts.is_empty() && node.pending.hints > 0 && node.state == NodeState::Waiting {
        parts.push("Nothing says yet whether it takes hints".to_owned());
    }
    if parts.is_empty()
        && let Gate::Closed { why, .. } = &node.gate
    {
        parts.push(why.clone());
    }
    (!parts.is_empty()).then(|| parts.join("\n"))
}

fn sort(nodes: &mut [&NodeStats], order: Order) {
    let rate = |it: &NodeStats| (it.delivery_rate * 1000.0) as u64;
    let age = |it: &NodeStats| it.oldest_age.unwrap_or(Duration::ZERO);
    match order.sort {
        Sort::State => nodes.sort_by_key(|it| (Reverse(severity(it)), Reverse(it.pending.hints))),
        Sort::Node => nodes.sort_by_key(|it| it.node),
        Sort::Pending => nodes.sort_by_key(|it| Reverse(it.pending.hints)),
        Sort::Age => nodes.sort_by_key(|it| Reverse(age(it))),
        Sort::Rate => nodes.sort_by_key(|it| Reverse(rate(it))),
        Sort::Letters => nodes.sort_by_key(|it| Reverse(it.dead_letters.hints)),
    }
    if order.reverse {
        nodes.reverse();
    }
}

/// A heading that sorts by its column, and the other way round if that is so already.
fn heading(base: &str, order: Order, by: Sort, text: &str, class: &str) -> Markup {
    let is_by = order.sort == by;
    let down = order.reverse == (by == Sort::Node);
    let sorted = is_by.then_some(if down { "descending" } else { "ascending" });
    let name = serde_json::to_value(by).unwrap_or_default();
    let name = name.as_str().unwrap_or_default();
    let reverse = is_by && !order.reverse;
    let link = format!("{base}/?sort={name}&reverse={reverse}#nodes");
    html! {
        th class=(class) scope="col" aria-sort=[sorted] {
            a #{ "sort-" (name) } href=(link) {
                (text)
                @if is_by { span aria-hidden="true" { @if down { " ▾" } @else { " ▴" } } }
            }
        }
    }
}

/// The table. The nodes have buttons unless it is read-only, or all are paused: then none goes on
/// by being resumed.
pub fn table(
    base: &str,
    settings: &Settings,
    stats: &Stats,
    health: &Health,
    order: Order,
) -> Markup {
    let has_buttons = !settings.read_only && stats.paused_all.is_none();
    let mut nodes: Vec<&NodeStats> = stats.nodes.iter().collect();
    sort(&mut nodes, order);
    let skip = order.skip.min(nodes.len());
    let shown = nodes.iter().skip(skip).take(ROWS);
    let of = |by, text, class| heading(base, order, by, text, class);
    html! {
        table.nodes {
            thead { tr {
                (of(Sort::Node, "Node", ""))
                (of(Sort::State, "State", ""))
                (of(Sort::Pending, "Waits", "number"))
                (of(Sort::Age, "Since", "number"))
                th.number.none scope="col" { "Done in" }
                (of(Sort::Rate, "Rate", "number"))
                (of(Sort::Letters, "Dead letters", "number"))
                th.none scope="col" { "Why" }
                @if has_buttons { th.none scope="col" { span.sub { "" } } }
            } }
            tbody {
                @for node in shown { (row(base, settings, node, health, has_buttons)) }
            }
        }
        @if nodes.len() > ROWS { (pager(base, order, nodes.len(), skip)) }
    }
}

fn row(
    base: &str,
    settings: &Settings,
    node: &NodeStats,
    health: &Health,
    has_buttons: bool,
) -> Markup {
    let why = cause(node, health);
    let done = match (node.pending.hints, node.caught_up_in) {
        (0, _) => String::new(),
        (_, Some(left)) => words::time(left),
        (_, None) => "unknown".to_owned(),
    };
    let age = node.oldest_age.map(words::time).unwrap_or_default();
    let letters = node.dead_letters.hints;
    let empty = |text: &str| if text.is_empty() { " empty" } else { "" };
    html! {
        tr #{ "node-" (node.node) } {
            td.node data-is="" {
                a #{ "to-" (node.node) } href={ (base) "/nodes/" (node.node) } { (words::node(settings, node.node)) }
            }
            td data-is="State" { (pill(node)) }
            td.number data-is="Waits" {
                span { (words::count(node.pending.hints)) " " span.sub { (words::bytes(node.pending.bytes)) } }
            }
            td class={ "number" (empty(&age)) } data-is="Since" { (age) }
            td class={ "number" (empty(&done)) } data-is="Done in" { (done) }
            td class="number" data-is="Rate" { (words::rate(node.delivery_rate)) }
            td class={ "number" @if letters == 0 { " empty" } } data-is="Dead letters" {
                @if letters > 0 { (words::count(letters)) }
            }
            td class={ "why" @if why.is_none() { " empty" } } data-is="Why" {
                @if let Some(why) = why { span.cause.sub { (why) } }
            }
            @if has_buttons {
                td.act { (pause_or_resume(base, node)) }
            }
        }
    }
}

/// The button that a node has. To one whose hints are taken by hand nothing is replayed.
pub fn pause_or_resume(base: &str, node: &NodeStats) -> Markup {
    let act = match node.paused {
        Some(_) => Act::Resume,
        None => Act::Pause,
    };
    html! {
        @if node.state != NodeState::Manual { (button(base, act, Some(node.node), None)) }
    }
}

fn pager(base: &str, order: Order, nodes: usize, skip: usize) -> Markup {
    let sort = serde_json::to_value(order.sort).unwrap_or_default();
    let sort = sort.as_str().unwrap_or_default();
    let to = |skip: usize| {
        let reverse = order.reverse;
        format!("{base}/?sort={sort}&reverse={reverse}&skip={skip}#nodes")
    };
    html! {
        p.sub {
            "Nodes " (skip + 1) " to " (nodes.min(skip + ROWS)) " of " (nodes) ". "
            @if skip > 0 { a href=(to(skip.saturating_sub(ROWS))) { "Those before" } " " }
            @if skip + ROWS < nodes { a href=(to(skip + ROWS)) { "Those behind" } }
        }
    }
}

/// How many nodes are in which state, in words.
pub fn states(sum: &Summary) -> String {
    let states = sum
        .states
        .iter()
        .map(|(state, nodes)| format!("{} {}", words::count(*nodes), state.replace('_', " ")));
    states.collect::<Vec<_>>().join(", ")
}
