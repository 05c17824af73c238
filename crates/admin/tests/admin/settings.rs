//! Settings that change over the interface, and what is done to a node by hand.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use hinted_handoff::{Config, Gate, NodeId};
use hinted_handoff_admin::Settings;
use serde_json::{Value, json};

use crate::common::{AWAY, BY_HAND, Host, SHARD, WELL, get, post};

fn writable() -> Settings {
    Settings {
        read_only: false,
        ..Settings::default()
    }
}

#[tokio::test]
async fn settings_are_shown_and_changed_by_their_names() {
    let host = Host::start().await;
    let router = host.router(writable());
    let changes = json!({ "retry_rate_limit": "1MiB", "max_age": "2h" });
    let changed = post(&router, "/v1/config", changes.clone()).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text());
    let shown = get(&router, "/v1/config").await.json();
    assert_eq!(shown["max_age"], "2h");
    assert_eq!(host.handoff.config().retry_rate_limit, 1024 * 1024);

    for (changes, names) in [
        (json!({ "max_in_flight": 0 }), "max_in_flight"),
        (json!({ "dir": "/elsewhere" }), "dir = "),
        (json!({ "no_such_setting": 1 }), "no_such_setting"),
    ] {
        let refused = post(&router, "/v1/config", changes.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{changes}");
        assert!(refused.text().contains(names), "{}", refused.text());
        let still = get(&router, "/v1/config").await.json();
        assert_eq!(still, shown, "{changes}");
    }
    let read_only = host.router(Settings::default());
    let refused = post(&read_only, "/v1/config", json!({})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn hints_and_direct_writes_of_a_node_are_stopped_and_discarded_by_hand() {
    let host = Host::start().await;
    host.hint(AWAY, &["a", "b"]).await;
    let router = host.router(writable());
    let by_hand = async |what: &str| {
        let path = format!("/v1/nodes/{AWAY}/by-hand/{what}");
        assert_eq!(
            post(&router, &path, json!({})).await.status,
            StatusCode::OK,
            "{what}"
        );
    };
    by_hand("stop-hinting").await;
    assert!(!host.node(AWAY).hinting);
    by_hand("start-hinting").await;
    assert!(host.node(AWAY).hinting);
    by_hand("hold-direct").await;
    assert_ne!(host.node(AWAY).gate, Gate::Open);
    by_hand("release-direct").await;
    assert_eq!(host.node(AWAY).gate, Gate::Open);
    let all = post(&router, "/v1/hinting/stop-hinting", json!({})).await;
    assert_eq!(all.status, StatusCode::OK);
    assert!(!host.node(AWAY).hinting);
    assert_eq!(get(&router, "/v1/status").await.ok()["hinting"], false);
    post(&router, "/v1/hinting/start-hinting", json!({}))
        .await
        .ok();
    assert_eq!(get(&router, "/v1/status").await.ok()["hinting"], true);

    host.handoff
        .pause_all(hinted_handoff::Pause::UntilRestart)
        .await
        .unwrap();
    host.until(|it| it.nodes.iter().all(|it| it.in_flight == 0))
        .await;
    let path = format!("/v1/nodes/{AWAY}/hints/discard");
    let unsaid = post(&router, &path, json!({})).await;
    assert_eq!(unsaid.status, StatusCode::BAD_REQUEST);
    let done = post(&router, &path, json!({ "shard": SHARD })).await.json();
    assert_eq!(done["discarded"]["hints"], 2);
    assert_eq!(host.node(AWAY).pending.hints, 0);
}

#[tokio::test]
async fn hinting_is_stopped_for_all_nodes_that_are_named_or_for_none() {
    let host = Host::start().await;
    for node in [AWAY, WELL, BY_HAND] {
        host.hint(node, &["a"]).await;
    }
    let router = host.router(writable());
    let hinted = || {
        let nodes = host.handoff.stats().nodes.into_iter();
        let hinted = nodes.filter(|it| it.hinting).map(|it| it.node);
        hinted.collect::<Vec<_>>()
    };
    let set = async |nodes: serde_json::Value, hinting: bool| {
        let asked = json!({ "nodes": nodes, "hinting": hinting });
        post(&router, "/v1/hinting", asked).await
    };
    let refused = set(json!([2, 77, 3, 78]), false).await;
    let why = refused.problem(404, "unknown-node");
    assert!(why.contains("77, 78"), "{why}");
    assert_eq!(hinted(), [AWAY, WELL, BY_HAND], "nothing was changed");
    set(json!([2, 9, 2]), false).await.ok();
    assert_eq!(hinted(), [WELL]);
    let refused = set(json!([2, 77]), true).await;
    refused.problem(404, "unknown-node");
    assert_eq!(hinted(), [WELL], "nothing was changed");
    set(json!([2, 9]), true).await.ok();
    assert_eq!(hinted(), [AWAY, WELL, BY_HAND]);

    let many: Vec<u64> = (100..2_100).collect();
    let why = set(json!(many), false).await.problem(404, "unknown-node");
    assert!(why.contains("2000") && why.len() < 200, "{why}");
    for unclear in [
        json!({ "nodes": [], "hinting": false }),
        json!({ "nodes": [2] }),
        json!({ "hinting": false }),
    ] {
        let refused = post(&router, "/v1/hinting", unclear).await;
        refused.problem(400, "invalid-request");
    }
    assert_eq!(hinted(), [AWAY, WELL, BY_HAND]);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_change_costs_is_told_of_ten_nodes_and_counted_of_the_others() {
    let host = Host::start().await;
    host.handoff
        .pause_all(hinted_handoff::Pause::UntilRestart)
        .await
        .unwrap();
    for node in 100..112 {
        host.hint(NodeId(node), &["a"]).await;
    }
    let router = host.writable();
    let costs = async |changes: serde_json::Value| {
        let told = post(&router, "/v1/config/preview", changes).await.ok();
        serde_json::from_value::<Vec<String>>(told["costs"].clone()).unwrap()
    };
    let told = costs(json!({ "max_hints_per_node": 1 })).await;
    assert_eq!(told.len(), 11, "{told:?}");
    let full = "the next finds no room, and when_full is reject";
    let each = format!("1 hints wait, as many as max_hints_per_node = 1; {full}");
    assert_eq!(told[0], format!("node 100: {each}"));
    assert_eq!(told[9], format!("node 109: {each}"));
    assert_eq!(told[10], "2 more nodes in the same way");
    let told = costs(json!({ "max_hints": 12 })).await;
    let all = format!("12 hints wait, as many as max_hints = 12; {full}");
    assert_eq!(told, [all]);
    assert!(costs(json!({ "max_hints": 13 })).await.is_empty());
    host.handoff.shutdown().await.unwrap();
}

/// Another value than that of the host, for each setting.
const OTHERS: &str = r#"{
    "answer": "accounted", "batch_bytes": "256KiB", "block_timeout": "7s",
    "commit_timeout": "20s", "dir": "/elsewhere", "durability": "buffered",
    "expiry_grace": "59s", "fail_early": false, "hint_after": "99ms", "manual_nodes": [8],
    "max_age": "2h", "max_attempts": 9, "max_bytes": "1GiB", "max_bytes_in_flight": "32MiB",
    "max_bytes_per_node": "512MiB", "max_dead_letter_bytes": "2MiB", "max_dead_letters": 99,
    "max_disk_bytes": "1GiB", "max_entry_bytes": "8MiB", "max_hints": 1000000,
    "max_hints_per_node": 100000, "max_in_flight": 9, "max_outstanding": 99,
    "max_outstanding_bytes": "2MiB", "max_sends": 99, "min_free_disk": "64MiB",
    "on_not_stored": "fail", "on_unopenable": "start_empty", "ordering": "strict",
    "purge_after": "8days", "reset_identity": true, "retry_interval": "11ms",
    "retry_max_interval": "51ms", "retry_rate_limit": "1MiB",
    "retry_rate_limit_total": "2MiB", "send_timeout": "9s", "shutdown_grace": "4s",
    "start_paused": true, "when_full": "block", "window_bytes": "4MiB", "window_hints": 4096,
    "write_timeout": "9s"
}"#;

#[tokio::test]
async fn each_setting_that_is_changeable_changes_and_each_other_is_refused() {
    let host = Host::start().await;
    let router = host.router(writable());
    let others: serde_json::Map<String, Value> = serde_json::from_str(OTHERS).unwrap();
    let known = get(&router, "/v1/config").await.ok();
    // A limit that is not set is not told.
    let told = known.as_object().unwrap().keys().map(String::as_str);
    let missing: BTreeSet<&str> = told.chain(Config::CHANGEABLE.iter().copied()).collect();
    let missing: Vec<_> = missing
        .iter()
        .filter(|it| !others.contains_key(**it))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (name, value) in &others {
        let change = json!({ name.as_str(): value });
        let changed = post(&router, "/v1/config", change).await;
        match Config::CHANGEABLE.contains(&name.as_str()) {
            true => assert_eq!(&changed.ok()[name], value),
            false => {
                let why = changed.problem(400, "invalid-request");
                assert!(why.contains("cannot change while it runs"), "{why}");
            }
        }
    }
    host.handoff.shutdown().await.unwrap();
}
