//! The page of a node.

use axum::{extract::State, response::Response};
use hinted_handoff::{
    Gate, HandoffError, Health, HintId, HintedHandoff, NodeId, NodeStats, Payload, PendingHint,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    act::Act,
    actions::{Done, button},
    frame::Frame,
    letters::{self, payload},
    table::{cause, pause_or_resume, pill},
    words,
};
use crate::{
    api::of_node,
    extract::{Path, Query},
    problem::Problem,
    settings::Settings,
    state::Admin,
};

/// Dead letters, and pending hints, that are shown at a time.
const LETTERS: usize = 25;
const HINTS: usize = 10;

/// What of the node is looked at.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Look {
    /// Whether the disk is read for the next hints.
    #[serde(default)]
    hints: bool,
    /// Dead letters behind this one.
    after: Option<HintId>,
}

/// What is known of a node, its dead letters, and, if that is asked for, the next hints.
pub async fn node<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    path: Result<Path<NodeId>, Problem>,
    query: Result<Query<Look>, Problem>,
    done: Result<Query<Done>, Problem>,
) -> Response {
    let settings = admin.settings();
    let shown = async {
        let (Path(node), Query(look), Query(done)) = (path?, query?, done?);
        let handoff = admin.handoff()?;
        let all = handoff.stats();
        let is_of_all = (all.paused_all.is_some(), !all.hinting);
        let notice = done.notice(settings, &all);
        let stats = of_node(all, node)?;
        let letters = match stats.dead_letters.hints {
            0 => Vec::new(),
            _ => {
                admin
                    .call(handoff.dead_letters(node, look.after, LETTERS))
                    .await?
            }
        };
        let hints = match look.hints {
            true => Some(admin.call(peeked(&handoff, node)).await?),
            false => None,
        };
        let health = handoff.health();
        let base = &frame.base;
        let buttons = match settings.read_only {
            true => html! {},
            false => buttons(base, &stats, is_of_all),
        };
        let title = format!("Node {}", words::node(settings, node));
        Ok((
            look,
            title,
            html! {
                (frame.top(settings, pill(&stats)))
                main #main {
                    (notice)
                    (head(settings, &stats, &health, &buttons))
                    (facts(&stats))
                    section.card {
                        div.head {
                            h2 { "Dead letters" }
                            @if !settings.read_only && stats.dead_letters.hints > 0 {
                                div.right {
                                    (button(base, Act::Redrive, Some(node), None))
                                    (button(base, Act::Discard, Some(node), None))
                                }
                            }
                        }
                        @if letters.is_empty() { p.dim { "None." } }
                        (letters::list(base, settings, &letters))
                        @if letters.len() == LETTERS && let Some(last) = letters.last() {
                            p { a href={ (base) "/nodes/" (node) "?after=" (last.id) } { "Those behind" } }
                        }
                    }
                    (next_hints(base, settings, node, hints.as_deref())?)
                }
            },
        ))
    };
    let shown: Result<(Look, String, Markup), Problem> = shown.await;
    match shown {
        // What reads the disk is not asked for again and again.
        Ok((look, title, body)) if look.hints => frame.still(settings, &title, &body),
        Ok((_, title, body)) => frame.live(settings, &title, &body),
        Err(problem) => frame.problem(settings, &problem),
    }
}

/// Damage is nothing to stop at here: it is told of when its turn comes.
async fn peeked<P: Payload>(
    handoff: &HintedHandoff<P>,
    node: NodeId,
) -> Result<Vec<PendingHint>, HandoffError> {
    match handoff.pending_hints(node, None, HINTS).await {
        Err(HandoffError::DamagedHint { .. }) => Ok(Vec::new()),
        hints => hints,
    }
}

/// What can be done to the node. While all are paused, or no hints are made for any, it alone
/// cannot go on.
fn buttons(base: &str, stats: &NodeStats, (all_paused, none_hinted): (bool, bool)) -> Markup {
    let hinting = match stats.hinting {
        true => Act::StopHinting,
        false => Act::StartHinting,
    };
    let direct = match stats.direct.held_since_unix_ms {
        None => Act::HoldDirect,
        Some(_) => Act::ReleaseDirect,
    };
    html! {
        div.right {
            @if !all_paused { (pause_or_resume(base, stats)) }
            @if !none_hinted { (button(base, hinting, Some(stats.node), None)) }
            (button(base, direct, Some(stats.node), None))
        }
    }
}

fn head(settings: &Settings, stats: &NodeStats, health: &Health, buttons: &Markup) -> Markup {
    html! {
        section.card {
            div.head {
                h2 { "Node " (words::node(settings, stats.node)) }
                (buttons)
            }
            @match cause(stats, health) {
                Some(cause) => p.cause { (cause) },
                None => p.dim { "Nothing is the matter with it." },
            }
        }
    }
}

fn facts(stats: &NodeStats) -> Markup {
    let ago = stats.oldest_age.map(words::time);
    let direct = &stats.direct;
    let facts = [
        ("Pending", words::amount(stats.pending)),
        ("Oldest", ago.unwrap_or_else(|| "none".to_owned())),
        (
            "Caught up in",
            match stats.caught_up_in {
                Some(left) => words::time(left),
                None => "unknown".to_owned(),
            },
        ),
        ("Rate", words::rate(stats.delivery_rate)),
        ("In flight", words::count(stats.in_flight)),
        ("Enqueued since open", words::amount(stats.enqueued)),
        ("Delivered since open", words::amount(stats.delivered)),
        ("Left undelivered since open", words::amount(stats.lost)),
        ("Too old since open", words::amount(stats.expired)),
        ("Dropped for room since open", words::amount(stats.dropped)),
        ("Not stored since open", words::amount(stats.not_stored)),
        (
            "Became dead letters since open",
            words::amount(stats.dead_lettered),
        ),
        (
            "Dead letters evicted since open",
            words::amount(stats.letters_evicted),
        ),
        ("Withdrawn since open", words::amount(stats.withdrawn)),
        ("Refused since open", words::count(stats.refused)),
        ("Failed sends since open", words::count(stats.failures)),
        (
            "Direct writes",
            match &stats.gate {
                Gate::Open => "are sent".to_owned(),
                Gate::Closed {
                    since_unix_ms, why, ..
                } => {
                    format!(
                        "are hinted since {} UTC: {why}",
                        words::moment(*since_unix_ms)
                    )
                }
                _ => String::new(),
            },
        ),
        (
            "Direct writes since open",
            format!(
                "{} taken, {} failed, {} rejected, {} not tried, {} under way",
                words::count(direct.taken),
                words::count(direct.failed),
                words::count(direct.rejected),
                words::count(direct.not_tried),
                words::count(direct.outstanding.hints),
            ),
        ),
    ];
    html! {
        section.card {
            h2 { "Figures" }
            dl.facts {
                @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

fn next_hints(
    base: &str,
    settings: &Settings,
    node: NodeId,
    hints: Option<&[PendingHint]>,
) -> Result<Markup, Problem> {
    let Some(hints) = hints else {
        return Ok(html! {
            section.card {
                h2 { "Next hints" }
                p { a #peek href={ (base) "/nodes/" (node) "?hints=true" } { "Look at the next " (HINTS) } }
            }
        });
    };
    let shown = hints
        .iter()
        .map(|it| Ok((it, payload(settings, it.format, &it.raw)?)));
    let shown = shown.collect::<Result<Vec<_>, Problem>>()?;
    Ok(html! {
        section.card {
            h2 { "Next hints" }
            @if shown.is_empty() { p.dim { "None, or the next one does not read." } }
            ul.plain #hints {
                @for (hint, payload) in shown {
                    li {
                        p { "Shard " (hint.shard) " " span.sub { (hint.id) } }
                        (payload)
                    }
                }
            }
        }
    })
}
