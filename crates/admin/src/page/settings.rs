//! The settings, and a form for those that can change while the host runs.

use std::collections::BTreeMap;

use axum::{
    Form,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use hinted_handoff::{Config, Payload};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::frame::Frame;
use crate::{
    api::{costs_of, reconfigure},
    extract::Query,
    guard::{check_token, may_send_form},
    problem::Problem,
    settings::Settings,
    state::Admin,
};

/// What each of [`Config::CHANGEABLE`] is, as the form has them one after the other.
const LIVE: [(&str, &str); 20] = [
    (
        "retry_rate_limit",
        "Payload bytes a second that replay sends to one node; 0 is no limit",
    ),
    ("retry_rate_limit_total", "The same to all nodes together"),
    ("max_in_flight", "Sends of replay to one node at a time"),
    ("max_sends", "Sends of replay to all nodes at a time"),
    ("max_bytes_in_flight", "Payload bytes in all these sends"),
    ("batch_bytes", "Payload bytes in one send of replay"),
    (
        "send_timeout",
        "How long one ping or send of replay may take",
    ),
    (
        "window_hints",
        "Hints of one node that replay holds in memory",
    ),
    ("window_bytes", "The same in payload bytes"),
    (
        "max_attempts",
        "Failed sends until a hint is a dead letter; 0 is no limit",
    ),
    ("max_age", "Older hints leave undelivered; 0s is no limit"),
    ("max_hints", "Hints that may be pending; empty is no limit"),
    ("max_bytes", "The same in payload bytes"),
    (
        "max_hints_per_node",
        "Hints that may be pending for one node; empty is no limit",
    ),
    ("max_bytes_per_node", "The same in payload bytes"),
    ("max_entry_bytes", "Payload bytes of the largest hint"),
    ("write_timeout", "How long one direct write may take"),
    ("answer", "When a write is answered: level or accounted"),
    (
        "on_not_stored",
        "If a copy of a write could be neither sent nor stored: `report` it, or `fail` the write",
    ),
    (
        "fail_early",
        "Whether a write is an error once its level cannot be reached: true or false",
    ),
];

/// What a form has of a setting beside its value: the value that was there before.
const WAS: &str = "was-";
/// The changes whose costs were shown.
const SURE: &str = "sure";

/// Texts by their names.
type Texts = BTreeMap<String, String>;

/// What was changed just now.
#[derive(Debug, Deserialize)]
pub struct Changed {
    changed: Option<String>,
}

pub async fn shown<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    changed: Result<Query<Changed>, Problem>,
) -> Response {
    let settings = admin.settings();
    let shown = changed.and_then(|Query(it)| Ok((it.changed, in_effect(&admin)?)));
    let (changed, values) = match shown {
        Ok(shown) => shown,
        Err(problem) => return frame.problem(settings, &problem),
    };
    let notice = html! {
        @if let Some(changed) = changed {
            p.card.banner.good #done role="status" { (told(&changed)) }
        }
    };
    let body = match settings.read_only {
        true => list("Can change while it runs", &values, is_live),
        false => form(&frame, admin.token(), &values, &values, ""),
    };
    frame.still(
        settings,
        "Settings",
        &page(&frame, settings, notice, body, &values),
    )
}

/// Changes what differs in a form from what was there before.
pub async fn change<P: Payload>(
    frame: Frame,
    State(admin): State<Admin<P>>,
    headers: HeaderMap,
    sent: Result<Form<Texts>, FormRejection>,
) -> Response {
    let settings = admin.settings();
    let sent = match received(&admin, &headers, sent) {
        Ok(sent) => sent,
        Err(problem) => return frame.problem(settings, &problem),
    };
    let changes = changes(&sent);
    let names: Vec<&str> = changes.keys().map(String::as_str).collect();
    let to = format!("{}/settings?changed={}", frame.base, names.join(","));
    let sure = Value::Object(changes.clone()).to_string();
    // Of what was shown and no other change.
    let is_sure = sent.get(SURE) == Some(&sure);
    let done = match costs_of(&admin, changes.clone()) {
        Ok(costs) if !costs.is_empty() && !is_sure => {
            let notice = html! {
                section.card.banner.doubtful role="alert" {
                    p.verdict #costs {
                        "Nothing is changed yet. With this change hints would leave undelivered, "
                        "or new ones would be refused:"
                    }
                    @for cost in &costs { p.cause { (cost) } }
                }
            };
            return again(&frame, &admin, &sent, notice, (StatusCode::OK, &sure));
        }
        Ok(_) if changes.is_empty() => Ok(()),
        Ok(_) => reconfigure(&admin, changes).await,
        Err(problem) => Err(problem),
    };
    match done {
        Ok(()) => Redirect::to(&to).into_response(),
        Err(problem) => refused(&frame, &admin, &sent, &problem),
    }
}

/// The form as it was sent, with why it was not done.
fn refused<P: Payload>(
    frame: &Frame,
    admin: &Admin<P>,
    sent: &Texts,
    problem: &Problem,
) -> Response {
    let notice = html! {
        section.card.banner.bad role="alert" {
            p.verdict #problem { "Nothing was changed." }
            p.cause { (problem.detail) }
        }
    };
    again(frame, admin, sent, notice, (problem.status(), ""))
}

/// The form as it was sent, below a notice.
fn again<P: Payload>(
    frame: &Frame,
    admin: &Admin<P>,
    sent: &Texts,
    notice: Markup,
    (status, sure): (StatusCode, &str),
) -> Response {
    let settings = admin.settings();
    let values = match in_effect(admin) {
        Ok(values) => values,
        Err(problem) => return frame.problem(settings, &problem),
    };
    let before = sent.iter().filter_map(|(name, text)| {
        let name = name.strip_prefix(WAS)?;
        Some((name.to_owned(), text.clone()))
    });
    let form = form(frame, admin.token(), sent, &before.collect(), sure);
    let page = page(frame, settings, notice, form, &values);
    let mut response = frame.still(settings, "Settings", &page);
    *response.status_mut() = status;
    response
}

fn received<P: Payload>(
    admin: &Admin<P>,
    headers: &HeaderMap,
    sent: Result<Form<Texts>, FormRejection>,
) -> Result<Texts, Problem> {
    may_send_form(admin.settings(), headers)?;
    let Form(sent) = sent.map_err(|error| Problem::invalid(error.body_text()))?;
    let token = sent.get("token").map(String::as_str).unwrap_or_default();
    check_token(token, admin.token())?;
    Ok(sent)
}

/// What is not as it was. The others stay, also if somebody else changed them meanwhile.
fn changes(sent: &Texts) -> Map<String, Value> {
    let changed = Config::CHANGEABLE.iter().filter_map(|name| {
        let text = sent.get(*name)?.trim();
        let was = sent.get(&format!("{WAS}{name}"))?;
        (text != was).then(|| ((*name).to_owned(), value(text)))
    });
    changed.collect()
}

/// As it would be in a file: a number, a choice of two, or a text; nothing is no limit.
fn value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(plain @ (Value::Number(_) | Value::Bool(_))) => plain,
        _ if text.is_empty() => Value::Null,
        _ => Value::String(text.to_owned()),
    }
}

/// All settings in effect. What is not set is no text.
fn in_effect<P: Payload>(admin: &Admin<P>) -> Result<Texts, Problem> {
    let config = serde_json::to_value(&*admin.handoff()?.config());
    let config = config.map_err(|error| Problem::invalid(error.to_string()))?;
    let set = config.as_object().into_iter().flatten();
    let mut all: Texts = set
        .map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            (name.clone(), text.unwrap_or_else(|| value.to_string()))
        })
        .collect();
    for name in Config::CHANGEABLE {
        all.entry((*name).to_owned()).or_default();
    }
    Ok(all)
}

fn is_live(name: &str) -> bool {
    Config::CHANGEABLE.contains(&name)
}

/// The names are from an address, which anybody may have made.
fn told(changed: &str) -> String {
    let names: Vec<&str> = changed.split(',').filter(|name| is_live(name)).collect();
    match names.is_empty() {
        true => "Nothing was changed.".to_owned(),
        false => format!("Changed: {}.", names.join(", ")),
    }
}

fn page(
    frame: &Frame,
    settings: &Settings,
    notice: Markup,
    body: Markup,
    values: &Texts,
) -> Markup {
    html! {
        (frame.top(settings, html! {}))
        main #main {
            (notice)
            (body)
            (list("Cannot change while it runs", values, |name| !is_live(name)))
            p { a href={ (frame.base) "/" } { "Back to the overview" } }
        }
    }
}

fn form(frame: &Frame, token: &str, values: &Texts, before: &Texts, sure: &str) -> Markup {
    let of = |texts: &Texts, name: &str| texts.get(name).cloned().unwrap_or_default();
    html! {
        section.card {
            h2 { "Settings" }
            p.sub {
                "In effect at once, until the store is opened again. Sizes are bytes, or such as "
                "64MiB; times such as 10s or 2h."
            }
            form #settings method="post" action={ (frame.base) "/settings" } {
                input type="hidden" name="token" value=(token);
                @if !sure.is_empty() { input type="hidden" name=(SURE) value=(sure); }
                div.settings {
                    @for (name, about) in LIVE {
                        div {
                            label for=(name) { (name) }
                            input type="text" id=(name) name=(name) value=(of(values, name))
                                autocomplete="off" spellcheck="false" aria-describedby={ "about-" (name) };
                            input type="hidden" name={ (WAS) (name) } value=(of(before, name));
                            span.sub id={ "about-" (name) } { (about) }
                        }
                    }
                }
                div.choices {
                    button.main #save { @if sure.is_empty() { "Change" } @else { "Change all the same" } }
                    a href={ (frame.base) "/" } { "Leave them as they are" }
                }
            }
        }
    }
}

fn list(title: &str, values: &Texts, is_meant: fn(&str) -> bool) -> Markup {
    html! {
        section.card {
            h2 { (title) }
            dl.facts {
                @for (name, text) in values.iter().filter(|(name, _)| is_meant(name)) {
                    div {
                        dt { (name) }
                        dd { @if text.is_empty() { "none" } @else { (text) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_is_changed_in_the_form_of_a_file() {
        let sent = [
            ("token", "abc"),
            ("max_age", " 2h "),
            ("was-max_age", "0s"),
            ("max_sends", "256"),
            ("was-max_sends", "256"),
            ("max_in_flight", "12"),
            ("was-max_in_flight", "8"),
            ("fail_early", "false"),
            ("was-fail_early", "true"),
            ("max_hints", ""),
            ("was-max_hints", "100"),
            // Nobody saw what it was.
            ("max_bytes", "1MiB"),
            // No form has it.
            ("dir", "elsewhere"),
            ("was-dir", "here"),
        ];
        let sent = sent.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let expected = serde_json::json!({
            "max_age": "2h", "max_in_flight": 12, "fail_early": false, "max_hints": null,
        });
        assert_eq!(Value::Object(changes(&sent.into())), expected);
    }

    #[test]
    fn of_what_an_address_says_was_changed_only_settings_are_told() {
        assert_eq!(
            told("max_age,<b>,dir,max_sends"),
            "Changed: max_age, max_sends."
        );
        assert_eq!(told(""), "Nothing was changed.");
    }
}
