//! Events are told as they happen, and a reader that is slow is told what it missed.

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::{Request, header},
};
use futures_util::StreamExt;
use hinted_handoff_admin::Settings;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tower::ServiceExt;

use crate::common::*;

async fn listen(router: &Router) -> BodyDataStream {
    let request = Request::get("/v1/events").header(header::HOST, "localhost");
    let response = router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    response.into_body().into_data_stream()
}

/// The next event: its name, and its JSON. `None` at the end.
async fn next(stream: &mut BodyDataStream) -> Option<(String, serde_json::Value)> {
    loop {
        let told = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        let text = told.expect("an event in time")?.unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        let line = |name: &str| {
            text.lines()
                .find_map(|it| it.strip_prefix(name))
                .map(str::trim)
        };
        if let (Some(name), Some(data)) = (line("event:"), line("data:")) {
            return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
        }
    }
}

#[tokio::test]
async fn a_node_that_goes_down_and_the_end_are_told() {
    let host = Host::start().await;
    let router = host.router(Settings::default());
    let mut stream = listen(&router).await;
    host.hint(AWAY, &["a"]).await;
    let (name, event) = next(&mut stream).await.unwrap();
    assert_eq!(
        (name.as_str(), &event["node"]),
        ("node_down", &serde_json::json!(2))
    );
    assert!(event["error"].as_str().unwrap().contains(WHY));
    host.handoff.shutdown().await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().0, "shut_down");
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn a_reader_that_is_slow_is_told_how_many_it_missed() {
    let host = Host::start().await;
    let router = host.router(Settings::default());
    let mut stream = listen(&router).await;
    let mut all = host.handoff.events();
    // Each is rejected: an event. Nobody reads meanwhile.
    const HINTS: usize = 3_000;
    for number in 0..HINTS {
        host.hint(STRICT, &[&number.to_string()]).await;
    }
    host.until(|it| it.nodes[0].dead_lettered.hints == HINTS as u64)
        .await;
    host.handoff.shutdown().await.unwrap();
    let (mut told, mut missed) = (0, 0);
    while let Some((name, event)) = next(&mut stream).await {
        match name.as_str() {
            "missed" => missed += event["events"].as_u64().unwrap(),
            // The node replays, and catches up, between those that are rejected.
            _ => told += 1,
        }
    }
    assert!(missed > 0, "it was told of {told}");
    assert!(told <= 1_024, "no more is kept than that: {told}");
    let mut happened = 0;
    loop {
        match all.recv().await {
            Ok(_) => happened += 1,
            Err(RecvError::Lagged(events)) => happened += events,
            Err(RecvError::Closed) => break,
        }
    }
    assert!(happened >= HINTS as u64, "{happened}");
    assert_eq!(told + missed, happened, "each is told of or missed");
}

#[tokio::test]
async fn only_so_many_listen_at_a_time() {
    let host = Host::start().await;
    let router = host.router(Settings::default());
    let mut listeners = Vec::new();
    for _ in 0..16 {
        listeners.push(listen(&router).await);
    }
    get(&router, "/v1/events").await.problem(503, "busy");
    listeners.pop();
    let _again = listen(&router).await;
    host.handoff.shutdown().await.unwrap();
}
