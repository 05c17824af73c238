//! Buttons of the page for hinting and direct writes.

use axum::{Router, http::StatusCode};
use hinted_handoff::Gate;
use hinted_handoff_admin::Settings;

use crate::common::*;

/// Asks what a button asks, answers yes, and returns the page that follows.
async fn click(router: &Router, button: &str) -> String {
    let question = get(router, &format!("/confirm?do={button}")).await;
    assert_eq!(question.status, StatusCode::OK, "{button}");
    assert!(question.text().contains("id=\"question\""), "{button}");
    let form = format!("token={}&do={button}", token(router).await);
    let done = send_form(router, "/do", &[], &form).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.text());
    let page = get(router, done.headers["location"].to_str().unwrap()).await;
    assert_eq!(page.status, StatusCode::OK);
    page.text().to_owned()
}

fn has(page: &str, id: &str) -> bool {
    page.contains(&format!("button id=\"{id}\""))
}

#[tokio::test]
async fn hinting_of_a_node_is_stopped_and_started_by_buttons_of_its_page() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    let router = host.writable();
    let page = get(&router, "/nodes/2").await.text().to_owned();
    assert!(has(&page, "stop-hinting-2") && !has(&page, "start-hinting-2"));
    assert!(host.node(AWAY).hinting, "it asks first");
    let page = click(&router, "stop-hinting&node=2").await;
    assert!(!host.node(AWAY).hinting);
    assert!(page.contains("Hinting for node 2 is stopped."), "{page}");
    assert!(page.contains("No hints are made for it"), "{page}");
    assert!(has(&page, "start-hinting-2") && !has(&page, "stop-hinting-2"));
    let overview = get(&router, "/").await.text().to_owned();
    assert!(overview.contains("No hints are made for 1 node:"));
    assert!(has(&overview, "stop-hinting-all"), "of the others");
    let page = click(&router, "start-hinting&node=2").await;
    assert!(host.node(AWAY).hinting);
    assert!(page.contains("Hinting for node 2 is started."), "{page}");
    assert!(!page.contains("No hints are made"));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn hinting_of_all_nodes_is_stopped_and_started_by_buttons_of_the_overview() {
    let host = Host::start().await;
    let router = host.writable();
    let page = get(&router, "/").await.text().to_owned();
    assert!(has(&page, "stop-hinting-all") && !has(&page, "start-hinting-all"));
    let page = click(&router, "stop-hinting").await;
    assert!(!host.handoff.stats().hinting);
    assert!(page.contains("Hinting for all nodes is stopped."), "{page}");
    assert!(page.contains("an operator stopped that for all nodes"));
    assert!(has(&page, "start-hinting-all") && !has(&page, "stop-hinting-all"));
    click(&router, "start-hinting").await;
    assert!(host.handoff.stats().hinting);

    host.hint(AWAY, &["a"]).await;
    click(&router, "stop-hinting").await;
    let page = get(&router, "/nodes/2").await.text().to_owned();
    assert!(!has(&page, "start-hinting-2"), "alone it would do nothing");
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn direct_writes_of_a_node_are_held_and_released_by_buttons_of_its_page() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    let router = host.writable();
    let page = get(&router, "/nodes/2").await.text().to_owned();
    assert!(has(&page, "hold-direct-2") && !has(&page, "release-direct-2"));
    let page = click(&router, "hold-direct&node=2").await;
    assert_ne!(host.node(AWAY).gate, Gate::Open);
    assert!(host.node(AWAY).direct.held_since_unix_ms.is_some());
    assert!(page.contains("Direct writes to node 2 are held."), "{page}");
    assert!(page.contains("An operator holds its direct writes"));
    assert!(has(&page, "release-direct-2") && !has(&page, "hold-direct-2"));
    let page = click(&router, "release-direct&node=2").await;
    assert_eq!(host.node(AWAY).direct.held_since_unix_ms, None);
    assert!(page.contains("Direct writes to node 2 are released."));
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_a_node_that_is_not_known_nothing_is_stopped_or_held() {
    let host = Host::start().await;
    let router = host.writable();
    let token = token(&router).await;
    for act in [
        "stop-hinting",
        "start-hinting",
        "hold-direct",
        "release-direct",
    ] {
        let form = format!("token={token}&do={act}&node=77");
        let refused = send_form(&router, "/do", &[], &form).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{act}");
    }
    assert!(host.handoff.stats().nodes.is_empty());
    for act in ["hold-direct", "release-direct", "redrive", "discard"] {
        let form = format!("token={token}&do={act}");
        let refused = send_form(&router, "/do", &[], &form).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{act}");
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_read_only_stops_and_holds_nothing() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    let token = token(&host.writable()).await;
    let router = host.router(Settings::default());
    for page in ["/", "/nodes/2"] {
        let page = get(&router, page).await;
        assert!(!page.text().contains("<button"), "{}", page.text());
    }
    for act in [
        "stop-hinting",
        "start-hinting",
        "hold-direct",
        "release-direct",
    ] {
        let question = get(&router, &format!("/confirm?do={act}&node=2")).await;
        assert_eq!(question.status, StatusCode::FORBIDDEN, "{act}");
        let form = format!("token={token}&do={act}&node=2");
        let refused = send_form(&router, "/do", &[], &form).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{act}");
        assert!(refused.text().contains("read-only"), "{}", refused.text());
    }
    assert!(host.node(AWAY).hinting && host.node(AWAY).direct.held_since_unix_ms.is_none());
    host.handoff.shutdown().await.unwrap();
}
