//! The page of the settings, and its form.

use std::time::Duration;

use axum::{Router, http::StatusCode};
use hinted_handoff::Config;
use hinted_handoff_admin::Settings;

use crate::common::*;

/// What stands in the page between two texts, each time.
fn between<'p>(page: &'p str, before: &str, after: &str) -> Vec<&'p str> {
    let found = page.split(before).skip(1);
    found.map(|it| it.split(after).next().unwrap()).collect()
}

fn value_of(page: &str, name: &str) -> String {
    let found = between(page, &format!("name=\"{name}\" value=\""), "\"");
    assert_eq!(found.len(), 1, "{name}: {page}");
    found[0].to_owned()
}

/// The form of this page with other values in it, as a browser sends it.
fn filled(page: &str, with: &[(&str, &str)]) -> String {
    let mut form = format!("token={}", value_of(page, "token"));
    for name in between(page, "<input type=\"text\" id=\"", "\"") {
        let was = value_of(page, &format!("was-{name}"));
        let typed = with.iter().find(|(of, _)| *of == name);
        let typed = typed.map_or(value_of(page, name), |(_, typed)| (*typed).to_owned());
        form += &format!(
            "&{name}={}&was-{name}={}",
            typed.replace(' ', "+"),
            was.replace(' ', "+")
        );
    }
    form
}

async fn send_settings(router: &Router, form: &str) -> Answer {
    send_form(router, "/settings", &[], form).await
}

#[tokio::test]
async fn the_form_has_the_settings_that_can_change_and_no_others() {
    let host = Host::start().await;
    let router = host.writable();
    let page = get(&router, "/settings").await;
    assert_eq!(page.status, StatusCode::OK);
    let form = between(page.text(), "<input type=\"text\" id=\"", "\"");
    let mut form: Vec<&str> = form.into_iter().collect();
    form.sort_unstable();
    let mut changeable = Config::CHANGEABLE.to_vec();
    changeable.sort_unstable();
    assert_eq!(form, changeable);
    let known = get(&router, "/v1/config").await.ok();
    for name in known.as_object().unwrap().keys() {
        assert!(page.text().contains(name.as_str()), "{name} is not shown");
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_form_shows_what_is_in_effect_and_changes_what_was_typed_alone() {
    let host = Host::start().await;
    let router = host.writable();
    let page = get(&router, "/settings").await.text().to_owned();
    assert_eq!(value_of(&page, "max_in_flight"), "8");
    assert_eq!(value_of(&page, "send_timeout"), "10s");
    assert_eq!(value_of(&page, "max_bytes_in_flight"), "64MiB");
    assert_eq!(value_of(&page, "max_hints"), "");
    // Somebody else changes one meanwhile, which stays.
    host.handoff
        .reconfigure(|config| config.max_sends = 77)
        .await
        .unwrap();
    let typed = [
        ("max_in_flight", "12"),
        ("max_age", "1h 30m"),
        ("max_hints", "1000"),
        ("fail_early", "false"),
    ];
    let done = send_settings(&router, &filled(&page, &typed)).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text());
    let config = host.handoff.config();
    assert_eq!((config.max_in_flight, config.max_hints), (12, Some(1000)));
    assert_eq!(config.max_age, Duration::from_secs(5400));
    assert!(!config.fail_early);
    assert_eq!(config.max_sends, 77, "it was not typed");

    let page = get(&router, done.headers["location"].to_str().unwrap()).await;
    let page = page.text().to_owned();
    assert!(
        page.contains("Changed: fail_early, max_age, max_hints, max_in_flight."),
        "{page}"
    );
    assert_eq!(value_of(&page, "max_in_flight"), "12");
    assert_eq!(value_of(&page, "max_sends"), "77");
    // What is emptied is no limit.
    let done = send_settings(&router, &filled(&page, &[("max_hints", "")])).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text());
    assert_eq!(host.handoff.config().max_hints, None);
    let page = get(&router, "/settings").await.text().to_owned();
    let none = send_settings(&router, &filled(&page, &[])).await;
    let page = get(&router, none.headers["location"].to_str().unwrap()).await;
    assert!(page.text().contains("Nothing was changed."));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_refused_is_told_with_its_text_and_what_was_typed_stays() {
    let host = Host::start().await;
    let router = host.writable();
    let page = get(&router, "/settings").await.text().to_owned();
    let before = host.handoff.config();
    for (name, typed, why) in [
        ("max_in_flight", "0", "max_in_flight = 0"),
        ("send_timeout", "soon", "send_timeout = &quot;soon&quot;"),
        (
            "max_sends",
            "<b>many",
            "max_sends = &quot;&lt;b&gt;many&quot;",
        ),
        ("batch_bytes", "", "batch_bytes: it needs a value"),
        ("answer", "never", "unknown variant `never`"),
    ] {
        let form = filled(&page, &[("max_attempts", "5"), (name, typed)]);
        let refused = send_settings(&router, &form).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{name}");
        let text = refused.text().replace("&#39;", "'");
        assert!(text.contains("Nothing was changed."), "{text}");
        assert!(text.contains(why), "{why}: {text}");
        let shown = typed.replace('<', "&lt;").replace('>', "&gt;");
        assert_eq!(value_of(&text, name), shown);
        assert_eq!(value_of(&text, "max_attempts"), "5");
        assert_eq!(value_of(&text, "was-max_attempts"), "0");
        assert_eq!(host.handoff.config(), before, "{name}");
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_takes_hints_or_refuses_them_is_shown_first_and_changed_if_that_is_meant() {
    let host = Host::start().await;
    host.hint(AWAY, &["a", "b", "c"]).await;
    let router = host.writable();
    let page = get(&router, "/settings").await.text().to_owned();
    let before = host.handoff.config();
    let form = filled(&page, &[("max_hints", "1"), ("max_in_flight", "12")]);
    let asked = send_settings(&router, &form).await;
    assert_eq!(asked.status, StatusCode::OK);
    let text = asked.text();
    assert!(text.contains("Nothing is changed yet."), "{text}");
    assert!(
        text.contains("3 hints wait, 2 over max_hints = 1"),
        "{text}"
    );
    assert_eq!(
        (value_of(text, "max_hints"), value_of(text, "was-max_hints")),
        ("1".into(), "".into())
    );
    assert_eq!(host.handoff.config(), before);

    let sure = value_of(text, "sure").replace("&quot;", "%22");
    // That is not what was shown.
    let other = filled(text, &[("max_hints", "2")]) + "&sure=" + &sure;
    let asked = send_settings(&router, &other).await;
    assert_eq!(asked.status, StatusCode::OK);
    assert_eq!(host.handoff.config(), before);
    let form = filled(text, &[]) + "&sure=" + &sure;
    let done = send_settings(&router, &form).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text());
    let config = host.handoff.config();
    assert_eq!((config.max_hints, config.max_in_flight), (Some(1), 12));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn nobody_changes_settings_who_may_not() {
    let host = Host::start().await;
    let writable = host.writable();
    let page = get(&writable, "/settings").await.text().to_owned();
    let before = host.handoff.config();
    let form = filled(&page, &[("max_in_flight", "12")]);
    let read_only = host.router(Settings::default());
    let shown = get(&read_only, "/settings").await;
    assert_eq!(shown.status, StatusCode::OK);
    assert!(shown.text().contains("<dt>max_in_flight</dt><dd>8</dd>"));
    assert!(!shown.text().contains("<form") && !shown.text().contains("<input"));
    let refused = send_settings(&read_only, &form).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text().contains("This interface is read-only"));
    for foreign in [
        [("origin", "http://evil.example")],
        [("sec-fetch-site", "cross-site")],
    ] {
        let refused = send_form(&writable, "/settings", &foreign, &form).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{foreign:?}");
    }
    let (_, without) = form.split_once('&').unwrap();
    for forged in [without.to_owned(), format!("token=0123&{without}")] {
        let refused = send_settings(&writable, &forged).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(host.handoff.config(), before);
    host.handoff.shutdown().await.unwrap();
}
