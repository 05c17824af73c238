//! Real clients, and real servers: beside a server that is written to directly, the relay answers
//! the same, and all servers have the same.

use std::{fs, process::Command};

use crate::{
    influxd::Influxd,
    request::{Answer, Request},
    server::{Relay, Setup, until},
};

/// Two servers behind a relay, and one that is written to directly; `None` without influxd.
struct Scene {
    behind: [Influxd; 2],
    direct: Influxd,
    relay: Relay,
}

impl Scene {
    fn start() -> Option<Scene> {
        let behind = [Influxd::start()?, Influxd::start()?];
        let direct = Influxd::start()?;
        for influxd in behind.iter().chain([&direct]) {
            influxd.create_database("d");
        }
        let relay = Setup::new(&[behind[0].url(), behind[1].url()]).start();
        Some(Scene {
            behind,
            direct,
            relay,
        })
    }

    /// The answers of the relay and of influxd.
    fn both(&self, request: &Request) -> [Answer; 2] {
        let direct = self.direct.url().replace("http://", "").parse().unwrap();
        [self.relay.send(request.clone()), request.send(direct)]
    }

    fn assert_same(&self) {
        let wanted = self.direct.contents("d");
        assert!(wanted.points > 0);
        for influxd in &self.behind {
            until("the same contents", || {
                (influxd.contents("d") == wanted).then_some(())
            });
        }
    }
}

/// Whether a command is there; a test that needs it says that it is skipped.
fn is_there(command: &mut Command) -> bool {
    let is_there = command.output().is_ok_and(|it| it.status.success());
    let is_ci = std::env::var("CI").is_ok_and(|it| it == "true");
    assert!(is_there || !is_ci, "{command:?} does not work");
    if !is_there {
        println!("SKIPPED: {command:?} does not work");
    }
    is_there
}

#[test]
fn the_relay_answers_as_influxd_does() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let post = |query: &str, body: &str| Request::post(&format!("/write?{query}"), body);
    for (request, is_same_text) in [
        (post("db=d", "cpu,h=a v=1 1\ncpu,h=b v=2 2\n"), true),
        (post("db=d", ""), true),
        (post("db=d", "\n# no\n"), true),
        (post("db=d&precision=s", "cpu v=1 100\n"), true),
        (post("db=d&precision=years", "cpu v=1 101\n"), true),
        (post("db=d&consistency=ONE", "cpu v=1 102\n"), true),
        (post("db=d&consistency=two", "cpu v=1 103\n"), true),
        (post("", "cpu v=1 104\n"), true),
        (post("db=nosuch", "cpu v=1 105\n"), true),
        (post("db=d", "cpu v=\"text\" 106\n"), true),
        (
            post("db=d", "cpu v=1 107\ncpu v=\"text\" 108\ncpu v=2 109\n"),
            true,
        ),
        (post("db=d", "cpu v=1 110\n").gzip(), true),
        (
            post("db=d", "cpu v=1 111\n").header("Content-Encoding: gzip"),
            false,
        ),
        (post("db=d", "cpu\n"), false),
        (
            post("db=d", "cpu v=1 112\ncpu v=x 113\ncpu v=2 114\n"),
            false,
        ),
        (post("db=d", "cpu v=1 9223372036854775807\n"), false),
        (post("db=d", &"x".repeat(26 << 20)), false),
        (Request::get("/ping"), true),
        (Request::new("HEAD", "/ping"), true),
        (Request::new("OPTIONS", "/write?db=d"), true),
        (Request::get("/write?db=d"), false),
        (Request::get("/nothing"), false),
    ] {
        let [relay, direct] = scene.both(&request);
        let shown: String = format!("{request:?}").chars().take(300).collect();
        assert_eq!(
            relay.status, direct.status,
            "{shown}: {relay:?}, {direct:?}"
        );
        if is_same_text {
            assert_eq!(relay.text(), direct.text(), "{shown}");
        }
        assert!(relay.header("x-influxdb-version").is_some());
    }
    scene.assert_same();
}

#[test]
fn curl_writes_through_it() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let file = scene.relay.dir.path().join("lines");
    let lines: String = (0..20_000)
        .map(|number| format!("cpu,h=h{} v={number}i,t=\"a b\" {number}\n", number % 50))
        .collect();
    fs::write(&file, &lines).unwrap();
    assert!(
        lines.len() > 1_000_000 / 2,
        "curl asks first whether it may send so much"
    );
    for url in [
        scene.direct.url(),
        format!("http://{}", scene.relay.address),
    ] {
        let written = Command::new("curl")
            .args(["-sS", "-f", "-H", "Expect: 100-continue", "--data-binary"])
            .arg(format!("@{}", file.display()))
            .arg(format!("{url}/write?db=d"))
            .output()
            .unwrap();
        assert!(written.status.success(), "{written:?}");
    }
    scene.assert_same();
    assert_eq!(scene.direct.count("d"), 20_000);
}

#[test]
fn the_command_influx_imports_through_it_plain_and_as_gzip() {
    let Some(scene) = Scene::start() else {
        return;
    };
    if !is_there(Command::new("influx").arg("-version")) {
        return;
    }
    let file = scene.relay.dir.path().join("import");
    let lines: String = (0..12_000)
        .map(|number| format!("cpu,h=h{} v={number} {number}\n", number % 7))
        .collect();
    let head = "# DML\n# CONTEXT-DATABASE: d\n# CONTEXT-RETENTION-POLICY: autogen\n";
    fs::write(&file, format!("{head}{lines}")).unwrap();
    let packed = scene.relay.dir.path().join("import.gz");
    let more = lines.replace("cpu,", "mem,");
    fs::write(
        &packed,
        crate::request::gzip(format!("{head}{more}").as_bytes()),
    )
    .unwrap();
    let direct = scene.direct.url().replace("http://", "").parse().unwrap();
    for address in [direct, scene.relay.address] {
        let import = |arguments: &[&str]| {
            let output = Command::new("influx")
                .args([
                    "-host",
                    "127.0.0.1",
                    "-port",
                    &address.port().to_string(),
                    "-import",
                ])
                .args(arguments)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{told}");
            assert!(
                told.contains("Failed 0 inserts") || !told.contains("Failed"),
                "{told}"
            );
        };
        import(&["-path", file.to_str().unwrap()]);
        import(&["-compressed", "-path", packed.to_str().unwrap()]);
    }
    scene.assert_same();
    assert_eq!(scene.direct.count("d"), 24_000);
}

#[test]
fn the_python_client_writes_through_it_plain_and_as_gzip() {
    let Some(scene) = Scene::start() else {
        return;
    };
    if !is_there(Command::new("python3").args(["-c", "import influxdb"])) {
        return;
    }
    let script = r#"
import sys
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

for gzip in (False, True):
    client = InfluxDBClient(port=int(sys.argv[1]), database="d", gzip=gzip)
    client.ping()
    name = "zipped" if gzip else "plain"
    points = [
        {"measurement": name, "tags": {"h": "a b"}, "time": n, "fields": {"v": n, "t": "x\"y"}}
        for n in range(500)
    ]
    assert client.write_points(points, time_precision="s", batch_size=200)
    assert client.write_points([name + ",h=c v=1i 7"], protocol="line", retention_policy="autogen")
    try:
        client.write_points([{"measurement": name, "time": 1, "fields": {"v": "text"}}])
        raise SystemExit("a conflict was taken")
    except InfluxDBClientError as error:
        assert error.code == 400 and "field type conflict" in error.content, error
"#;
    for url in [
        scene.direct.url(),
        format!("http://{}", scene.relay.address),
    ] {
        let port = url.rsplit(':').next().unwrap();
        let python = Command::new("python3")
            .args(["-c", script, port])
            .output()
            .unwrap();
        assert!(
            python.status.success(),
            "{}",
            String::from_utf8_lossy(&python.stderr)
        );
    }
    scene.assert_same();
    assert_eq!(scene.direct.count("d"), 1_002);
}
