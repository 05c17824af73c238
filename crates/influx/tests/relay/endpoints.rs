//! The paths, and what stands in their answers.

use crate::{
    fake::Fake,
    request::Request,
    server::{Setup, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_tells_a_version_that_clients_of_influxdb_accept() {
    let relay = Setup::new(&["http://127.0.0.1:1".to_owned()]).start();
    for method in ["GET", "HEAD"] {
        let pong = relay.send(Request::new(method, "/ping"));
        assert_eq!((pong.status, pong.body.len()), (204, 0), "{method}");
        let version = pong.header("x-influxdb-version").unwrap();
        assert!(version.starts_with("1.6.7-hh-relay-"), "{version}");
        assert_eq!(pong.header("x-influxdb-build"), Some("hh-relay"));
    }
    let told = relay.send(Request::get("/ping?verbose=true"));
    assert_eq!(told.status, 200);
    let version = told.json()["version"].as_str().unwrap().to_owned();
    assert_eq!(told.header("x-influxdb-version"), Some(version.as_str()));
    assert_eq!(relay.send(Request::get("/ping?verbose=false")).status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_write_is_told_where_it_belongs() {
    let relay = Setup::new(&["http://127.0.0.1:1".to_owned()]).start();
    for request in [
        Request::get("/query?q=SHOW+DATABASES"),
        Request::post("/query", "q=SHOW DATABASES"),
    ] {
        let (status, text) = relay.send(request).told();
        assert_eq!(status, 405);
        assert!(text.contains("ask one of the servers"), "{text}");
    }
    let v2 = relay.send(Request::post("/api/v2/query", "{}"));
    assert_eq!(
        (v2.status, v2.json()["code"].as_str()),
        (405, Some("method not allowed"))
    );
    let (status, text) = relay.send(Request::get("/nothing")).told();
    assert_eq!(status, 404);
    assert!(text.contains("/write"), "{text}");
    assert_eq!(relay.send(Request::get("/write?db=d")).status, 405);
    assert_eq!(
        relay.send(Request::new("OPTIONS", "/write?db=d")).status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_passes_while_a_server_is_away_and_says_so() {
    let up = Fake::in_turn([]).await;
    let relay = Setup::new(&[up.url(), "http://127.0.0.1:1".to_owned()]).start();
    let health = relay.send(Request::get("/health"));
    assert_eq!(health.status, 200);
    let told = health.json();
    assert_eq!(
        (told["name"].as_str(), told["status"].as_str()),
        (Some("hh-relay"), Some("pass"))
    );
    assert_eq!(relay.send(Request::get("/ready")).json()["status"], "ready");

    assert_eq!(relay.write("db=d", "cpu v=1 1").status, 204);
    let checks = until("a closed gate", || {
        let told = relay.send(Request::get("/health")).json();
        let checks = told["checks"].clone();
        (checks[1]["status"] == "fail").then_some((told, checks))
    });
    let (told, checks) = checks;
    assert_eq!(told["status"], "pass");
    assert_eq!(
        (&checks[0]["status"], &checks[0]["name"]),
        (&"pass".into(), &"node 1 (db-1)".into())
    );
    assert_eq!(checks[1]["pending"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_one_text_of_the_queue_and_of_the_relay() {
    let up = Fake::in_turn([]).await;
    let relay = Setup::new(&[up.url(), "http://127.0.0.1:1".to_owned()]).start();
    relay.write("db=d", "cpu v=1 1\nmem v=1 1\nbad");
    let text = relay.metrics();
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.ends_with("# EOF\n"));
    for line in [
        "hinted_handoff_pending_hints ",
        "hh_relay_points_total{fate=\"taken\"} 2",
        "hh_relay_bad_lines_total 1",
        "hh_relay_body_bytes_total 23",
        "hh_relay_requests_total{path=\"/write\",status=\"400\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(
        until("a hint", || Some(relay.pending(2)).filter(|it| *it > 0)),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_may_ask_for_nothing() {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()]).start();
    let from = |origin: &str| {
        let write = Request::post("/write?db=x", "cpu v=1 1");
        relay.send(
            write
                .header(&format!("Origin: {origin}"))
                .header("Content-Type: text/plain"),
        )
    };
    // Requests of these tests are to the host `relay`.
    for origin in [
        "http://evil.example",
        "https://evil.example",
        "null",
        "file://relay",
        "",
    ] {
        let (status, text) = from(origin).told();
        assert_eq!(status, 403, "{origin}");
        assert!(text.contains("another origin"), "{text}");
    }
    assert!(server.seen().iter().all(|it| !it.line.starts_with("POST")));
    assert_eq!(from("http://relay").status, 204);
}
