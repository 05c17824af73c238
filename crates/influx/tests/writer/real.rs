//! Goal: influxd itself takes what is sent, and means what the writer takes its answers for.
//! Method: a server of its own for each story; its points are counted and summed up.

use std::time::{Duration, SystemTime};

use hinted_handoff::{Batch, NodeId, Pong, ShardId, ShardWrite, ShardWriter};
use hinted_handoff_influx::{
    InfluxWriter, NodeSettings, Points, Precision, Target, WriterSettings,
};

use crate::{
    NODE, aged, direct, hints, influxd::Influxd, plain, points, points_to, sent, target, writer_to,
};

/// Writes without our writer.
fn load(influxd: &Influxd, parameters: &str, body: &str) {
    let url = format!("{}/write?{parameters}", influxd.url());
    assert_eq!(ureq::post(url).send(body).unwrap().status(), 204);
}

/// Of many series, with fields of all types.
fn many_lines(count: u32) -> String {
    let line = |number: u32| {
        let (host, time) = (number % 20, 1_700_000_000 + number);
        format!(
            "cpu,host=h\\ {host},ort=K\u{f6}ln idle={}.5,user={number}i,up={},note=\"a \\\"{number}\\\"\nb\" {time}\n",
            number % 7,
            number.is_multiple_of(2),
        )
    };
    (0..count).map(line).collect()
}

#[tokio::test]
async fn points_arrive_as_they_are() {
    let Some(influxd) = Influxd::start() else {
        return;
    };
    let lines = many_lines(3000);
    influxd.create_database("wanted");
    load(&influxd, "db=wanted&precision=s", &lines);
    let wanted = influxd.contents("wanted");
    assert_eq!(wanted.points, 3000);

    for gzip in [true, false] {
        let database = format!("gzip {gzip}");
        influxd.create_database(&database);
        let settings = WriterSettings {
            gzip,
            max_body_bytes: 20_000,
            ..plain()
        };
        let writer = writer_to(influxd.url(), settings);
        assert_eq!(writer.ping(NODE).await.unwrap(), Pong::Answered);
        let target = Target {
            precision: Precision::Seconds,
            ..target(&database)
        };
        let read = Points::read(target, lines.as_bytes(), SystemTime::now());
        for (_, points) in read.into_shards() {
            assert_eq!(sent(&writer, hints([points])).await, "taken");
        }
        let count = influxd.query(&database, "SELECT count(idle) FROM cpu");
        assert_eq!(count[0].values[0][1], 3000);
        assert_eq!(influxd.contents(&database), wanted);
    }
}

#[tokio::test]
async fn contents_are_the_same_in_any_order_and_differ_by_a_point_a_tag_or_a_type() {
    let Some(influxd) = Influxd::start() else {
        return;
    };
    let contents = |database: &str, lines: &[&str]| {
        influxd.create_database(database);
        for line in lines {
            load(&influxd, &format!("db={database}"), line);
        }
        influxd.contents(database)
    };
    let wanted = contents(
        "a",
        &["cpu,h=a,i=b v=1,w=2 1", "cpu,h=b v=2 2", "cpu v=1 1"],
    );
    assert_eq!(wanted.points, 3);
    let same = contents(
        "b",
        &[
            "cpu v=1 1",
            "cpu,h=b v=2 2\ncpu,i=b,h=a w=2,v=1 1\ncpu v=1 1",
        ],
    );
    assert_eq!(same, wanted);
    for (database, lines) in [
        ("c", ["cpu,h=a,i=b v=1,w=2 1", "cpu,h=b v=2 2", "cpu v=1 2"]),
        (
            "d",
            ["cpu,h=a,i=b v=1,w=2 1", "cpu,h=b v=2 2", "cpu,h=c v=1 1"],
        ),
        (
            "e",
            ["cpu,h=a,i=b v=1,w=2i 1", "cpu,h=b v=2 2", "cpu v=1 1"],
        ),
        ("f", ["cpu,h=a,i=b v=1,w=3 1", "cpu,h=b v=2 2", "cpu v=1 1"]),
        ("g", ["cpu,h=a,i=b v=1,w=2 1", "cpu,h=b v=2 2", "mem v=1 1"]),
        ("h", ["cpu,h=a,i=b v=1 1", "cpu,h=b v=2,w=2 2", "cpu v=1 1"]),
    ] {
        let another = contents(database, &lines);
        assert_eq!(another.points, 3);
        assert_ne!(another.checksum, wanted.checksum, "{database}");
    }
    // Also in another retention policy than the default one.
    influxd.query(
        "",
        "CREATE RETENTION POLICY p ON b DURATION INF REPLICATION 1",
    );
    load(&influxd, "db=b&rp=p", "cpu v=1 1");
    assert_eq!(influxd.count("b"), 4);
}

#[tokio::test]
async fn a_field_of_another_type_is_rejected_with_the_points_and_influxd_has_the_others() {
    let Some(influxd) = Influxd::start() else {
        return;
    };
    influxd.create_database("db");
    load(&influxd, "db=db", "cpu v=1 1");
    let writer = writer_to(influxd.url(), WriterSettings::default());
    let hint = || points("cpu v=2 2\ncpu v=\"x\" 3\ncpu v=4 4\ncpu v=\"y\" 5\ncpu v=6 6\n");
    let conflict = "reject 400: partial write: field type conflict: input field \"v\" on measurement \
                    \"cpu\" is type string, already exists as type float dropped=";
    assert_eq!(
        sent(&writer, hints([hint()])).await,
        format!("{conflict}1; refused: 2 of 5 points: cpu v=\"x\" 3 | cpu v=\"y\" 5")
    );
    assert_eq!(influxd.count("db"), 4);
    let write = hints([points("cpu v=7 7"), hint(), points("cpu v=8 8")]);
    assert_eq!(sent(&writer, write).await, format!("{conflict}2"));
    let all = points("cpu v=\"x\" 3\ncpu v=\"y\" 5\n");
    assert_eq!(
        sent(&writer, direct(all)).await,
        format!("{conflict}2; refused: 2 of 2 points: cpu v=\"x\" 3 | cpu v=\"y\" 5")
    );
}

#[tokio::test]
async fn points_beyond_the_retention_policy_are_rejected_and_influxd_has_the_others() {
    let Some(influxd) = Influxd::start() else {
        return;
    };
    influxd.query("", "CREATE DATABASE db WITH DURATION 2h");
    let writer = writer_to(influxd.url(), WriterSettings::default());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let hint = points(&format!("cpu v=1 1\ncpu v=2 {now}\n"));
    assert_eq!(
        sent(&writer, hints([hint])).await,
        "reject 400: partial write: points beyond retention policy dropped=1; refused: 1 of 2 points: cpu v=1 1"
    );
    assert_eq!(influxd.count("db"), 1);
}

#[tokio::test]
async fn points_wait_for_a_database_that_is_made_later() {
    let Some(influxd) = Influxd::start() else {
        return;
    };
    let writer = writer_to(influxd.url(), WriterSettings::default());
    let write = || hints([points("cpu v=1 1"), points("cpu v=2 2")]);
    let missing = "404: database not found: \"db\"";
    assert_eq!(sent(&writer, write()).await, format!("retry {missing}"));
    assert!(writer.is_missing(NODE, "db"));
    let old = aged(write(), Duration::from_secs(3601));
    assert_eq!(sent(&writer, old).await, format!("reject {missing}"));
    influxd.create_database("db");
    assert_eq!(sent(&writer, write()).await, "taken");
    assert!(!writer.is_missing(NODE, "db"));
    assert_eq!(influxd.count("db"), 2);
}

#[tokio::test]
async fn points_wait_for_a_retention_policy_that_is_made_later() {
    let Some(influxd) = Influxd::start() else {
        return;
    };
    influxd.create_database("db");
    let writer = writer_to(influxd.url(), WriterSettings::default());
    let target = Target {
        retention_policy: Some("two weeks".to_owned()),
        ..target("db")
    };
    let write = || hints([points_to(target.clone(), "cpu v=1 1")]);
    // It is 500 in 1.6.7.
    let missing = "500: retention policy not found: two weeks";
    assert_eq!(sent(&writer, write()).await, format!("retry {missing}"));
    let old = aged(write(), Duration::from_secs(3601));
    assert_eq!(sent(&writer, old).await, format!("reject {missing}"));
    influxd.query(
        "",
        "CREATE RETENTION POLICY \"two weeks\" ON db DURATION INF REPLICATION 1",
    );
    assert_eq!(sent(&writer, write()).await, "taken");
    assert_eq!(influxd.count("db"), 1);
}

#[tokio::test]
async fn what_is_larger_than_influxd_takes_is_sent_in_pieces() {
    let Some(influxd) = Influxd::start_with("max-body-size = 20000") else {
        return;
    };
    influxd.create_database("db");
    let part = |times: std::ops::Range<u32>| {
        points(
            &times
                .map(|time| format!("cpu v={time} {time}\n"))
                .collect::<String>(),
        )
    };
    let writer = writer_to(influxd.url(), plain());
    let several = [part(0..2000), part(2000..2001), part(2001..5000)];
    assert_eq!(sent(&writer, hints(several)).await, "taken");
    assert_eq!(influxd.count("db"), 5000);
    // influxd answers before it has read all of that, and closes the connection.
    assert_eq!(sent(&writer, hints([part(0..100_000)])).await, "taken");
    assert_eq!(influxd.count("db"), 100_000);
    let long = points(&format!("cpu s=\"{}\" 1\n", "x".repeat(30_000)));
    let outcome = sent(&writer, hints([long])).await;
    assert!(
        outcome.starts_with("reject 413: Request Entity Too Large; refused: 1 of 1 points: cpu s="),
        "{outcome}"
    );
}

#[tokio::test]
async fn influxd_wants_credentials_and_the_right_to_write() {
    let Some(mut influxd) = Influxd::start_with("auth-enabled = true") else {
        return;
    };
    influxd.query(
        "",
        "CREATE USER admin WITH PASSWORD 'a' WITH ALL PRIVILEGES",
    );
    influxd.log_in("admin", "a");
    influxd.create_database("db");
    influxd.query("", "CREATE USER reader WITH PASSWORD 'r'");
    influxd.query("", "GRANT READ ON db TO reader");
    let writer = |user: &str, password: &str| {
        let mut node = NodeSettings::new(NODE.0, influxd.url());
        node.username = Some(user.to_owned());
        node.password = Some(password.to_owned().into());
        InfluxWriter::new(&[node], plain()).unwrap()
    };
    let write = || direct(points("cpu v=1 1"));
    assert_eq!(
        sent(&writer("admin", "b"), write()).await,
        "retry 401: authorization failed"
    );
    assert_eq!(
        sent(&writer_to(influxd.url(), plain()), write()).await,
        "retry 401: unable to parse authentication credentials"
    );
    assert_eq!(
        sent(&writer("reader", "r"), write()).await,
        "retry 403: \"reader\" user is not authorized to write to database \"db\""
    );
    assert_eq!(sent(&writer("admin", "a"), write()).await, "taken");
    assert_eq!(influxd.count("db"), 1);
}

#[tokio::test]
async fn a_server_that_stands_still_or_is_killed_gets_its_points_later() {
    let Some(mut influxd) = Influxd::start() else {
        return;
    };
    influxd.create_database("db");
    let mut node = NodeSettings::new(NODE.0, influxd.url());
    node.timeout = Duration::from_millis(500);
    let writer = InfluxWriter::new(&[node], plain()).unwrap();
    let write = |time: u32| direct(points(&format!("cpu v=1 {time}")));
    let until_taken = async |time| {
        // A loaded machine may need more than one try.
        for _ in 0..100 {
            if sent(&writer, write(time)).await == "taken" {
                return;
            }
        }
        panic!("it does not come back");
    };
    until_taken(1).await;
    influxd.stop();
    assert_eq!(sent(&writer, write(2)).await, "retry no answer");
    assert!(writer.ping(NODE).await.is_err());
    influxd.go_on();
    until_taken(2).await;
    influxd.kill();
    assert_eq!(sent(&writer, write(3)).await, "retry no answer");
    assert!(influxd.restart());
    until_taken(3).await;
    assert_eq!(influxd.count("db"), 3);
}

#[tokio::test]
async fn several_servers_are_written_to_by_one_writer() {
    let (Some(first), Some(second)) = (Influxd::start(), Influxd::start()) else {
        return;
    };
    let nodes = [
        NodeSettings::new(1, first.url()),
        NodeSettings::new(2, second.url()),
    ];
    let writer = InfluxWriter::new(&nodes, plain()).unwrap();
    for (id, influxd) in [(1, &first), (2, &second)] {
        influxd.create_database("db");
        let write = ShardWrite::new(
            NodeId(id),
            ShardId(1),
            vec![Batch::new(points("cpu v=1 1"))],
        );
        assert_eq!(sent(&writer, write).await, "taken");
    }
    assert_eq!(first.contents("db"), second.contents("db"));
    assert_eq!(first.count("db"), 1);
}
