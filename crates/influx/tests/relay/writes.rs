//! Writes, and what becomes of them.

use std::collections::BTreeSet;

use crate::{
    fake::{Fake, Reply, Seen},
    request::{Request, gzip},
    server::{Setup, until},
};

/// A server that has no database.
async fn without_database() -> Fake {
    Fake::start(|seen| match seen.line.starts_with("POST /write") {
        true => Reply::error(404, "database not found: \"d\""),
        false => Reply::taken(),
    })
    .await
}

/// The writes that a server got.
fn writes(fake: &Fake) -> Vec<Seen> {
    let mut seen = fake.seen();
    seen.retain(|it| it.line.starts_with("POST /write"));
    seen
}

fn lines(fake: &Fake) -> BTreeSet<String> {
    let bodies: Vec<String> = writes(fake).iter().map(Seen::body).collect();
    bodies.concat().lines().map(str::to_owned).collect()
}

fn parameter<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    let query = seen.line.split(['?', ' ']).nth(2)?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_reaches_every_server_with_its_parameters() {
    let servers = [Fake::in_turn([]).await, Fake::in_turn([]).await];
    let relay = Setup::new(&[servers[0].url(), servers[1].url()]).start();
    let answer = relay.write("db=d&rp=two&precision=ms&consistency=ALL", "cpu v=1 7\n");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for server in &servers {
        let [write] = &writes(server)[..] else {
            panic!("{:?}", server.seen());
        };
        assert_eq!(write.body(), "cpu v=1 7\n");
        let parameters = ["db", "rp", "precision"].map(|name| parameter(write, name));
        assert_eq!(parameters, [Some("d"), Some("two"), Some("ms")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_without_a_time_get_one_and_the_same_at_every_server() {
    let servers = [Fake::in_turn([]).await, Fake::in_turn([]).await];
    let relay = Setup::new(&[servers[0].url(), servers[1].url()]).start();
    let body: String = (0..50).map(|host| format!("cpu,h={host} v=1\n")).collect();
    assert_eq!(relay.write("db=d&consistency=all", body).status, 204);
    let seen = lines(&servers[0]);
    assert_eq!(seen.len(), 50);
    assert!(
        seen.iter().all(|line| line.split(' ').count() == 3),
        "{seen:?}"
    );
    assert_eq!(seen, lines(&servers[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_write_lacks_is_told_as_influxd_does() {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()]).start();
    for (query, body, wanted) in [
        ("", "cpu v=1", (400, "database is required")),
        ("db=", "cpu v=1", (400, "database is required")),
        (
            "db=d&consistency=two",
            "cpu v=1",
            (400, "invalid consistency level"),
        ),
        ("db=d", "", (204, "")),
        ("db=d", "\n\n", (204, "")),
        ("db=d", "# a comment\n", (204, "")),
    ] {
        let answer = relay.write(query, body);
        assert_eq!(
            answer.told(),
            (wanted.0, wanted.1.to_owned()),
            "{query} {body:?}"
        );
        assert_eq!(
            answer.header("x-influxdb-error").unwrap_or_default(),
            wanted.1
        );
    }
    assert_eq!(writes(&server).len(), 0);
    // A unit that it does not know is nanoseconds to influxd.
    assert_eq!(relay.write("db=d&precision=years", "cpu v=1 5").status, 204);
    assert_eq!(parameter(&writes(&server)[0], "precision"), Some("ns"));
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_those_of_the_settings() {
    let server = Fake::in_turn([]).await;
    let http = "database = \"telegraf\"\nretention_policy = \"two\"\n";
    let relay = Setup::new(&[server.url()]).http(http).start();
    assert_eq!(relay.write("", "cpu v=1 5").status, 204);
    assert_eq!(relay.write("db=d&rp=one", "cpu v=1 5").status, 204);
    let told = writes(&server);
    let told = told
        .iter()
        .map(|it| [parameter(it, "db"), parameter(it, "rp")]);
    let wanted = [[Some("telegraf"), Some("two")], [Some("d"), Some("one")]];
    assert_eq!(told.collect::<Vec<_>>(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn good_lines_are_written_and_bad_ones_told_by_their_number() {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()]).start();
    let answer = relay.write("db=d", "cpu v=1 1\n# no\ncpu v=x 2\ncpu v=3 3\n");
    let (status, text) = answer.told();
    assert_eq!(status, 400);
    assert!(
        text.starts_with("partial write: line 3: unable to parse 'cpu v=x 2': "),
        "{text}"
    );
    assert!(text.ends_with(" dropped=1"), "{text}");
    assert_eq!(
        lines(&server),
        ["cpu v=1 1", "cpu v=3 3"].map(str::to_owned).into()
    );

    let answer = relay.write("db=d", "cpu\nmem\n");
    let (status, text) = answer.told();
    assert_eq!(status, 400);
    let told: Vec<&str> = text.lines().collect();
    assert!(
        told[0].starts_with("line 1: unable to parse 'cpu': "),
        "{text}"
    );
    assert!(
        told[1].starts_with("line 2: unable to parse 'mem': "),
        "{text}"
    );
    assert!(!answer.header("x-influxdb-error").unwrap().is_empty());
    assert_eq!(writes(&server).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_version_is_spoken_too() {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()]).start();
    let v2 = |query: &str, body: &str| {
        relay.send(Request::post(
            &format!("/api/v2/write?org=any&{query}"),
            body,
        ))
    };
    assert_eq!(v2("bucket=d/two&precision=us", "cpu v=1 5").status, 204);
    assert_eq!(v2("bucket=d", "cpu v=1 5").status, 204);
    assert_eq!(v2("bucket=a%2Fb", "cpu v=1 5").status, 204);
    let told = writes(&server);
    let told = told
        .iter()
        .map(|it| ["db", "rp", "precision"].map(|name| parameter(it, name)));
    let wanted = [
        [Some("d"), Some("two"), Some("u")],
        [Some("d"), None, Some("ns")],
        [Some("a"), Some("b"), Some("ns")],
    ];
    assert_eq!(told.collect::<Vec<_>>(), wanted);
    for (query, body, part) in [
        ("bucket=d&precision=m", "cpu v=1", "invalid precision \"m\""),
        ("", "cpu v=1", "bucket is required"),
        ("bucket=/two", "cpu v=1", "bucket is required"),
        ("bucket=d", "cpu", "line 1: unable to parse 'cpu'"),
    ] {
        let answer = v2(query, body);
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &"invalid".into())
        );
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.starts_with(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_plain_or_as_gzip_and_in_no_other_way() {
    let server = Fake::in_turn([]).await;
    let relay = Setup::new(&[server.url()]).start();
    let write = |body: &[u8]| Request::post("/write?db=d", body);
    assert_eq!(relay.send(write(b"cpu v=1 1").gzip()).status, 204);
    assert_eq!(
        relay
            .send(write(b"cpu v=2 2").header("Content-Encoding: identity"))
            .status,
        204
    );
    let packed = gzip(b"cpu v=3 3");
    let half = write(&packed[..packed.len() - 4]).header("Content-Encoding: gzip");
    assert_eq!(relay.send(half).status, 400);
    let none = write(b"cpu v=4 4").header("Content-Encoding: gzip");
    assert_eq!(relay.send(none).status, 400);
    let (status, text) = relay
        .send(write(b"x").header("Content-Encoding: br"))
        .told();
    assert_eq!(status, 415);
    assert!(text.contains("br"), "{text}");
    assert_eq!(
        lines(&server),
        ["cpu v=1 1", "cpu v=2 2"].map(str::to_owned).into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_no_server_has_is_not_found_and_one_that_a_server_has_is() {
    let (first, second) = (without_database().await, without_database().await);
    let relay = Setup::new(&[first.url(), second.url()]).start();
    let not_found = relay.write("db=d", "cpu v=1 1");
    assert_eq!(
        not_found.told(),
        (404, "database not found: \"d\"".to_owned())
    );
    let v2 = relay.send(Request::post("/api/v2/write?bucket=d", "cpu v=1 1"));
    assert_eq!((v2.status, &v2.json()["code"]), (404, &"not found".into()));

    let third = Fake::in_turn([]).await;
    let relay = Setup::new(&[first.url(), third.url()]).start();
    assert_eq!(relay.write("db=d", "cpu v=1 1").status, 204);
    assert_eq!(lines(&third), ["cpu v=1 1".to_owned()].into());
    assert_eq!(
        until("a hint", || Some(relay.pending(1)).filter(|it| *it > 0)),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_is_out_of_reach_is_for_later_and_is_queued_all_the_same() {
    let relay = Setup::new(&[
        "http://127.0.0.1:1".to_owned(),
        "http://127.0.0.1:2".to_owned(),
    ]);
    let relay = relay.start();
    assert_eq!(relay.write("db=d", "cpu v=1 1").status, 204);
    let later = relay.write("db=d&consistency=one", "cpu v=2 2");
    assert_eq!(later.status, 503);
    assert!(later.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    let (_, text) = later.told();
    assert!(text.contains("0 of 2 owners have it"), "{text}");
    let v2 = relay.send(Request::post("/api/v2/write?bucket=d", "cpu v=1 1"));
    assert_eq!(v2.status, 204);
    assert_eq!(relay.pending(1), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_missed_it_gets_in_order_when_it_is_back() {
    let up = Fake::in_turn([]).await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let relay = Setup::new(&[up.url(), format!("http://127.0.0.1:{port}")]).start();
    for number in 0..20 {
        assert_eq!(
            relay.write("db=d", format!("cpu v={number} 1\n")).status,
            204
        );
    }
    let back = Fake::at(port).await;
    until("the hints", || (lines(&back).len() == 20).then_some(()));
    let got: Vec<String> = writes(&back).iter().map(Seen::body).collect();
    let wanted: String = (0..20)
        .map(|number| format!("cpu v={number} 1\n"))
        .collect();
    assert_eq!(got.concat(), wanted);
    until("an empty queue", || (relay.pending(2) == 0).then_some(()));
}
