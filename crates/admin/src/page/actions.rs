//! What can be done on the page: asked first, then done.

use axum::{
    Form,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use hinted_handoff::{HintId, HintedHandoff, NodeId, Pause, Payload, Stats};
use maud::{Markup, html};
use serde::Deserialize;

use super::{act::Act, frame::Frame, words};
use crate::{
    api::of_node,
    extract::Query,
    guard::{check_token, may_send_form, may_write},
    problem::Problem,
    settings::Settings,
    state::Admin,
};

/// What is to be done, to what.
#[derive(Debug, Clone, Deserialize)]
pub struct Asked {
    #[serde(rename = "do")]
    act: Act,
    node: Option<NodeId>,
    hint: Option<HintId>,
}

/// A button that leads to the question.
pub fn button(base: &str, act: Act, node: Option<NodeId>, hint: Option<HintId>) -> Markup {
    let id = match (node, hint) {
        (_, Some(hint)) => format!("{}-{}-{}", act.name(), hint.queue, hint.sequence),
        (Some(node), None) => format!("{}-{node}", act.name()),
        (None, None) => format!("{}-all", act.name()),
    };
    let class = if act.is_grave() { "danger" } else { "" };
    let all = node.is_none() || (hint.is_none() && matches!(act, Act::Redrive | Act::Discard));
    html! {
        form.inline method="get" action={ (base) "/confirm" } {
            input type="hidden" name="do" value=(act.name());
            @if let Some(node) = node { input type="hidden" name="node" value=(node); }
            @if let Some(hint) = hint { input type="hidden" name="hint" value=(hint); }
            button id=(id) class=(class) { (act.label(all)) }
        }
    }
}

/// Asks whether it is to be done, and says what it would do.
pub async fn confirm<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    asked: Result<Query<Asked>, Problem>,
) -> Response {
    let settings = admin.settings();
    let asked = match may_write(settings).and(asked) {
        Ok(Query(asked)) => asked,
        Err(problem) => return frame.problem(settings, &problem),
    };
    let nodes = admin
        .handoff()
        .map(|it| it.stats().nodes)
        .unwrap_or_default();
    let node = nodes.iter().find(|it| Some(it.node) == asked.node);
    let object = asked.act.object(settings, asked.node, asked.hint);
    let verb = asked.act.verb();
    let class = match asked.act.is_grave() {
        true => "main danger",
        false => "main",
    };
    let body = html! {
        (frame.top(settings, html! {}))
        main #main {
            section.card {
                h2 #question { (verb) " " (object) "?" }
                p { (asked.act.effect(node, asked.hint.is_some())) }
                form method="post" action={ (frame.base) "/do" } {
                    input type="hidden" name="token" value=(admin.token());
                    input type="hidden" name="do" value=(asked.act.name());
                    @if let Some(node) = asked.node { input type="hidden" name="node" value=(node); }
                    @if let Some(hint) = asked.hint { input type="hidden" name="hint" value=(hint); }
                    @if asked.act == Act::Pause {
                        fieldset {
                            label { input type="radio" name="pause" value="until_restart" checked; " until the next restart, or until it is resumed" }
                            label { input type="radio" name="pause" value="lasting"; " over restarts, until it is resumed" }
                        }
                    }
                    div.choices {
                        button #yes class=(class) { (verb) " " (object) }
                        a #no href={ (frame.base) "/" } { "Leave it as it is" }
                    }
                }
            }
        }
    };
    frame.still(settings, &format!("{verb} {object}?"), &body)
}

/// A form that was sent.
#[derive(Debug, Deserialize)]
pub struct Sent {
    token: String,
    // Not a flattened `Asked`: numbers in a form are texts, which serde forgets there.
    #[serde(rename = "do")]
    act: Act,
    node: Option<NodeId>,
    hint: Option<HintId>,
    pause: Option<Pause>,
}

/// Does it, and leads back.
pub async fn act<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    headers: HeaderMap,
    sent: Result<Form<Sent>, axum::extract::rejection::FormRejection>,
) -> Response {
    match acted(&admin, &headers, sent).await {
        Ok(asked) => {
            let page = asked.act.page(asked.node);
            let node = asked
                .node
                .map(|it| format!("&node={it}"))
                .unwrap_or_default();
            let to = format!("{}{page}?done={}{node}", frame.base, asked.act.name());
            Redirect::to(&to).into_response()
        }
        Err(problem) => frame.problem(admin.settings(), &problem),
    }
}

async fn acted<P: Payload>(
    admin: &Admin<P>,
    headers: &HeaderMap,
    sent: Result<Form<Sent>, axum::extract::rejection::FormRejection>,
) -> Result<Asked, Problem> {
    may_send_form(admin.settings(), headers)?;
    let Form(sent) = sent.map_err(|error| Problem::invalid(error.body_text()))?;
    check_token(&sent.token, admin.token())?;
    let handoff = admin.handoff()?;
    let pause = sent.pause.unwrap_or(Pause::UntilRestart);
    let asked = Asked {
        act: sent.act,
        node: sent.node,
        hint: sent.hint,
    };
    match (asked.act, asked.node, asked.hint) {
        (Act::Pause, Some(node), _) => admin.call(handoff.pause(node, pause)).await?,
        (Act::Pause, None, _) => admin.call(handoff.pause_all(pause)).await?,
        (Act::Resume, Some(node), _) => admin.call(handoff.resume(node)).await?,
        (Act::Resume, None, _) => admin.call(handoff.resume_all()).await?,
        (Act::Redrive, Some(node), Some(hint)) => {
            admin.call(handoff.redrive(node, hint)).await.map(drop)?;
        }
        (Act::Redrive, Some(node), None) => {
            admin.call(handoff.redrive_all(node)).await.map(drop)?;
        }
        (Act::Discard, Some(node), Some(hint)) => {
            admin.call(handoff.discard(node, &[hint])).await.map(drop)?;
        }
        (Act::Discard, Some(node), None) => {
            admin.call(handoff.discard_all(node)).await.map(drop)?;
        }
        (Act::StopHinting, None, _) => handoff.stop_hinting_all(),
        (Act::StartHinting, None, _) => handoff.start_hinting_all(),
        (Act::StopHinting, Some(node), _) => handoff.stop_hinting(known(&handoff, node)?),
        (Act::StartHinting, Some(node), _) => handoff.start_hinting(known(&handoff, node)?),
        (Act::HoldDirect, Some(node), _) => handoff.hold_direct(known(&handoff, node)?),
        (Act::ReleaseDirect, Some(node), _) => handoff.release_direct(known(&handoff, node)?),
        (Act::HoldDirect | Act::ReleaseDirect | Act::Redrive | Act::Discard, None, _) => {
            return Err(Problem::invalid("say of which node"));
        }
    }
    Ok(asked)
}

/// The library takes any number; what is done to a node that has no page is seen nowhere.
fn known<P: Payload>(handoff: &HintedHandoff<P>, node: NodeId) -> Result<NodeId, Problem> {
    of_node(handoff.stats(), node).map(|it| it.node)
}

/// What was done just now, as the page that follows says it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Done {
    done: Option<Act>,
    node: Option<NodeId>,
}

impl Done {
    pub fn notice(self, settings: &Settings, stats: &Stats) -> Markup {
        let of = self.node.map_or_else(
            || "all nodes".to_owned(),
            |node| format!("node {}", words::node(settings, node)),
        );
        let done = self.done;
        let text = done.and_then(|done| done.done(&of, stats, self.node));
        html! {
            @if let Some(text) = text { p.card.banner.good #done role="status" { (text) } }
        }
    }
}
