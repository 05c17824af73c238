//! What is said of a host that answers badly, late, or not at all. A thread takes its place: a real
//! one cannot be made to do so.

mod hosts;
mod stores;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use hosts::{AWAY, Host};
use serde_json::{Value, json};
use stores::{code, err, hh, out};

/// Answers each request by its path, until the test is over.
fn host(
    dir: &Path,
    mut answer: impl FnMut(&str, &mut UnixStream) -> std::io::Result<()> + Send + 'static,
) -> PathBuf {
    let socket = dir.join("hh.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            let path = first.split(' ').nth(1).unwrap().to_owned();
            for line in lines {
                if line.unwrap().is_empty() {
                    break;
                }
            }
            // Whoever asked may be gone.
            drop(answer(&path, &mut connection));
            // It is not closed: that would be an answer, too.
            kept.push(connection);
        }
    });
    socket
}

fn send(to: &mut UnixStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        to,
        "HTTP/1.1 {status} status\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Of a program that goes on for ever the exit status is 124.
fn at(socket: &Path, arguments: &[&str]) -> Output {
    let mut bounded = Command::new("timeout");
    bounded
        .args(["60", env!("CARGO_BIN_EXE_hh")])
        .args(arguments);
    bounded.env("HH_SOCKET", socket).output().unwrap()
}

const ID: &str = "000102030405060708090a0b0c0d0e0f/1/2";

#[test]
fn a_dead_letter_of_a_host_that_does_not_read_is_shown_as_one_of_a_store_is() {
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), |path, to| match path {
        "/v1/nodes/4/letters?max=1000" => {
            let letter = json!({
                "id": ID, "node": 4, "shard": 7, "payload_bytes": 100, "reason": "rejected",
                "error": "no such column", "attempts": 2, "first_failed_unix_ms": 1,
                "last_failed_unix_ms": 2,
            });
            send(
                to,
                200,
                &json!({"node": 4, "letters": [letter], "next": null}),
            )
        }
        _ => {
            let kind = "urn:hinted-handoff:damaged";
            let detail = "its payload\u{1b}[2J does not read";
            send(
                to,
                409,
                &json!({"type": kind, "status": 409, "detail": detail}),
            )
        }
    });
    let shown = at(&socket, &["letters", "show", ID, "--node", "4", "--json"]);
    assert_eq!(code(&shown), 1);
    // What a host says does not reach the terminal as a command.
    let told = err(&shown);
    assert!(
        told.contains("its payload\\u{1b}[2J does not read"),
        "{told}"
    );
    let shown: Value = serde_json::from_str(&out(&shown)).unwrap();
    assert_eq!(
        (&shown["id"], &shown["reason"]),
        (&ID.into(), &"rejected".into())
    );
    assert_eq!(
        (&shown["reads"], &shown["payload_base64"]),
        (&false.into(), &Value::Null)
    );
}

#[test]
fn a_check_that_cannot_tell_says_so_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), |_, to| {
        send(to, 200, &json!({"health": "serving"}))
    });
    for arguments in [
        &["check"][..],
        &["check", "--max-age", "soon"],
        &["check", "--max-letters"],
        &["--json", "check", "--no-such-bound"],
    ] {
        let checked = at(&socket, arguments);
        assert_eq!(code(&checked), 3, "{arguments:?}: {}", err(&checked));
        if arguments[0] == "--json" {
            let checked: Value = serde_json::from_str(&out(&checked)).unwrap();
            assert_eq!(checked["state"], "UNKNOWN");
            continue;
        }
        assert!(out(&checked).starts_with("UNKNOWN - "), "{}", out(&checked));
        assert_eq!(out(&checked).lines().count(), 1);
    }
    let unnamed = hh(&["check"]).env_remove("HH_SOCKET").output().unwrap();
    assert_eq!(code(&unnamed), 3, "{}", err(&unnamed));
    assert_eq!(code(&at(&socket, &["check", "--help"])), 0);
}

#[test]
fn a_check_of_a_host_that_does_not_replay_says_why_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), |_, to| {
        let status = json!({
            "health": "replay_stopped", "text": "the task\u{2028}of node 3 panicked\n| a=1",
            "pending": {"hints": 5, "bytes": 50}, "dead_letters": {"hints": 0, "bytes": 0},
            "oldest_age_ms": null, "paused_all": null, "hinting": true,
            "store": {"lost": {}, "refused_for_space": 0, "refused_when_full": 0},
        });
        send(to, 200, &status)
    });
    let checked = at(&socket, &["check"]);
    assert_eq!(code(&checked), 2);
    assert_eq!(
        out(&checked),
        "CRITICAL - the task\\u{2028}of node 3 panicked\\n\\u{7c} a=1 \
         | pending=5 bytes=50B age=0s letters=0 lost=0 refused=0\n"
    );
}

#[test]
fn a_time_that_no_clock_has_is_waited_for_as_long_as_clocks_go() {
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), |_, to| send(to, 200, &"delivered".into()));
    let ever = "500000000000y";
    for arguments in [
        &["nodes", "3", "--answer-within", ever][..],
        &[
            "drain",
            "3",
            "--unknown",
            "--answer-within",
            ever,
            "--timeout",
            ever,
        ],
    ] {
        let answered = at(&socket, arguments);
        assert_eq!(code(&answered), 0, "{arguments:?}: {}", err(&answered));
    }
}

/// The host waits for 300 s at a time.
#[test]
fn a_long_wait_asks_again_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut asked = 0;
    let socket = host(dir.path(), move |path, to| {
        asked += 1;
        match (path, asked % 3) {
            ("/v1/barriers", _) => send(to, 200, &json!({"version": 1})),
            ("/v1/barriers/wait", 2) => send(to, 200, &json!({"waiting": {}})),
            ("/v1/nodes/3/remove", 1 | 2) => {
                let kind = "urn:hinted-handoff:not-drained";
                send(
                    to,
                    409,
                    &json!({"type": kind, "detail": "hints are pending still"}),
                )
            }
            _ => send(to, 200, &"delivered".into()),
        }
    });
    for arguments in [
        &["drain", "3", "--unknown", "--timeout", "1h"][..],
        &["barrier", "3", "--wait", "--timeout", "1h"],
        &["remove", "3", "--yes", "--timeout", "1h"],
    ] {
        let ended = at(&socket, arguments);
        assert_eq!(code(&ended), 0, "{arguments:?}: {}", err(&ended));
        assert!(out(&ended).contains("delivered"), "{}", out(&ended));
    }
}

#[test]
fn a_removal_that_goes_on_is_told_as_the_host_says_it_where_it_does_not_say_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), |path, to| {
        let (status, kind, detail) = match path {
            "/v1/nodes/3/remove" => (409, "not-drained", "hints are pending still"),
            _ => (500, "internal", "it is broken"),
        };
        let kind = format!("urn:hinted-handoff:{kind}");
        send(to, status, &json!({"type": kind, "detail": detail}))
    });
    let stopped = at(&socket, &["remove", "3", "--yes", "--timeout", "1ms"]);
    let told = (code(&stopped), err(&stopped));
    let said = "hh: the host refuses (409): hints are pending still\n";
    assert_eq!(told, (3, said.to_owned()));
}

/// A hint that is sent while others are given away would come behind them.
#[test]
fn no_hint_is_given_away_while_some_of_the_node_are_being_sent() {
    let real = Host::start();
    real.hint(AWAY, &["one", "two"]);
    let mut sending = real.json(&["nodes", "2"]);
    sending["in_flight"] = 1.into();
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), move |path, to| match path {
        "/v1/nodes/2" => send(to, 200, &sending),
        "/v1/nodes/2/pause" => send(to, 200, &Value::Null),
        _ => send(to, 200, &json!({"rehinted": {"hints": 2, "bytes": 6}})),
    });
    for shards in [&[][..], &["--shard", "7"]] {
        let arguments = ["--json", "rehint", "2", "--to", "5", "--timeout", "1ms"];
        let stopped = at(&socket, &[&arguments, shards].concat());
        let told = err(&stopped);
        assert_eq!(code(&stopped), 1, "{told}");
        assert!(told.contains("1 hints are being sent"), "{told}");
        assert!(told.contains("node 2 is paused; resume it"), "{told}");
        let shown: Value = serde_json::from_str(&out(&stopped)).unwrap();
        assert_eq!(shown["rehinted"]["hints"], 0);
        assert_eq!(shown["stays"]["hints"], 2);
    }
}

#[test]
fn an_import_that_a_host_did_not_end_in_time_is_not_said_to_be_exact() {
    let dir = tempfile::tempdir().unwrap();
    let socket = host(dir.path(), |_, to| {
        let kind = "urn:hinted-handoff:timed-out";
        send(
            to,
            504,
            &json!({"type": kind, "detail": "it took too long"}),
        )
    });
    let file = dir.path().join("export");
    let hint = json!({
        "kind": "hint", "node": 5, "meant_for": 5, "shard": 7, "id": ID, "queue": 1, "sequence": 2,
        "format": 0, "enqueued_unix_ms": 1_700_000_000_000_u64, "payload_bytes": 3,
        "payload_base64": "YWJj",
    });
    std::fs::write(&file, format!("{hint}\n")).unwrap();
    let stopped = at(&socket, &["import", "--online", file.to_str().unwrap()]);
    let told = err(&stopped);
    assert_eq!(code(&stopped), 3, "{told}");
    assert!(told.contains("at least 0 hints of the input"), "{told}");
}

#[test]
fn a_host_that_hangs_is_given_up_wherever_it_does() {
    // None of it, or the head alone: the body of a problem is waited for as well.
    for head in ["", "HTTP/1.1 503 status\r\ncontent-length: 100\r\n\r\n{"] {
        let dir = tempfile::tempdir().unwrap();
        let socket = host(dir.path(), move |_, to| to.write_all(head.as_bytes()));
        for verb in [
            &["status"][..],
            &["events"],
            &["losses"],
            &["losses", "--follow"],
            &["letters", "list", "--node", "3"],
            &["letters", "show", ID],
            &["metrics"],
        ] {
            let hanging = at(&socket, &[verb, &["--answer-within", "100ms"]].concat());
            let told = err(&hanging);
            assert_eq!(code(&hanging), 3, "{verb:?}: {told}");
            assert!(told.contains("within 100ms"), "{verb:?}: {told}");
        }
    }
}
