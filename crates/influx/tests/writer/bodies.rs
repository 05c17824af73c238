//! Goal: bodies hold all points in their order, in as few requests as fit, and no batch is told to
//! be taken that was not.
//! Method: a server that remembers what it was sent, and refuses bodies that are too large.

use std::time::Duration;

use hinted_handoff_influx::{
    InfluxWriter, LinePoints, NodeSettings, Precision, Target, WriterSettings,
};

use crate::{
    NODE, direct,
    fake::{Fake, Reply, Seen},
    hints, plain, points, points_to, sent, target, writer_to,
};

/// Points of one series at these times.
fn at(times: impl IntoIterator<Item = u32>) -> LinePoints {
    points(
        &times
            .into_iter()
            .map(|time| format!("cpu v=1 {time}\n"))
            .collect::<String>(),
    )
}

fn limited(max_body_bytes: u64) -> WriterSettings {
    WriterSettings {
        max_body_bytes,
        ..plain()
    }
}

fn times(body: &str) -> Vec<u32> {
    body.lines()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn the_parameters_are_those_of_the_points() {
    let fake = Fake::in_turn([]).await;
    let writer = writer_to(fake.url(), plain());
    let special = Target {
        database: "a&b=c d\u{e4}?".to_owned(),
        retention_policy: Some("two weeks".to_owned()),
        precision: Precision::Minutes,
    };
    let of = |precision| Target {
        precision,
        ..target("db")
    };
    let targets = [
        special,
        of(Precision::Nanoseconds),
        of(Precision::Microseconds),
        of(Precision::Milliseconds),
        of(Precision::Seconds),
        of(Precision::Hours),
    ];
    for target in targets {
        assert_eq!(
            sent(&writer, direct(points_to(target, "cpu v=1 1"))).await,
            "taken"
        );
    }
    let lines: Vec<_> = fake.seen().into_iter().map(|it| it.line).collect();
    assert_eq!(
        lines,
        [
            "POST /write?db=a%26b%3Dc+d%C3%A4%3F&rp=two+weeks&precision=m HTTP/1.1",
            "POST /write?db=db&precision=ns HTTP/1.1",
            "POST /write?db=db&precision=u HTTP/1.1",
            "POST /write?db=db&precision=ms HTTP/1.1",
            "POST /write?db=db&precision=s HTTP/1.1",
            "POST /write?db=db&precision=h HTTP/1.1",
        ]
    );
    assert!(
        fake.seen().iter().all(|it| it.connection == 0),
        "connections stay open"
    );
}

#[tokio::test]
async fn hints_of_one_target_are_one_body_and_stay_in_order() {
    let fake = Fake::in_turn([]).await;
    let writer = writer_to(fake.url(), plain());
    let in_seconds = Target {
        precision: Precision::Seconds,
        ..target("db")
    };
    let in_policy = Target {
        retention_policy: Some("p".to_owned()),
        ..target("db")
    };
    let write = hints([
        at([1, 2]),
        at([3]),
        points_to(in_seconds, "cpu v=1 4"),
        at([5]),
        points_to(in_policy, "cpu v=1 6"),
        points_to(target("another"), "cpu v=1 7"),
    ]);
    assert_eq!(sent(&writer, write).await, "taken");
    let bodies: Vec<_> = fake.bodies().iter().map(|body| times(body)).collect();
    assert_eq!(bodies, [vec![1, 2, 3], vec![4], vec![5], vec![6], vec![7]]);
}

#[tokio::test]
async fn a_body_is_as_large_as_the_settings_say_or_one_hint() {
    // Each line has ten bytes.
    for (max, sizes) in [
        (1, vec![1, 3, 1, 1]),
        (10, vec![1, 3, 1, 1]),
        (19, vec![1, 3, 1, 1]),
        (20, vec![1, 3, 2]),
        (40, vec![4, 2]),
        (59, vec![5, 1]),
        (60, vec![6]),
        (u64::MAX, vec![6]),
    ] {
        let fake = Fake::in_turn([]).await;
        let writer = writer_to(fake.url(), limited(max));
        let write = hints([at([1]), at([2, 3, 4]), at([5]), at([6])]);
        assert_eq!(sent(&writer, write).await, "taken");
        let bodies = fake.bodies();
        let found: Vec<_> = bodies.iter().map(|body| body.lines().count()).collect();
        assert_eq!(found, sizes, "{max}");
        assert_eq!(times(&bodies.concat()), [1, 2, 3, 4, 5, 6]);
    }
}

#[tokio::test]
async fn what_was_taken_before_a_failure_is_told() {
    for (reply, outcome) in [
        (Reply::error(503, "busy"), "503: busy"),
        (
            Reply::error(400, "unable to parse"),
            "400: unable to parse; refused: 1 of 1 points: cpu v=1 4",
        ),
        (
            Reply::error(404, "database not found: \"db\""),
            "404: database not found: \"db\"",
        ),
        (Reply::BytesAndClose(vec![]), "no answer"),
    ] {
        let fake = Fake::in_turn([Reply::taken(), Reply::taken(), reply]).await;
        let writer = writer_to(fake.url(), limited(20));
        let write = hints([at([1]), at([2]), at([3, 30]), at([4])]);
        assert_eq!(sent(&writer, write).await, format!("partial 3 {outcome}"));
    }
}

#[tokio::test]
async fn bodies_that_take_long_are_told_of_before_the_send_is_cancelled() {
    let fake = Fake::start(|_| {
        std::thread::sleep(Duration::from_millis(30));
        Reply::taken()
    })
    .await;
    let mut node = NodeSettings::new(NODE.0, fake.url());
    node.timeout = Duration::from_secs(1);
    let writer = InfluxWriter::new(&[node], limited(1)).unwrap();
    // They would take three seconds.
    let outcome = sent(&writer, hints((0..100).map(|time| at([time])))).await;
    let taken = outcome
        .strip_prefix("partial ")
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let taken: usize = taken.parse().unwrap();
    assert!(taken > 0 && taken < 100);
    assert_eq!(fake.seen().len(), taken);
}

#[tokio::test]
async fn large_bodies_are_compressed_if_the_settings_say_so() {
    let large: Vec<u32> = (100..300).collect();
    for (gzip, lines, is_compressed) in [
        (true, &large[..], true),
        (false, &large[..], false),
        (true, &large[..1], false),
    ] {
        let fake = Fake::in_turn([]).await;
        let settings = WriterSettings { gzip, ..plain() };
        let writer = writer_to(fake.url(), settings);
        let (first, second) = lines.split_at(lines.len() / 2);
        let write = match first {
            [] => hints([at(second.to_vec())]),
            first => hints([at(first.to_vec()), at(second.to_vec())]),
        };
        assert_eq!(sent(&writer, write).await, "taken");
        let seen = fake.seen();
        let [request] = &seen[..] else {
            panic!("{} requests", seen.len())
        };
        assert_eq!(request.header("content-encoding").is_some(), is_compressed);
        assert_eq!(times(&request.body()), lines);
        let is_smaller = request.raw.len() < request.body().len() / 2;
        assert_eq!(is_smaller, is_compressed);
    }
}

/// Takes bodies of so many lines.
fn takes(lines: usize) -> impl Fn(&Seen) -> Reply {
    move |seen| match seen.body().lines().count() <= lines {
        true => Reply::taken(),
        false => Reply::error(413, "Request Entity Too Large"),
    }
}

/// The times of the bodies that were taken.
fn taken(fake: &Fake, lines: usize) -> Vec<u32> {
    let bodies = fake.bodies().into_iter();
    let taken = bodies.filter(|body| body.lines().count() <= lines);
    taken.flat_map(|body| times(&body)).collect()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_cut_between_hints_and_then_within_one() {
    for lines in [1, 2, 3, 7, 20] {
        let fake = Fake::start(takes(lines)).await;
        let writer = writer_to(fake.url(), plain());
        let write = hints([
            at(0..3),
            at(3..4),
            at(4..13),
            at(13..14),
            at(14..15),
            at(15..20),
        ]);
        assert_eq!(sent(&writer, write).await, "taken", "{lines}");
        assert_eq!(taken(&fake, lines), (0..20).collect::<Vec<_>>(), "{lines}");
    }
}

#[tokio::test]
async fn one_point_that_is_too_large_is_rejected_and_the_others_of_its_hint_are_sent() {
    let fake = Fake::start(|seen: &Seen| match seen.body().len() <= 100 {
        true => Reply::taken(),
        false => Reply::error(413, "Request Entity Too Large"),
    })
    .await;
    let writer = writer_to(fake.url(), plain());
    let long = format!("cpu s=\"{}\" 3", "x".repeat(200));
    let hint = points(&format!("cpu v=1 1\ncpu v=1 2\n{long}\ncpu v=1 4\n"));
    let shown: String = long.chars().take(100).collect();
    assert_eq!(
        sent(&writer, hints([hint])).await,
        format!("reject 413: Request Entity Too Large; refused: 1 of 4 points: {shown}")
    );
    let mut taken = fake.bodies();
    taken.retain(|body| body.len() <= 100);
    assert_eq!(times(&taken.concat()), [1, 2, 4]);
}

#[tokio::test]
async fn a_failure_among_pieces_of_one_hint_is_that_of_the_hint() {
    let large = || Reply::error(413, "large");
    let fake = Fake::in_turn([large(), Reply::taken(), Reply::error(503, "busy")]).await;
    let writer = writer_to(fake.url(), plain());
    assert_eq!(sent(&writer, hints([at(0..4)])).await, "retry 503: busy");
}
