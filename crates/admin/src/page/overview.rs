//! The first page: all at a glance.

use std::time::Duration;

use axum::{extract::State, response::Response};
use hinted_handoff::{DeadLetter, Health, NodeStats, Payload, Stats};
use maud::{Markup, html};
use tokio::time::{Instant, timeout_at};

use super::{
    act::Act,
    actions::{Done, button},
    disk, events,
    frame::Frame,
    letters, plot,
    table::{self, Order, cause, has_trouble, pill, severity},
    words,
};
use crate::{
    disk::Filling,
    extract::Query,
    form::now_unix_ms,
    health,
    problem::{Kind, Problem},
    settings::Settings,
    state::{Admin, Journal},
    summary::Summary,
    watch::Told,
};

/// Nodes whose trouble is told on top.
const TROUBLES: usize = 5;
/// Nodes whose dead letters are shown, and how many of each.
const LETTER_NODES: usize = 3;
const LETTERS: usize = 5;
/// Events that are shown.
const EVENTS: usize = 12;
/// How long the page waits for the store in all. What does not come in time is left out: who looks
/// at a store that hangs wants to see the rest.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// What the page shows.
struct Shown {
    health: Health,
    stats: Stats,
    sum: Summary,
    plots: Markup,
    filling: Filling,
    max_disk_bytes: Option<u64>,
    told: Vec<(u64, Told)>,
    watch_failed: bool,
    losses: Result<Journal, Problem>,
    letters: Vec<DeadLetter>,
}

pub async fn overview<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    order: Result<Query<Order>, Problem>,
    done: Result<Query<Done>, Problem>,
) -> Response {
    let settings = admin.settings();
    let (order, done) = match (order, done) {
        (Ok(Query(order)), Ok(Query(done))) => (order, done),
        (Err(problem), _) | (_, Err(problem)) => return frame.problem(settings, &problem),
    };
    match look(&admin).await {
        Ok(shown) => {
            let body = html! {
                (frame.top(settings, top(&shown.health)))
                main #main {
                    (done.notice(settings, &shown.stats))
                    (verdict(settings, &shown))
                    (tiles(settings, &shown))
                    section.card {
                        h2 { "The last hour" }
                        @if shown.watch_failed { p.bad-text { "The task that takes samples has failed; these are old." } }
                        (shown.plots)
                    }
                    (nodes(&frame.base, settings, &shown, order))
                    (dead_letters(&frame.base, settings, &shown))
                    (disk::card(&shown.stats.store, shown.max_disk_bytes, shown.filling))
                    (history(settings, &shown))
                }
                (footer(&frame.base, &shown.stats))
            };
            let title = match &shown.health {
                Health::Serving => "Hinted handoff".to_owned(),
                health => format!("{} · Hinted handoff", words_of(health)),
            };
            frame.live(settings, &title, &body)
        }
        Err(problem) => frame.problem(settings, &problem),
    }
}

async fn look<P: Payload>(admin: &Admin<P>) -> Result<Shown, Problem> {
    let handoff = admin.handoff()?;
    let (health, stats) = (handoff.health(), handoff.stats());
    let until = Instant::now() + LOOK_TIME;
    let with_letters = stats.nodes.iter().filter(|it| it.dead_letters.hints > 0);
    let mut letters = Vec::new();
    for node in with_letters.take(LETTER_NODES) {
        // Of a store that does not serve the rest of the page is all the more of interest.
        let of_node = admin.call(handoff.dead_letters(node.node, None, LETTERS));
        if let Ok(Ok(of_node)) = timeout_at(until, of_node).await {
            letters.extend(of_node);
        }
    }
    let losses = timeout_at(until, admin.losses()).await.unwrap_or_else(|_| {
        let detail = "the store did not say in time what was lost; look again";
        Err(Problem::new(Kind::TimedOut, detail))
    });
    Ok(Shown {
        sum: Summary::of(&stats),
        plots: plot::plots(&admin.watch().samples()),
        filling: admin.watch().filling(),
        max_disk_bytes: handoff.config().max_disk_bytes,
        told: admin.watch().told(),
        watch_failed: admin.watch().has_failed(),
        losses,
        letters,
        health,
        stats,
    })
}

fn words_of(health: &Health) -> &'static str {
    match health {
        Health::Serving => "Serving",
        Health::ReplayStopped(_) => "Replay stopped",
        Health::ShutDown => "Shut down",
        _ => "Not serving",
    }
}

fn top(health: &Health) -> Markup {
    let class = match health {
        Health::Serving => "pill good",
        _ => "pill bad",
    };
    html! {
        span.sub { "as of " (words::moment(now_unix_ms())) " UTC" }
        span #health class=(class) { (words_of(health)) }
    }
}

/// Is it serving, and if anything is the matter, what: the cause first.
fn verdict(settings: &Settings, shown: &Shown) -> Markup {
    let mut troubled: Vec<&NodeStats> = shown
        .stats
        .nodes
        .iter()
        .filter(|it| has_trouble(it))
        .collect();
    troubled.sort_by_key(|it| std::cmp::Reverse((severity(it), it.oldest_age)));
    let pending = shown.stats.store.pending.hints;
    let is_serving = matches!(shown.health, Health::Serving);
    let unhinted = unhinted(&shown.stats);
    let is_well = troubled.is_empty() && unhinted.is_none();
    let class = match is_serving && is_well {
        true => "card banner good",
        false => "card banner bad",
    };
    html! {
        section #verdict class=(class) aria-label="What is the matter" {
            @if !is_serving {
                p.verdict { (words_of(&shown.health)) }
                p.cause #cause { (health::text(&shown.health)) }
            } @else if pending == 0 {
                p.verdict { "Nothing waits." }
            } @else if troubled.is_empty() {
                p.verdict { (words::counted(pending, "hint is", "hints are")) " on the way." }
            } @else {
                p.verdict {
                    (words::counted(pending, "hint waits", "hints wait")) "; "
                    (words::counted(troubled.len() as u64, "node does", "nodes do")) " not take them."
                }
            }
            @if shown.stats.paused_all.is_some() { p { "All replay is paused by an operator." } }
            @if let Some(unhinted) = unhinted { p #unhinted { (unhinted) } }
            @if !troubled.is_empty() {
                ul.plain {
                    @for node in troubled.iter().take(TROUBLES) {
                        li {
                            @if let Some(cause) = cause(node, &shown.health) { p.cause { (cause) } }
                            p.sub {
                                "Node " (words::node(settings, node.node)) " " (pill(node)) " "
                                (words::amount(node.pending)) ", the oldest for "
                                (node.oldest_age.map(words::time).unwrap_or_default())
                            }
                        }
                    }
                }
                @if troubled.len() > TROUBLES {
                    p.sub { "And " (words::counted((troubled.len() - TROUBLES) as u64, "other node", "other nodes")) ", below." }
                }
            }
        }
    }
}

/// For which nodes no hints are made, if that is so: they miss what is not sent directly.
fn unhinted(stats: &Stats) -> Option<String> {
    let nodes = stats.nodes.iter().filter(|it| !it.hinting).count() as u64;
    match (stats.hinting, nodes) {
        (false, _) => Some("No hints are made: an operator stopped that for all nodes.".to_owned()),
        (true, 0) => None,
        (true, nodes) => {
            let nodes = words::counted(nodes, "node", "nodes");
            Some(format!(
                "No hints are made for {nodes}: an operator stopped that."
            ))
        }
    }
}

fn tile(name: &str, class: &str, value: &str, more: &str) -> Markup {
    html! {
        dl class={ "tile " (class) } {
            dt { (name) }
            dd.value { (value) }
            dd.sub { (more) }
        }
    }
}

fn tiles(settings: &Settings, shown: &Shown) -> Markup {
    let (sum, store) = (&shown.sum, &shown.stats.store);
    let waits = store.pending.hints > 0;
    let oldest = sum.oldest.filter(|_| waits);
    let since = oldest.map_or_else(|| "–".to_owned(), |(_, age)| words::time(age));
    let node = oldest.map(|(node, _)| format!("node {}", words::node(settings, node)));
    let (done, why) = match sum.caught_up_in {
        Some(left) if waits => (words::time(left), "at the rate of now".to_owned()),
        Some(_) => ("–".to_owned(), "nothing waits".to_owned()),
        None => {
            let stuck = words::counted(sum.stuck_nodes, "node takes", "nodes take");
            ("unknown".to_owned(), format!("{stuck} nothing now"))
        }
    };
    let bad = |is: bool, class: &'static str| if is { class } else { "" };
    let refused = store.refused_for_space + store.refused_when_full;
    html! {
        div.tiles {
            (tile("Waits", "", &words::count(store.pending.hints), &words::bytes(store.pending.bytes)))
            (tile("The oldest for", "", &since, &node.unwrap_or_default()))
            (tile("Done in", bad(sum.stuck_nodes > 0, "warn"), &done, &why))
            (tile("Rate", "", &words::rate(sum.delivery_rate), &format!("{} in flight", words::count(sum.in_flight))))
            (tile("Dead letters", bad(sum.dead_letters.hints > 0, "warn"), &words::count(sum.dead_letters.hints), &words::bytes(sum.dead_letters.bytes)))
            (tile("Lost since open", bad(sum.lost.hints > 0, "bad"), &words::count(sum.lost.hints), &words::bytes(sum.lost.bytes)))
            (tile("Refused since open", bad(refused > 0, "bad"), &words::count(refused), &format!("{} for want of disk", words::count(store.refused_for_space))))
            (tile("On disk", disk::class(shown.filling), &words::bytes(store.log_bytes), &disk::filling(shown.filling)))
        }
    }
}

fn nodes(base: &str, settings: &Settings, shown: &Shown, order: Order) -> Markup {
    let pause = match shown.stats.paused_all {
        Some(_) => Act::Resume,
        None => Act::Pause,
    };
    let hinting = match shown.stats.hinting {
        true => Act::StopHinting,
        false => Act::StartHinting,
    };
    html! {
        section.card #nodes {
            div.head {
                h2 { "Nodes " span.sub { (table::states(&shown.sum)) } }
                @if !settings.read_only {
                    div.right {
                        (button(base, pause, None, None))
                        (button(base, hinting, None, None))
                    }
                }
            }
            @if shown.stats.nodes.is_empty() {
                p.dim { "Nothing was hinted for any node." }
            } @else {
                (table::table(base, settings, &shown.stats, &shown.health, order))
            }
        }
    }
}

fn dead_letters(base: &str, settings: &Settings, shown: &Shown) -> Markup {
    let all = shown.sum.dead_letters.hints;
    let left = all.saturating_sub(shown.letters.len() as u64);
    html! {
        @if all > 0 {
            section.card #letters {
                h2 { "Dead letters" }
                (letters::list(base, settings, &shown.letters))
                @if left > 0 {
                    p.sub { (words::counted(left, "more is", "more are")) " on the pages of the nodes." }
                }
            }
        }
    }
}

fn history(settings: &Settings, shown: &Shown) -> Markup {
    html! {
        div.columns {
            section.card {
                h2 { "Events" }
                (events::told(settings, &shown.told, EVENTS))
            }
            section.card {
                h2 { "Losses" }
                @match &shown.losses {
                    Ok(losses) => (events::lost(settings, losses)),
                    Err(problem) => p.cause.bad { (problem.detail) },
                }
            }
        }
    }
}

fn footer(base: &str, stats: &Stats) -> Markup {
    let store = &stats.store;
    html! {
        footer {
            span { "Store " (store.store) }
            @if store.reopened > 0 { span { "reopened " (words::counted(store.reopened, "time", "times")) } }
            @if let Some(aside) = &store.moved_aside { span { "damaged store at " (aside.display().to_string()) } }
            a #to-settings href={ (base) "/settings" } { "Settings" }
            a href={ (base) "/v1/status" } { "JSON" }
            a href={ (base) "/metrics" } { "Metrics" }
        }
    }
}
