//! What is said of a host that answers badly, late, or not at all. A thread takes its place: a real
//! one cannot be made to do so.

mod stores;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use stores::{code, err, hh, out};

/// Answers each request by its path, until the test is over.
fn host(
    dir: &Path,
    answer: impl Fn(&str, &mut UnixStream) -> std::io::Result<()> + Send + 'static,
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

fn at(socket: &Path, arguments: &[&str]) -> Output {
    hh(arguments).env("HH_SOCKET", socket).output().unwrap()
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
