//! Hints that go to other nodes, and hints that come from another store.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use bytes::Bytes;
use futures_util::stream;
use hinted_handoff::{NodeId, Pause, ShardId};
use hinted_handoff_admin::Settings;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::common::*;

/// What stands on the page behind the begin of an event, once that is told.
async fn told(router: &Router, begin: &str) -> String {
    for _ in 0..4_000 {
        let page = get(router, "/").await;
        if let Some((_, end)) = page.text().split_once(begin) {
            return end.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it was never told: {begin}");
}

#[tokio::test]
async fn hints_of_a_node_go_to_its_new_owners_by_shard() {
    let host = Host::start().await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    host.hint(AWAY, &["a", "b"]).await;
    let points = "c".into();
    host.handoff
        .write_shard(AWAY, ShardId(8), &points)
        .await
        .unwrap();
    let router = host.writable();
    let path = format!("/v1/nodes/{AWAY}/rehint");
    for (said, names) in [
        (json!({}), "missing field `to`"),
        (json!({"to": []}), "`to` is empty: name the new owners"),
        (json!({"to": [5, AWAY]}), "`to` names node 2 itself"),
        (
            json!({"to": (100..165).collect::<Vec<_>>()}),
            "65 nodes are too many",
        ),
        (
            json!({"to": [5], "shards": vec![8; 100_001]}),
            "100001 shards are too many",
        ),
    ] {
        let refused = post(&router, &path, said).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.text().contains(names), "{}", refused.text());
    }
    let of_shard = json!({"to": [5, 6], "shards": [8]});
    let left = post(&router, &path, of_shard).await.ok();
    assert_eq!(left, json!({"rehinted": {"hints": 1, "bytes": 1}}));
    let left = post(&router, &path, json!({"to": [5]})).await.ok();
    assert_eq!(left["rehinted"]["hints"], 2);
    let [away, five, six] = [AWAY, NodeId(5), NodeId(6)].map(|node| host.node(node).pending.hints);
    assert_eq!((away, five, six), (0, 3, 1));
    let page = get(&router, "/").await;
    let (_, tile) = page.text().split_once("Lost since open").unwrap();
    let is_none = tile.starts_with("</dt><dd class=\"value\">0</dd>");
    assert!(is_none, "{tile:.100}");
    let told = told(&router, " B) for node 2 ").await;
    assert!(told.starts_with("given to other nodes "), "{told:.100}");
    let unknown = post(&router, "/v1/nodes/77/rehint", json!({"to": [5]})).await;
    unknown.problem(404, "unknown-node");
}

/// A line of an export whose payload is encoded without padding.
fn line(payload_base64: &str) -> Value {
    json!({
        "kind": "hint", "node": 5, "meant_for": 5, "shard": 7, "id": null, "queue": 1,
        "sequence": 1, "format": 0, "enqueued_unix_ms": 1_700_000_000_000_u64,
        "payload_bytes": payload_base64.len() / 4 * 3, "payload_base64": payload_base64,
    })
}

#[tokio::test]
async fn lines_of_an_export_become_hints_and_dead_letters() {
    let host = Host::start().await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let router = host.writable();
    let mut letter = line("YWJj");
    letter["kind"] = json!("dead_letter");
    let unsaid = post(
        &router,
        "/v1/import",
        json!({"hints": [line("YWJj"), letter]}),
    )
    .await;
    let why = unsaid.problem(400, "invalid-request");
    assert!(why.contains("hints[1]: `dead` must be given"), "{why}");
    letter["dead"] = json!({
        "reason": "rejected", "error": "no such field", "attempts": 1,
        "first_failed_unix_ms": 1_700_000_000_001_u64,
        "last_failed_unix_ms": 1_700_000_000_001_u64,
    });
    let (mut shortened, mut hint) = (line("YWJj"), line("YWJj"));
    shortened["payload_bytes"] = json!(4);
    hint["dead"] = letter["dead"].clone();
    for (wrong, why) in [
        (line("!"), "payload_base64"),
        (shortened, "the payload has 3 bytes, payload_bytes says 4"),
        (
            hint,
            "`dead` must be given for a dead_letter, and only for one",
        ),
    ] {
        let refused = post(&router, "/v1/import", json!({"hints": [wrong]})).await;
        let told = refused.problem(400, "invalid-request");
        assert!(told.contains(why), "{told}");
    }
    assert!(host.handoff.stats().nodes.is_empty());

    let hints = json!({"hints": [line("YWJj"), letter, line("YWJj")]});
    let told = post(&router, "/v1/import", hints).await.ok();
    assert_eq!(told["ids"].as_array().map(Vec::len), Some(3));
    assert_eq!(host.node(NodeId(5)).pending.hints, 2);
    let letters = host.handoff.dead_letters(NodeId(5), None, 9).await.unwrap();
    assert_eq!(letters[0].error, "no such field");
    assert_eq!(told["ids"][1], letters[0].id.to_string());

    // The second has no payload.
    let hints = json!({"hints": [line("YWJj"), line(""), line("YWJj")]});
    let stopped = post(&router, "/v1/import", hints).await;
    let stored = stopped.json()["stored"].clone();
    stopped.problem(409, "refused");
    assert_eq!(stored.as_array().map(Vec::len), Some(1));
    assert_eq!(host.node(NodeId(5)).pending.hints, 3);
    let read_only = host.router(Settings::default());
    let refused = post(&read_only, "/v1/import", json!({"hints": []})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_body_of_an_import_may_be_large_and_others_may_not() {
    let host = Host::start().await;
    let router = host.writable();
    let large = line(&"YWJj".repeat(1 << 20));
    let told = post(&router, "/v1/import", json!({"hints": [large]})).await;
    told.ok();
    let large = json!({"to": [5], "shards": vec![u64::MAX; 1 << 18]});
    let refused = post(&router, &format!("/v1/nodes/{AWAY}/rehint"), large).await;
    refused.problem(413, "too-large");
}

#[tokio::test]
async fn an_import_is_refused_while_another_one_reads_its_body() {
    let host = Host::start().await;
    let router = host.writable();
    let (begun, has_begun) = oneshot::channel();
    let (rest, has_rest) = oneshot::channel::<Bytes>();
    let body = Body::from_stream(stream::once(async {
        begun.send(()).unwrap();
        has_rest.await
    }));
    let request = Request::post("/v1/import")
        .header(header::HOST, "localhost")
        .header("x-hinted-handoff", "1");
    let request = request.body(body).unwrap();
    let second = async {
        has_begun.await.unwrap();
        let refused = post(&router, "/v1/import", json!({"hints": [line("YWJj")]})).await;
        rest.send(r#"{"hints": []}"#.into()).unwrap();
        refused
    };
    let (first, second) = tokio::join!(send(&router, request), second);
    second.problem(503, "busy");
    assert!(host.handoff.stats().nodes.is_empty());
    assert_eq!(first.ok(), json!({"ids": []}));
    let third = post(&router, "/v1/import", json!({"hints": [line("YWJj")]})).await;
    third.ok();
}
