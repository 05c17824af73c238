//! Points that servers refuse.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use crate::{
    fake::{Fake, Reply, Seen},
    server::{Setup, until},
};

/// What a server has.
type Kept = Arc<Mutex<BTreeSet<String>>>;

/// A server that refuses points of `cpu` with a text, as influxd does: it takes the others.
async fn strict() -> (Fake, Kept) {
    let kept = Kept::default();
    let keeps = Arc::clone(&kept);
    let fake = Fake::start(move |seen: &Seen| {
        if !seen.line.starts_with("POST /write") {
            return Reply::taken();
        }
        let body = seen.body();
        let (bad, good): (Vec<&str>, Vec<&str>) = body.lines().partition(|it| it.contains('"'));
        keeps
            .lock()
            .unwrap()
            .extend(good.into_iter().map(str::to_owned));
        let text = "partial write: field type conflict: input field \"v\" on measurement \"cpu\" \
                    is type string, already exists as type float";
        match bad.len() {
            0 => Reply::taken(),
            dropped => Reply::error(400, &format!("{text} dropped={dropped}")),
        }
    })
    .await;
    (fake, kept)
}

fn body(points: usize, bad: &[usize]) -> String {
    let line = |number| match bad.contains(&number) {
        true => format!("cpu,h=a v=\"text\" {number}\n"),
        false => format!("cpu,h=a v=1 {number}\n"),
    };
    (0..points).map(line).collect()
}

fn good(points: usize, bad: &[usize]) -> BTreeSet<String> {
    let lines = body(points, bad);
    let lines = lines.lines().filter(|line| !line.contains('"'));
    lines.map(str::to_owned).collect()
}

const TOLD: &str = "partial write: field type conflict: input field \"v\" on measurement \"cpu\" is \
                    type string, already exists as type float dropped=";

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_all_refuse_is_told_as_influxd_does_and_the_others_are_written() {
    let (first, second) = (strict().await, strict().await);
    let relay = Setup::new(&[first.0.url(), second.0.url()]).start();
    let bad = [0, 77, 299];
    let answer = relay.write("db=d", body(300, &bad));
    assert_eq!(answer.told(), (400, format!("{TOLD}3")));
    for (_, kept) in [&first, &second] {
        assert_eq!(*kept.lock().unwrap(), good(300, &bad));
    }
    assert_eq!((relay.pending(1), relay.pending(2)), (0, 0));
    assert_eq!(relay.metric("hh_relay_points_total{fate=\"refused\"}"), 3);
    assert_eq!(relay.metric("hh_relay_points_total{fate=\"taken\"}"), 297);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_gets_exactly_the_points_that_the_others_took() {
    let (up, kept) = strict().await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    // The one that is away is asked first, and does not say why the points are refused.
    let urls = [format!("http://127.0.0.1:{port}"), up.url()];
    let relay = Setup::new(&urls).start();
    let bad = [10, 11, 40];
    let answer = relay.write("db=d", body(64, &bad));
    assert_eq!(answer.told(), (400, format!("{TOLD}3")));
    assert_eq!(*kept.lock().unwrap(), good(64, &bad));

    let back = Fake::at(port).await;
    until("an empty queue", || (relay.pending(1) == 0).then_some(()));
    let bodies: Vec<String> = back.seen().iter().map(Seen::body).collect();
    let got: BTreeSet<String> = bodies.concat().lines().map(str::to_owned).collect();
    assert_eq!(got, good(64, &bad));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_refused_points_alone_is_not_sent_again_and_again() {
    let (server, _) = strict().await;
    let relay = Setup::new(&[server.url()]).start();
    let all: Vec<usize> = (0..500).collect();
    let answer = relay.write("db=d", body(500, &all));
    assert_eq!(answer.told(), (400, format!("{TOLD}500")));
    assert_eq!(
        server
            .bodies()
            .iter()
            .filter(|body| !body.is_empty())
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_one_server_refuses_is_a_dead_letter_of_that_one() {
    let (strict, kept) = strict().await;
    let other = Fake::in_turn([]).await;
    let relay = Setup::new(&[strict.url(), other.url()]).start();
    let answer = relay.write("db=d", body(8, &[3]));
    assert_eq!(answer.status, 204);
    assert_eq!(*kept.lock().unwrap(), good(8, &[3]));
    let letters = "hinted_handoff_node_dead_letters{node=\"1\"}";
    until("a dead letter", || {
        (relay.metric(letters) == 1).then_some(())
    });
}
