//! Nobody changes anything who may not, and nobody can make it hold much.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use hinted_handoff_admin::{Hosts, Settings};
use serde_json::json;

use crate::common::*;

/// Every path that changes something, with a body that would do it.
fn changes(hint: &str) -> Vec<(String, serde_json::Value)> {
    let letters = json!({"hints": [hint]});
    [
        ("/v1/pause", json!({})),
        ("/v1/resume", json!({})),
        ("/v1/retain", json!({"nodes": [3]})),
        ("/v1/nodes/2/pause", json!({})),
        ("/v1/nodes/2/resume", json!({})),
        ("/v1/nodes/2/rename", json!({"to": 5})),
        ("/v1/nodes/2/remove", json!({"discard_pending": true})),
        ("/v1/nodes/2/cancel-removal", json!({})),
        ("/v1/config", json!({"max_age": "2h"})),
        ("/v1/hinting", json!({"nodes": [2], "hinting": false})),
        ("/v1/hinting/stop-hinting", json!({})),
        ("/v1/hinting/start-hinting", json!({})),
        ("/v1/nodes/2/by-hand/stop-hinting", json!({})),
        ("/v1/nodes/2/by-hand/start-hinting", json!({})),
        ("/v1/nodes/2/by-hand/hold-direct", json!({})),
        ("/v1/nodes/2/by-hand/release-direct", json!({})),
        ("/v1/nodes/2/rehint", json!({"to": [5]})),
        ("/v1/import", json!({"hints": []})),
        ("/v1/nodes/2/hints/discard", json!({"shard": SHARD})),
        ("/v1/nodes/4/letters/redrive", json!({"all": true})),
        ("/v1/nodes/4/letters/redrive", letters.clone()),
        ("/v1/nodes/4/letters/discard", json!({"all": true})),
        ("/v1/nodes/4/letters/discard", letters),
    ]
    .map(|(path, body)| (path.to_owned(), body))
    .into()
}

async fn host_with_all() -> (Host, String) {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    host.with_letter("poison").await;
    let letter = host
        .handoff
        .dead_letters(STRICT, None, 1)
        .await
        .unwrap()
        .remove(0);
    (host, letter.id.to_string())
}

/// What a change would change.
fn seen(host: &Host) -> impl PartialEq + std::fmt::Debug {
    let stats = host.handoff.stats();
    let node = |it: &hinted_handoff::NodeStats| {
        (
            it.node,
            it.paused,
            it.pending,
            it.dead_letters,
            it.leaving,
            it.hinting,
            it.gate.clone(),
            it.parked_since_unix_ms,
        )
    };
    (
        (stats.paused_all, stats.hinting),
        stats.nodes.iter().map(node).collect::<Vec<_>>(),
        hinted_handoff::Config::clone(&host.handoff.config()),
    )
}

#[tokio::test]
async fn what_is_read_only_changes_nothing() {
    let (host, hint) = host_with_all().await;
    let router = host.router(Settings::default());
    let before = seen(&host);
    for (path, body) in changes(&hint) {
        let refused = post(&router, &path, body).await;
        assert!(
            refused.problem(403, "read-only").contains("read_only"),
            "{path}"
        );
    }
    assert_eq!(seen(&host), before);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_foreign_page_can_send_changes_nothing() {
    let (host, hint) = host_with_all().await;
    let router = host.writable();
    let before = seen(&host);
    let mut paths = changes(&hint);
    paths.extend(
        ["/v1/sync", "/v1/barriers", "/v1/nodes/2/drain"].map(|it| (it.to_owned(), json!({}))),
    );
    for (path, body) in paths {
        // A form, or a script with `mode: "no-cors"`, sends one of these types.
        for media in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            let request = Request::post(&path)
                .header(header::HOST, "localhost")
                .header(header::ORIGIN, "http://evil.example")
                .header(header::CONTENT_TYPE, media);
            let refused = send(&router, request.body(Body::from(body.to_string())).unwrap()).await;
            refused.problem(403, "forgeable");
        }
        // What it would have to ask first is granted to nobody.
        let preflight = Request::options(&path)
            .header(header::HOST, "localhost")
            .header(header::ORIGIN, "http://evil.example")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "x-hinted-handoff");
        let preflight = send(&router, preflight.body(Body::empty()).unwrap()).await;
        assert!(!preflight.status.is_success());
        assert!(
            !preflight
                .headers
                .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
        );
    }
    assert_eq!(seen(&host), before);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_host_of_another_name_is_told_nothing() {
    let host = Host::start().await;
    let router = host.writable();
    for path in ["/", "/v1/status", "/metrics", "/live", "/nowhere"] {
        for name in ["evil.example", "localhost.evil.example:80", ""] {
            let request = Request::get(path).header(header::HOST, name);
            let refused = send(&router, request.body(Body::empty()).unwrap()).await;
            refused.problem(403, "foreign-host");
        }
    }
    let nameless = send(&router, Request::get("/").body(Body::empty()).unwrap()).await;
    nameless.problem(403, "foreign-host");
    let hosts = Hosts::These(vec!["ops.example.net".to_owned()]);
    let router = host.router(Settings {
        hosts,
        ..Settings::default()
    });
    let named = Request::get("/live").header(header::HOST, "ops.example.net");
    let named = send(&router, named.body(Body::empty()).unwrap()).await;
    assert_eq!(named.status, StatusCode::OK);
    get(&router, "/live").await.problem(403, "foreign-host");
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_or_too_much_is_refused() {
    let host = Host::start().await;
    let router = host.writable();
    let large = json!({"pause": "x".repeat(1024 * 1024)});
    post(&router, "/v1/pause", large)
        .await
        .problem(413, "too-large");
    let many: Vec<u64> = (0..8_001).collect();
    post(&router, "/v1/retain", json!({"nodes": many}))
        .await
        .problem(400, "invalid-request");
    post(&router, "/v1/barriers", json!({"nodes": many}))
        .await
        .problem(400, "invalid-request");
    let hinting = json!({"nodes": many, "hinting": false});
    post(&router, "/v1/hinting", hinting)
        .await
        .problem(400, "invalid-request");
    let hint = format!("{}/1/1", host.handoff.stats().store.store);
    let many = vec![hint; 1_001];
    let many = post(
        &router,
        "/v1/nodes/2/letters/redrive",
        json!({"hints": many}),
    )
    .await;
    many.problem(400, "invalid-request");
    host.handoff.shutdown().await.unwrap();
}
