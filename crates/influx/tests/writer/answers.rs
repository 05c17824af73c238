//! Goal: each answer means for the points what the table of `InfluxWriter` says.
//! Method: a server that gives one answer, and one hint, or several.

use std::time::{Duration, SystemTime};

use hinted_handoff::{Pong, ShardWriter};
use hinted_handoff_influx::{AnswerRule, InfluxWriter, NodeSettings, Then, WriterSettings};

use crate::{
    NODE, aged, direct,
    fake::{Fake, Reply},
    hints, outcome, plain, points, sent, writer_to,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn told(reply: Reply) -> String {
    let fake = Fake::start(move |_| reply.clone()).await;
    let writer = writer_to(fake.url(), plain());
    sent(&writer, hints([points("cpu v=1 1")])).await
}

#[tokio::test]
async fn only_204_is_taken() {
    assert_eq!(told(Reply::taken()).await, "taken");
    // A proxy before a server says 200 to anybody.
    for status in [200, 201, 202, 301, 302, 307, 405, 408, 422, 500, 502, 504] {
        let outcome = told(Reply::new(status, "Location: /elsewhere\r\n", "it")).await;
        assert_eq!(outcome, format!("retry {status}: it"));
    }
    assert_eq!(
        told(Reply::error(500, "timeout")).await,
        "retry 500: timeout"
    );
    assert_eq!(
        told(Reply::new(503, "", "")).await,
        "retry 503: Service Unavailable"
    );
}

#[tokio::test]
async fn a_400_of_influxdb_is_final_and_that_of_a_proxy_is_not() {
    let refused = "; refused: 1 of 1 points: cpu v=1 1";
    for text in [
        "partial write: field type conflict: input field \"v\" dropped=1",
        "unable to parse 'cpu v=': missing field value",
        "partial write: points beyond retention policy dropped=1",
        "partial write: max-values-per-tag limit exceeded (1/1): measurement=\"m\" tag=\"t\" dropped=1",
    ] {
        assert_eq!(
            told(Reply::error(400, text)).await,
            format!("reject 400: {text}{refused}")
        );
    }
    let page = "<html>The plain HTTP request was sent to HTTPS port</html>";
    assert_eq!(
        told(Reply::new(400, "", page)).await,
        format!("retry 400: {page}")
    );
}

#[tokio::test]
async fn retry_after_is_seconds_or_a_date() {
    for status in [429, 503] {
        let reply = |after: &str| Reply::new(status, &format!("Retry-After: {after}\r\n"), "busy");
        assert_eq!(told(reply("7")).await, format!("retry 7s {status}: busy"));
        assert_eq!(told(reply("soon")).await, format!("retry {status}: busy"));
        // A test may be slow: a day is told from an hour and from nothing.
        let tomorrow = SystemTime::now() + 24 * HOUR;
        let outcome = told(reply(&httpdate::fmt_http_date(tomorrow))).await;
        let seconds: u64 = outcome.split(['s', ' ']).nth(1).unwrap().parse().unwrap();
        assert!((23 * 3600..=24 * 3600).contains(&seconds), "{outcome}");
        let past = reply("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(told(past).await, format!("retry 0s {status}: busy"));
    }
}

#[tokio::test]
async fn points_wait_for_a_database_or_a_policy_and_are_rejected_when_they_are_old() {
    for (status, text) in [
        (404, "database not found: \"db\""),
        (500, "retention policy not found: nope"),
        (404, "retention policy not found: nope"),
        (400, "retention policy not found: nope"),
    ] {
        let fake = Fake::start(move |_| Reply::error(status, text)).await;
        let writer = writer_to(fake.url(), plain());
        let lines = || points("cpu v=1 1");
        let young = aged(hints([lines()]), HOUR / 2);
        assert_eq!(
            sent(&writer, young).await,
            format!("retry {status}: {text}")
        );
        let old = aged(hints([lines()]), 2 * HOUR);
        assert_eq!(sent(&writer, old).await, format!("reject {status}: {text}"));
        // What a client just wrote is given back to it by the relay, or is a hint.
        let direct = aged(direct(lines()), 2 * HOUR);
        assert_eq!(
            sent(&writer, direct).await,
            format!("retry {status}: {text}")
        );
        let is_database = text.starts_with("database");
        assert_eq!(writer.is_missing(NODE, "db"), is_database);
        assert!(!writer.is_missing(NODE, "another"));
    }
    assert_eq!(
        told(Reply::new(404, "", "no such page")).await,
        "retry 404: no such page"
    );
}

#[tokio::test]
async fn a_database_that_is_made_is_no_longer_missing_and_is_asked_for_with_one_hint() {
    let no_database = || Reply::error(404, "database not found: \"db\"");
    let fake = Fake::in_turn([no_database(), no_database()]).await;
    let writer = writer_to(fake.url(), plain());
    let write = || hints(["cpu v=1 1", "cpu v=2 2", "cpu v=3 3"].map(points));
    for _ in 0..2 {
        assert_eq!(
            sent(&writer, write()).await,
            "retry 404: database not found: \"db\""
        );
        assert!(writer.is_missing(NODE, "db"));
    }
    assert_eq!(sent(&writer, write()).await, "taken");
    assert!(!writer.is_missing(NODE, "db"));
    let sizes: Vec<_> = fake
        .bodies()
        .iter()
        .map(|body| body.lines().count())
        .collect();
    assert_eq!(sizes, [3, 1, 1, 2]);
}

#[tokio::test]
async fn no_answer_is_worth_a_retry() {
    let silence = |bytes: &str| Reply::BytesAndSilence(bytes.into());
    let close = |bytes: &str| Reply::BytesAndClose(bytes.into());
    for reply in [
        silence(""),
        silence("HTTP/1.1 204 No Con"),
        close(""),
        close("HTTP/1.1 204 No Con"),
        close("no HTTP\r\n\r\n"),
    ] {
        let fake = Fake::start(move |_| reply.clone()).await;
        let mut node = NodeSettings::new(NODE.0, fake.url());
        node.timeout = Duration::from_millis(200);
        let writer = InfluxWriter::new(&[node], plain()).unwrap();
        assert_eq!(
            sent(&writer, hints([points("cpu v=1 1")])).await,
            "retry no answer"
        );
        assert!(writer.ping(NODE).await.is_err());
    }
    let port = Fake::start(|_| Reply::taken()).await.port;
    // That one is gone.
    let writer = writer_to(format!("http://127.0.0.1:{port}"), plain());
    assert_eq!(
        sent(&writer, hints([points("cpu v=1 1")])).await,
        "retry no answer"
    );
    assert!(writer.ping(NODE).await.is_err());
}

#[tokio::test]
async fn the_status_counts_where_the_rest_of_an_answer_does_not_come() {
    let begin = "HTTP/1.1 400 Bad Request\r\nContent-Length: 1000\r\n\r\n{\"error\":\"unable to pa";
    let refused = "; refused: 1 of 1 points: cpu v=1 1";
    for reply in [
        Reply::BytesAndSilence(begin.into()),
        Reply::BytesAndClose(begin.into()),
    ] {
        let fake = Fake::start(move |_| reply.clone()).await;
        let mut node = NodeSettings::new(NODE.0, fake.url());
        node.timeout = Duration::from_millis(200);
        let writer = InfluxWriter::new(&[node], plain()).unwrap();
        let outcome = sent(&writer, hints([points("cpu v=1 1")])).await;
        assert_eq!(
            outcome,
            format!("reject 400: {{\"error\":\"unable to pa{refused}")
        );
    }
}

#[tokio::test]
async fn of_a_huge_answer_no_more_is_read_than_is_shown() {
    let huge = "\u{e4}".repeat(20 << 20);
    let outcome = told(Reply::error(400, &huge)).await;
    assert!(outcome.starts_with("reject 400: {\"error\":\"\u{e4}\u{e4}"));
    assert!(outcome.chars().count() < 2_200);
    // Bytes that are no UTF-8, and an end that never comes.
    let mut endless = b"HTTP/1.1 500 It\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n".to_vec();
    endless.resize(0xf0000, 0xff);
    let fake = Fake::start(move |_| Reply::BytesAndSilence(endless.clone())).await;
    let mut node = NodeSettings::new(NODE.0, fake.url());
    node.timeout = 24 * HOUR;
    let writer = InfluxWriter::new(&[node], plain()).unwrap();
    let told = sent(&writer, hints([points("cpu v=1 1")]));
    let outcome = tokio::time::timeout(HOUR / 60, told).await;
    assert!(outcome.unwrap().starts_with("retry 500: \u{fffd}\u{fffd}"));
}

#[tokio::test]
async fn rules_of_the_settings_come_first_and_in_their_order() {
    let rule = |status, contains: Option<&str>, then| AnswerRule {
        status,
        contains: contains.map(str::to_owned),
        then,
    };
    let rules = [
        rule(Some(400), Some("limit exceeded"), Then::Retry),
        rule(Some(400), None, Then::Obsolete),
        rule(None, Some("for good"), Then::Reject),
        rule(Some(413), None, Then::Reject),
        rule(Some(204), None, Then::Reject),
    ];
    let told = async |reply: Reply| {
        let fake = Fake::start(move |_| reply.clone()).await;
        let settings = WriterSettings {
            answers: rules.to_vec(),
            ..plain()
        };
        let writer = writer_to(fake.url(), settings);
        sent(&writer, hints([points("cpu v=1 1"), points("cpu v=2 2")])).await
    };
    let limit = "partial write: limit exceeded dropped=1";
    assert_eq!(
        told(Reply::error(400, limit)).await,
        format!("retry 400: {limit}")
    );
    assert_eq!(told(Reply::error(400, "it")).await, "obsolete 400: it");
    assert_eq!(
        told(Reply::error(500, "gone for good")).await,
        "reject 500: gone for good"
    );
    assert_eq!(told(Reply::error(413, "large")).await, "reject 413: large");
    assert_eq!(told(Reply::error(503, "busy")).await, "retry 503: busy");
    assert_eq!(told(Reply::taken()).await, "taken");
}

#[tokio::test]
async fn a_ping_asks_whether_the_server_is_worth_trying() {
    for (status, is_worth) in [
        (204, true),
        (200, true),
        (401, true),
        (404, true),
        (503, false),
        (429, false),
    ] {
        let fake = Fake::start(move |_| Reply::new(status, "Retry-After: 9\r\n", "")).await;
        let writer = writer_to(format!("{}/influx/", fake.url()), plain());
        match writer.ping(NODE).await {
            Ok(pong) => assert!(is_worth && pong == Pong::Answered, "{status}"),
            Err(error) => {
                assert!(!is_worth, "{status}");
                assert!(outcome(Err(error)).starts_with(&format!("retry {status}")));
            }
        }
        assert_eq!(fake.seen()[0].line, "GET /influx/ping HTTP/1.1");
    }
}

#[tokio::test]
async fn a_server_that_the_settings_do_not_have_is_worth_a_retry() {
    let writer = writer_to("http://127.0.0.1:1".to_owned(), plain());
    let mut write = hints([points("cpu v=1 1")]);
    write.node.0 = 9;
    let error = writer.write_shard(write).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the settings have no server 9"
    );
}
