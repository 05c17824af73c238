//! The API does what the library's calls do, and says what they say.

use std::sync::Arc;

use axum::http::StatusCode;
use hinted_handoff::{NodeState, Pause};
use hinted_handoff_admin::Settings;
use serde_json::json;

use crate::common::*;

#[tokio::test]
async fn status_and_nodes_say_what_stats_says() {
    let host = Host::start().await;
    host.hint(AWAY, &["a", "bb"]).await;
    host.hint(WELL, &["ccc"]).await;
    host.until(|it| {
        it.nodes
            .iter()
            .any(|it| it.node == WELL && it.delivered.hints == 1)
    })
    .await;
    host.until(|it| {
        it.nodes
            .iter()
            .any(|it| it.node == AWAY && it.last_error.is_some())
    })
    .await;
    host.handoff.pause(AWAY, Pause::UntilRestart).await.unwrap();
    let router = host.router(Settings {
        node_names: Some(Arc::new(|node| {
            (node == AWAY).then(|| "replica <b>".to_owned())
        })),
        ..Settings::default()
    });
    let status = get(&router, "/v1/status").await.ok();
    assert_eq!(status["health"], "serving");
    assert_eq!(status["read_only"], true);
    assert_eq!(status["pending"], json!({"hints": 2, "bytes": 3}));
    assert_eq!(status["nodes"], json!({"caught_up": 1, "paused": 1}));
    assert_eq!(
        status["store"]["store"],
        host.handoff.stats().store.store.to_string()
    );
    assert_eq!(
        status["caught_up_in_ms"],
        json!(null),
        "nobody sends them now"
    );

    let nodes = get(&router, "/v1/nodes").await.ok();
    assert_eq!(nodes["next"], json!(null));
    let away = &nodes["nodes"][0];
    assert_eq!(
        (&away["node"], &away["name"]),
        (&json!(2), &json!("replica <b>"))
    );
    assert_eq!(away["pending"]["hints"], 2);
    assert!(away["last_error"].as_str().unwrap().contains(WHY));
    assert_eq!(get(&router, "/v1/nodes/2").await.ok()["state"], "paused");
    let page = get(&router, "/v1/nodes?max=1").await.ok();
    assert_eq!(
        (page["nodes"].as_array().unwrap().len(), &page["next"]),
        (1, &json!(2))
    );
    let rest = get(&router, "/v1/nodes?after=2").await.ok();
    assert_eq!(rest["nodes"][0]["node"], 3);
    get(&router, "/v1/nodes/77")
        .await
        .problem(404, "unknown-node");
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn probes_follow_the_health() {
    let host = Host::start().await;
    let router = host.router(Settings::default());
    assert_eq!(get(&router, "/v1/health").await.ok()["health"], "serving");
    for probe in ["/live", "/ready"] {
        assert_eq!(get(&router, probe).await.status, StatusCode::OK);
    }
    host.handoff.shutdown().await.unwrap();
    let health = get(&router, "/v1/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json()["health"], "shut_down");
    get(&router, "/ready").await.problem(503, "shut-down");
    assert_eq!(
        get(&router, "/live").await.status,
        StatusCode::OK,
        "a restart is no help"
    );
    post(&router, "/v1/sync", json!({}))
        .await
        .problem(503, "shut-down");
    drop(host.handoff);
    get(&router, "/v1/status").await.problem(503, "shut-down");
    assert!(
        get(&router, "/metrics")
            .await
            .text()
            .contains("hinted_handoff_up 0\n")
    );
}

#[tokio::test]
async fn a_pause_by_request_holds_replay_until_it_is_resumed() {
    let host = Host::start().await;
    let router = host.writable();
    host.hint(WELL, &["a"]).await;
    host.until(|it| it.nodes[0].delivered.hints == 1).await;
    post(&router, "/v1/nodes/3/pause", json!({"pause": "lasting"}))
        .await
        .ok();
    assert_eq!(host.handoff.stats().nodes[0].paused, Some(Pause::Lasting));
    host.hint(WELL, &["b"]).await;
    let held = json!({"timeout_ms": 200});
    let waits = post(&router, "/v1/nodes/3/drain", held.clone()).await.ok();
    assert_eq!(waits["waiting"]["pending"]["hints"], 1, "it is paused");
    post(&router, "/v1/nodes/3/resume", json!({})).await.ok();
    let drained = post(&router, "/v1/nodes/3/drain", json!({"timeout_ms": 20_000})).await;
    assert_eq!(drained.ok(), "delivered");
    post(&router, "/v1/pause", json!({})).await.ok();
    assert_eq!(host.handoff.stats().paused_all, Some(Pause::UntilRestart));
    host.hint(AWAY, &["c"]).await;
    host.hint(WELL, &["e"]).await;
    let waits = post(&router, "/v1/nodes/3/drain", held).await.ok();
    assert_eq!(waits["waiting"]["pending"]["hints"], 1, "all are paused");
    post(&router, "/v1/resume", json!({})).await.ok();
    let drained = post(&router, "/v1/nodes/3/drain", json!({"timeout_ms": 20_000})).await;
    assert_eq!(drained.ok(), "delivered");
    let waits = post(&router, "/v1/nodes/2/drain", json!({})).await.ok();
    assert_eq!(waits["waiting"]["pending"]["hints"], 1);

    post(&router, "/v1/nodes/77/pause", json!({}))
        .await
        .problem(404, "unknown-node");
    host.hint(BY_HAND, &["d"]).await;
    let refused = post(&router, "/v1/nodes/9/pause", json!({})).await;
    assert!(
        refused
            .problem(409, "taken-by-hand")
            .contains("manual_nodes")
    );
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn hints_are_looked_at_raw_and_as_the_host_decodes_them() {
    let host = Host::start().await;
    host.hint(AWAY, &["one", "two", "three"]).await;
    let router = host.router(Settings {
        decoder: Some(Arc::new(|format, bytes| {
            Ok(json!({"format": format, "text": std::str::from_utf8(bytes)?}))
        })),
        ..Settings::default()
    });
    let page = get(&router, "/v1/nodes/2/hints?max=2").await.ok();
    let hints = page["hints"].as_array().unwrap();
    assert_eq!(hints.len(), 2);
    assert_eq!(hints[0]["payload"], "b25l");
    assert_eq!(hints[0]["decoded"], json!({"format": 0, "text": "one"}));
    let next = page["next"].as_str().unwrap();
    let rest = format!("/v1/nodes/2/hints?after={next}&encoding=hex&bytes=2");
    let rest = get(&router, &rest).await.ok();
    assert_eq!(rest["hints"][0]["payload"], "7468");
    assert_eq!(
        (&rest["hints"][0]["cut"], &rest["hints"][0]["payload_bytes"]),
        (&json!(true), &json!(5))
    );
    assert_eq!(
        host.handoff.stats().nodes[0].pending.hints,
        3,
        "nothing is taken"
    );
    for wrong in [
        "max=0",
        "max=1001",
        "bytes=9999999",
        "encoding=rot13",
        "after=x",
        "what=1",
    ] {
        let wrong = get(&router, &format!("/v1/nodes/2/hints?{wrong}")).await;
        wrong.problem(400, "invalid-request");
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn dead_letters_are_listed_shown_sent_on_and_discarded() {
    let host = Host::start().await;
    let router = host.writable();
    for text in ["poison 1", "poison 2", "poison 3"] {
        host.hint(STRICT, &[text]).await;
    }
    host.until(|it| it.nodes[0].dead_letters.hints == 3).await;
    let page = get(&router, "/v1/nodes/4/letters?max=2").await.ok();
    assert_eq!(page["letters"].as_array().unwrap().len(), 2);
    let rest = format!(
        "/v1/nodes/4/letters?after={}",
        page["next"].as_str().unwrap()
    );
    let rest = get(&router, &rest).await.ok();
    assert_eq!(
        (rest["letters"].as_array().unwrap().len(), &rest["next"]),
        (1, &json!(null))
    );
    let id = page["letters"][0]["id"].as_str().unwrap().to_owned();
    let letter = get(&router, &format!("/v1/nodes/4/letters/{id}?encoding=hex"))
        .await
        .ok();
    assert_eq!(
        (&letter["id"], &letter["reason"]),
        (&json!(id), &json!("rejected"))
    );
    assert_eq!(letter["content"]["payload"], "706f69736f6e2031");

    host.handoff
        .pause(STRICT, Pause::UntilRestart)
        .await
        .unwrap();
    let redriven = post(
        &router,
        "/v1/nodes/4/letters/redrive",
        json!({"hints": [id]}),
    )
    .await
    .ok();
    assert_eq!(redriven["hints"][0][0], id);
    assert_eq!(host.handoff.stats().nodes[0].pending.hints, 1);
    let again = post(
        &router,
        "/v1/nodes/4/letters/redrive",
        json!({"hints": [id]}),
    )
    .await;
    again.problem(404, "unknown-hint");
    for unclear in [
        json!({}),
        json!({"hints": []}),
        json!({"hints": [id], "all": true}),
    ] {
        let unclear = post(&router, "/v1/nodes/4/letters/discard", unclear).await;
        unclear.problem(400, "invalid-request");
    }
    let second = &page["letters"][1]["id"];
    let named = json!({"hints": [second]});
    let gone = post(&router, "/v1/nodes/4/letters/discard", named).await;
    assert_eq!(gone.ok()["discarded"]["hints"], 1);
    // A look at the journal closes its entry.
    get(&router, "/v1/losses").await.ok();
    let gone = post(&router, "/v1/nodes/4/letters/discard", json!({"all": true}))
        .await
        .ok();
    assert_eq!(gone["discarded"]["hints"], 1);
    let losses = get(&router, "/v1/losses?since=0").await.ok();
    assert_eq!(losses["by_reason"]["discarded"]["hints"], 2);
    assert_eq!(losses["entries"][0][1]["node"], 4);
    let part = get(&router, "/v1/losses?max=1").await.ok();
    assert_eq!(losses["entries"].as_array().unwrap().len(), 2);
    assert_eq!(part["entries"], json!([losses["entries"][0]]));
    assert_eq!(part["next"], losses["entries"][1][0]);
    for wrong in ["max=0", "max=10001"] {
        let wrong = get(&router, &format!("/v1/losses?{wrong}")).await;
        wrong.problem(400, "invalid-request");
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_letters_that_are_named_those_that_are_there_are_sent_on() {
    let host = Host::start().await;
    let router = host.writable();
    for text in ["poison 1", "poison 2"] {
        host.hint(STRICT, &[text]).await;
    }
    host.until(|it| it.nodes[0].dead_letters.hints == 2).await;
    host.handoff
        .pause(STRICT, Pause::UntilRestart)
        .await
        .unwrap();
    let page = get(&router, "/v1/nodes/4/letters").await.ok();
    let id = |at: usize| page["letters"][at]["id"].as_str().unwrap().to_owned();
    let (first, second) = (id(0), id(1));
    let (queue, _) = first.rsplit_once('/').unwrap();
    let unknown = format!("{queue}/4000000");
    let redrive = "/v1/nodes/4/letters/redrive";
    let all = json!({"hints": [first, unknown, second]});
    let redriven = post(&router, redrive, all.clone()).await.ok();
    let letters = redriven["hints"].as_array().unwrap();
    let letters: Vec<_> = letters.iter().map(|it| it[0].as_str().unwrap()).collect();
    assert_eq!(letters, [first, second]);
    assert_eq!(redriven["damaged"], json!([]));
    assert_eq!(host.handoff.stats().nodes[0].pending.hints, 2);
    let none = post(&router, redrive, all).await;
    none.problem(404, "unknown-hint");
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn nodes_are_renamed_retained_and_removed() {
    let host = Host::start().await;
    let router = host.writable();
    host.hint(AWAY, &["a", "b"]).await;
    let moved = post(&router, "/v1/nodes/2/rename", json!({"to": 22}))
        .await
        .ok();
    assert_eq!(moved["pending"]["hints"], 2);
    post(&router, "/v1/nodes/22/rename", json!({"to": 22}))
        .await
        .problem(400, "invalid-request");
    let retained = post(&router, "/v1/retain", json!({"nodes": [3]}))
        .await
        .ok();
    assert_eq!(retained, json!({"parked": [22], "unparked": []}));
    assert_eq!(host.handoff.stats().nodes[0].state, NodeState::Parked);
    post(&router, "/v1/retain", json!({"nodes": []}))
        .await
        .problem(400, "invalid-request");
    let not_yet = post(&router, "/v1/nodes/22/remove", json!({"timeout_ms": 1})).await;
    assert!(not_yet.problem(409, "not-drained").contains("2 hints"));
    assert!(host.handoff.stats().nodes[0].leaving);
    post(&router, "/v1/nodes/22/cancel-removal", json!({}))
        .await
        .ok();
    let removed = post(
        &router,
        "/v1/nodes/22/remove",
        json!({"discard_pending": true}),
    )
    .await;
    assert_eq!(removed.ok()["discarded"]["hints"], 2);
    assert!(host.handoff.stats().nodes.is_empty());
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_barrier_is_made_kept_and_waited_for() {
    let host = Host::start().await;
    let router = host.router(Settings::default());
    host.hint(WELL, &["a"]).await;
    let barrier = post(&router, "/v1/barriers", json!({"nodes": [3]}))
        .await
        .ok();
    let wait = json!({"barrier": barrier, "timeout_ms": 20_000});
    assert_eq!(
        post(&router, "/v1/barriers/wait", wait).await.ok(),
        "delivered"
    );
    let mut forged = barrier.clone();
    forged["losses_from"] = json!(77);
    let refused = post(&router, "/v1/barriers/wait", json!({"barrier": forged})).await;
    refused.problem(409, "barrier-refused");
    post(&router, "/v1/barriers", json!({"nodes": []}))
        .await
        .problem(400, "invalid-request");
    let long = json!({"barrier": barrier, "timeout_ms": 300_001});
    post(&router, "/v1/barriers/wait", long)
        .await
        .problem(400, "invalid-request");
    post(&router, "/v1/sync", json!({})).await.ok();
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_does_not_read_is_a_problem_that_says_why() {
    let host = Host::start().await;
    let router = host.writable();
    get(&router, "/v1/nothing")
        .await
        .problem(404, "no-such-path");
    get(&router, "/v1/pause")
        .await
        .problem(405, "no-such-method");
    get(&router, "/v1/nodes/two")
        .await
        .problem(400, "invalid-request");
    get(&router, "/v1/nodes?max=5000")
        .await
        .problem(400, "invalid-request");
    let misspelt = post(&router, "/v1/pause", json!({"pauze": 1})).await;
    assert!(misspelt.problem(400, "invalid-request").contains("pauze"));
    let letter = get(&router, "/v1/nodes/4/letters/xx/1/1").await;
    letter.problem(400, "invalid-request");
    host.handoff.shutdown().await.unwrap();
}
