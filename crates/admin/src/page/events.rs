//! The last events and losses, in words.

use hinted_handoff::{Event, LossReason, NodeId};
use maud::{Markup, html};

use super::words;
use crate::{health, problem::with_causes, settings::Settings, state::Journal, watch::Told};

/// How an event is told: what happened, and what was said.
struct Words {
    class: &'static str,
    what: String,
    said: Option<String>,
}

impl Words {
    fn new(class: &'static str, what: impl Into<String>) -> Self {
        Words {
            class,
            what: what.into(),
            said: None,
        }
    }

    fn said(mut self, said: impl Into<String>) -> Self {
        self.said = Some(said.into());
        self
    }
}

fn words_of(settings: &Settings, told: &Told) -> Words {
    let event = match told {
        Told::Event(event) => event,
        Told::Missed(missed) => {
            let missed = words::counted(*missed, "event", "events");
            return Words::new("warn", format!("{missed} came too fast to be shown"));
        }
    };
    let of = |node: &NodeId| words::node(settings, *node);
    match event {
        Event::NodeDown { node, error, .. } => {
            Words::new("bad", format!("Node {} is down", of(node))).said(error)
        }
        Event::NodeFailing { node, error, .. } => {
            Words::new("bad", format!("Sends to node {} fail", of(node))).said(error)
        }
        Event::GateClosed { node, why, .. } => {
            Words::new("warn", format!("Writes to node {} are hinted", of(node))).said(why)
        }
        Event::GateOpened { node, .. } => {
            Words::new("good", format!("Writes are sent to node {}", of(node)))
        }
        Event::CaughtUp { node, .. } => {
            Words::new("good", format!("Node {} has caught up", of(node)))
        }
        Event::Replaying { node, .. } => Words::new("", format!("Node {} is sent to", of(node))),
        Event::Rejected {
            node, shard, error, ..
        } => {
            let what = format!(
                "A hint of shard {shard} for node {} is a dead letter",
                of(node)
            );
            Words::new("warn", what).said(error)
        }
        Event::UnknownFormat {
            node, shard, found, ..
        } => {
            let what = format!("Shard {shard} of node {} waits", of(node));
            Words::new("warn", what).said(format!("payload format {found} does not read here"))
        }
        Event::Lost(loss) if loss.reason == LossReason::Rehinted => {
            let amount = words::amount(loss.amount);
            let (node, what) = (of(&loss.node), reason(loss.reason));
            Words::new("", format!("{amount} for node {node} {what}"))
        }
        Event::Lost(loss) => {
            let what = format!(
                "{} for node {} lost",
                words::amount(loss.amount),
                of(&loss.node)
            );
            Words::new("bad", what).said(reason(loss.reason))
        }
        Event::NotStored { node, copies, .. } => {
            let what = format!(
                "{} for node {} not stored",
                words::amount(*copies),
                of(node)
            );
            Words::new("bad", what)
        }
        Event::StoreFailed(cause) => Words::new("bad", "The store failed").said(with_causes(cause)),
        Event::Reopened => Words::new("good", "The store serves again"),
        Event::ReplayStopped(why) => {
            Words::new("bad", "Replay does not run").said(with_causes(why))
        }
        Event::ReplayResumed(_) => Words::new("good", "Replay runs again"),
        Event::ShutDown => Words::new("", health::text(&hinted_handoff::Health::ShutDown)),
        _ => Words::new("", "Something that this version has no words for"),
    }
}

/// A reason in words.
pub fn reason(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Damaged => "damaged on the disk",
        LossReason::Obsolete => "their shard is gone",
        LossReason::Expired => "too old",
        LossReason::Quota => "made room for newer ones",
        LossReason::Discarded => "discarded",
        LossReason::DeadLetterQuota => "too many dead letters",
        LossReason::Purged => "their node was no member for too long",
        LossReason::NotStored => "neither sent nor stored",
        LossReason::Rehinted => "given to other nodes",
        _ => "for a reason that this version does not know",
    }
}

/// What happened last.
pub fn told(settings: &Settings, told: &[(u64, Told)], shown: usize) -> Markup {
    html! {
        @if told.is_empty() { p.dim { "Nothing since this interface began to listen." } }
        ul.plain #events {
            @for (at, told) in told.iter().take(shown) {
                @let words = words_of(settings, told);
                li {
                    p { span class={ "dot " (words.class) } {} (words.what) " " span.sub { (words::moment(*at)) " UTC" } }
                    @if let Some(said) = words.said { p.cause.sub { (words::cause(&said)) } }
                }
            }
        }
    }
}

/// What was lost last, and all that ever was.
pub fn lost(settings: &Settings, journal: &Journal) -> Markup {
    let losses = &journal.losses;
    html! {
        @if losses.by_reason.is_empty() && losses.entries.is_empty() {
            p.dim { "Nothing was ever lost." }
        } @else {
            p {
                "In all, restarts included: "
                @for (at, (why, amount)) in losses.by_reason.iter().enumerate() {
                    @if at > 0 { ", " }
                    (words::amount(*amount)) " " (reason(*why))
                }
                "."
                span.sub { " As of " (words::moment(journal.asked_unix_ms)) " UTC." }
            }
        }
        ul.plain #losses {
            @for (index, loss) in losses.entries.iter().rev() {
                li {
                    p {
                        strong { (words::amount(loss.amount)) } " for node " (words::node(settings, loss.node))
                        @if let Some(shard) = loss.shard { ", shard " (shard) }
                        ": " (reason(loss.reason))
                    }
                    p.sub { (words::moment(loss.until_unix_ms)) " UTC, entry " (index) }
                }
            }
        }
    }
}
