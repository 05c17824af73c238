//! Each verb that asks a host, at one that runs, at one that refuses, at one that hangs, at none.

mod hosts;
mod stores;

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    process::{Child, Stdio},
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::NodeId;
use hinted_handoff_admin::Settings;
use hosts::{AWAY, Host, SHARD, STRICT, WELL, at, row};
use serde_json::Value;
use stores::{code, err, hh, out, run};

#[test]
fn status_and_nodes_tell_what_waits_for_whom_and_why() {
    let host = Host::start();
    host.hint(AWAY, &["one", "two", "three"]);
    host.with_letter();
    host.until(|stats| stats.nodes.iter().any(|it| it.last_error.is_some()));
    let status = host.json(&["status"]);
    assert_eq!(status["health"], "serving");
    assert_eq!(status["pending"]["hints"], 3);
    let plain = host.ok(&["status"]);
    assert_eq!(row(&plain, "pending")[1], "3 (11)");
    assert_eq!(row(&plain, "dead_letters")[1], "1 (7)");
    assert_eq!(row(&plain, "paused")[1], "no");

    let nodes = host.json(&["nodes"]);
    assert_eq!(nodes[0]["node"], 2, "the deepest first");
    assert_eq!(nodes[0]["pending"]["hints"], 3);
    assert_eq!(nodes[0]["name"], "replica-2");
    let plain = host.ok(&["nodes", "--sort", "node"]);
    let away = row(&plain, "2");
    assert_eq!((away[1], away[3], away[4]), ("replica-2", "3", "11"));
    assert!(away[10].contains("scripted: down"), "{away:?}");
    assert_eq!(host.json(&["nodes", "2"])["pending"]["hints"], 3);
    let error = host.fails(3, &["nodes", "77"]);
    assert!(error.contains("404"), "{error}");
}

#[test]
fn peek_shows_the_next_hints_page_by_page_and_takes_none() {
    let host = Host::start();
    host.hint(AWAY, &["one", "two", "three"]);
    let all = host.json(&["peek", "2", "--max", "2"]);
    let hints = all["hints"].as_array().unwrap();
    assert_eq!(hints.len(), 2);
    let last = hints[1]["id"].as_str().unwrap();
    let rest = host.ok(&["peek", "2", "--after", last]);
    assert_eq!(rest.lines().count(), 1);
    assert_eq!(rest.trim_end().split('\t').nth(1), Some("7"), "its shard");
    assert_eq!(host.pending(AWAY), 3);
}

#[test]
fn a_pause_holds_until_it_is_taken_back_and_a_drain_says_whether_all_arrived() {
    let host = Host::start();
    host.hold_well();
    host.hint(WELL, &["held"]);
    let stats = host.json(&["nodes", "3"]);
    assert_eq!(stats["state"], "paused");
    let output = host.run(&["drain", "3", "--timeout", "50ms"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    let state: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(state["waiting"]["pending"]["hints"], 1);
    host.ok(&["resume", "3"]);
    assert_eq!(host.ok(&["drain", "3"]), "delivered\n");

    host.ok(&["pause", "--all", "--lasting"]);
    assert_eq!(host.json(&["status"])["paused_all"], "lasting");
    host.ok(&["resume", "--all"]);
    assert_eq!(host.json(&["status"])["paused_all"], Value::Null);
    let error = host.fails(2, &["pause"]);
    assert!(error.contains("--all"), "{error}");
}

#[test]
fn a_barrier_is_made_and_waited_for() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let barrier = host.json(&["barrier", "2", "3"]);
    assert!(barrier.is_object() || barrier.is_string(), "{barrier}");
    let output = host.run(&["--json", "barrier", "2", "--wait", "--timeout", "50ms"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    let state: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(state["waiting"]["pending"]["hints"], 1);
    assert_eq!(
        host.json(&["barrier", "3", "--wait"]),
        Value::from("delivered")
    );
}

#[test]
fn a_barrier_that_was_made_before_is_waited_for() {
    let host = Host::start();
    host.hold_well();
    host.hint(WELL, &["held"]);
    let file = host.dir.path().join("barrier");
    std::fs::write(&file, host.ok(&["barrier", "3"])).unwrap();
    let file = file.to_str().unwrap();
    let wait = ["barrier", "--wait", "--barrier", file, "--timeout", "50ms"];
    assert_eq!(code(&host.run(&wait)), 1);
    host.ok(&["resume", "3"]);
    assert_eq!(host.ok(&wait[..4]), "delivered\n");
    // What comes after it is not waited for.
    host.hint(AWAY, &["one"]);
    let mut command = hh(&["barrier", "--wait", "--barrier", "-"]);
    command.env("HH_SOCKET", host.socket());
    let input = command
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert_eq!(out(&input), "delivered\n", "{}", err(&input));

    std::fs::write(file, "no barrier").unwrap();
    let error = host.fails(2, &wait);
    assert!(error.contains("has no barrier"), "{error}");
    host.fails(2, &["barrier"]);
    host.fails(2, &["barrier", "--barrier", file]);
    host.fails(2, &["barrier", "3", "--wait", "--barrier", file]);
}

#[test]
fn dead_letters_of_a_host_are_listed_and_sent_on_once_more() {
    let host = Host::start();
    host.with_letter();
    let letters = host.json(&["letters", "list", "--node", "4"]);
    assert_eq!(letters[0]["reason"], "rejected");
    let id = letters[0]["id"].as_str().unwrap();
    assert_eq!(
        host.ok(&["letters", "list", "--node", "4"])
            .split('\t')
            .next(),
        Some(id)
    );
    host.ok(&["pause", "4"]);
    host.json(&["letters", "redrive", "4", id]);
    assert_eq!((host.letters(), host.pending(STRICT)), (0, 1));
    let error = host.fails(3, &["letters", "redrive", "4", id]);
    assert!(error.contains("404"), "{error}");
    host.fails(2, &["letters", "redrive", "4"]);
    let error = host.fails(3, &["letters", "discard", "4", id, "--yes"]);
    assert!(
        error.contains("none of these is a dead letter of node 4"),
        "{error}"
    );
    assert_eq!(host.pending(STRICT), 1);
}

#[test]
fn a_node_is_renamed_and_the_members_of_the_cluster_are_said() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    host.hint(NodeId(5), &["two"]);
    let moved = host.json(&["rename", "2", "22"]);
    assert_eq!(moved["pending"]["hints"], 1);
    assert_eq!((host.pending(AWAY), host.pending(NodeId(22))), (0, 1));
    host.json(&["retain", "22", "--yes"]);
    assert_eq!(host.json(&["nodes", "5"])["state"], "parked");
    assert_ne!(host.json(&["nodes", "22"])["state"], "parked");
}

#[test]
fn settings_are_shown_and_changed_by_their_names() {
    let host = Host::start();
    assert_eq!(host.json(&["set"])["max_bytes_per_node"], Value::Null);
    let config = host.json(&["set", "max_age=3h", "max_bytes_per_node=1000000"]);
    assert_eq!(config["max_age"], "3h");
    assert_eq!(config["max_bytes_per_node"], 1_000_000);
    assert_eq!(host.handoff.config().max_age, Duration::from_secs(3 * 3600));
    let config = host.json(&["set", "max_bytes_per_node="]);
    assert_eq!(config["max_bytes_per_node"], Value::Null);
    assert_eq!(config["max_age"], "3h", "what is not named stays");
    for (setting, said) in [
        ("max_agee=3h", "max_agee"),
        ("max_age=many", "many"),
        ("purge_after=1h", "purge_after"),
    ] {
        let error = host.fails(3, &["set", setting]);
        assert!(error.contains(said), "{error}");
    }
    host.fails(2, &["set", "max_age"]);
}

#[test]
fn hints_of_a_node_are_stopped_and_its_direct_writes_are_held() {
    let host = Host::start();
    host.hold_well();
    host.hint(WELL, &["held"]);
    assert_eq!(host.pending(WELL), 1);
    host.ok(&["direct", "release", "3"]);
    host.ok(&["hinting", "stop", "2", "--unknown"]);
    let points = Bytes::from("refused");
    let written = host.handoff.write_shard(AWAY, SHARD, &points);
    assert!(host.runtime.block_on(written).is_err());
    host.ok(&["hinting", "start", "2", "--unknown"]);
    host.hint(AWAY, &["accepted"]);
    host.hint(WELL, &["x"]);
    let of = |node| {
        let nodes = host.handoff.stats().nodes;
        nodes.iter().find(|it| it.node == node).map(|it| it.hinting)
    };
    host.ok(&["hinting", "stop", "2", "3"]);
    assert_eq!((of(AWAY), of(WELL)), (Some(false), Some(false)));
    host.fails(3, &["hinting", "start", "2", "77"]);
    assert_eq!(of(AWAY), Some(false), "none is concerned");
    host.ok(&["hinting", "start", "2", "3"]);
    assert_eq!((of(AWAY), of(WELL)), (Some(true), Some(true)));
    host.ok(&["hinting", "stop", "--all"]);
    assert_eq!(row(&host.ok(&["status"]), "hints_are_made")[1], "no");
    host.ok(&["hinting", "start", "--all"]);
    host.hint(AWAY, &["accepted"]);
}

#[test]
fn a_check_is_one_line_and_an_exit_status() {
    let host = Host::start();
    let well = host.ok(&["check", "--max-age", "1s", "--max-bytes", "10"]);
    assert!(well.starts_with("OK - all is well | pending=0 bytes=0B "));
    assert_eq!(well.lines().count(), 1);
    host.hint(AWAY, &["a longer hint"]);
    host.with_letter();
    for (bound, value, said) in [
        ("--max-bytes", "10", "13 bytes wait, over 10"),
        ("--max-letters", "0", "1 dead letters, over 0"),
        ("--max-age", "0s", "the oldest hint is older than 0s"),
    ] {
        std::thread::sleep(Duration::from_millis(2));
        let output = host.run(&["check", bound, value]);
        assert_eq!(code(&output), 1);
        assert!(out(&output).starts_with("WARNING - "), "{}", out(&output));
        assert!(out(&output).contains(said), "{}", out(&output));
    }
    host.ok(&["check", "--max-bytes", "13", "--max-letters", "1"]);
    host.ok(&["check", "--max-bytes", "1KiB"]);
    for size in ["1K", "many", "-1"] {
        let wrong = host.fails(3, &["check", &format!("--max-bytes={size}")]);
        assert!(wrong.contains("64MiB"), "{wrong}");
    }
    let nobody = at(&host.dir.path().join("none"), &["check"]);
    assert_eq!(code(&nobody), 2);
    assert!(out(&nobody).starts_with("CRITICAL - nobody answers"));
    let hanging = host.dir.path().join("hanging");
    let _listener = UnixListener::bind(&hanging).unwrap();
    let hangs = at(&hanging, &["check", "--answer-within", "100ms"]);
    assert_eq!(code(&hangs), 2, "{}", out(&hangs));
    assert!(out(&hangs).starts_with("CRITICAL - no answer"));
    host.runtime
        .block_on(host.handoff.clone().shutdown())
        .unwrap();
    let down = host.run(&["check"]);
    assert_eq!(code(&down), 2, "{}", out(&down));
    assert!(
        out(&down).starts_with("CRITICAL - It is shut down"),
        "{}",
        out(&down)
    );
}

#[test]
fn what_is_followed_is_a_document_a_line() {
    let host = Host::start();
    // Hints that are being sent are not discarded.
    host.ok(&["pause", "--all"]);
    let mut following = Following::start(&host, &["losses", "--follow", "--json"]);
    for node in [AWAY, NodeId(5)] {
        host.hint(node, &["one"]);
        let node = node.to_string();
        host.ok(&["discard", &node, "--shard", "7", "--yes"]);
        let line = following.next().unwrap();
        let document: Value = serde_json::from_str(&line).unwrap();
        let lost = document["entries"].as_array().unwrap();
        assert_eq!(lost.len(), 1, "{document}");
        assert_eq!(lost[0][1]["node"].to_string(), node);
    }
}

#[test]
fn metrics_are_in_the_text_format() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let metrics = host.ok(&["metrics"]);
    assert!(metrics.contains("hinted_handoff_pending_hints"));
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

/// A program that goes on until it is killed, and its lines.
struct Following {
    program: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(host: &Host, arguments: &[&str]) -> Following {
        let mut command = hh(arguments);
        command.env("HH_SOCKET", host.socket());
        let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|it| tell.send(it)));
        Following {
            program,
            lines: told,
        }
    }

    /// The next line; `None` if the program has ended.
    fn next(&mut self) -> Option<String> {
        match self.lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line in time"),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

#[test]
fn events_are_told_as_they_happen() {
    let host = Host::start();
    let mut following = Following::start(&host, &["events", "--max", "1"]);
    // It may not listen yet: something happens until it has heard of it.
    let told = (0..10_000).find_map(|_| {
        host.hint(STRICT, &["refused"]);
        std::thread::sleep(Duration::from_millis(5));
        following.lines.try_recv().ok()
    });
    let told = told.expect("an event is told");
    let event: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(event["node"], 4, "{event}");
    assert!(event["event"].is_string(), "{event}");
    assert_eq!(following.next(), None, "one was asked for");
    assert!(following.program.wait().unwrap().success());
    host.fails(2, &["events", "--max", "0"]);
}

#[test]
fn losses_are_followed_as_they_happen() {
    let host = Host::start();
    // Hints that are being sent are not discarded.
    host.ok(&["pause", "--all"]);
    host.hint(AWAY, &["one"]);
    host.ok(&["discard", "2", "--shard", "7", "--yes"]);
    let mut following = Following::start(&host, &["losses", "--follow"]);
    let first = following.next().unwrap();
    assert_eq!(first.split('\t').nth(1), Some("2"));
    host.hint(NodeId(5), &["two"]);
    host.ok(&["discard", "5", "--shard", "7", "--yes"]);
    let second = following.next().unwrap();
    assert_eq!(second.split('\t').nth(1), Some("5"));
}

#[test]
fn a_host_that_only_looks_refuses_changes_and_says_how_to_allow_them() {
    let host = Host::with(Settings::default());
    host.hint(AWAY, &["one"]);
    host.ok(&["status"]);
    host.ok(&["peek", "2"]);
    for arguments in [
        &["pause", "2"][..],
        &["rename", "2", "3"],
        &["discard", "2", "--shard", "7", "--yes"],
        &["set", "max_age=3h"],
        &["hinting", "stop", "--all"],
    ] {
        let error = host.fails(3, arguments);
        assert!(error.contains("refuses (403)"), "{arguments:?}: {error}");
        assert!(error.contains("read_only"), "{error}");
    }
    assert_eq!(host.pending(AWAY), 1);
}

#[test]
fn a_socket_that_nobody_serves_and_one_that_hangs_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("hh.sock");
    let nobody = at(&socket, &["status"]);
    assert_eq!(code(&nobody), 3);
    let error = err(&nobody);
    assert!(error.contains("nobody answers at"), "{error}");
    assert!(error.contains("No such file"), "{error}");

    // It takes the connection, and says nothing.
    let _hanging = UnixListener::bind(&socket).unwrap();
    let output = at(&socket, &["status", "--answer-within", "100ms"]);
    assert_eq!(code(&output), 3);
    assert!(err(&output).contains("within 100ms"), "{}", err(&output));

    let unsaid = run(&["status"]);
    assert_eq!(code(&unsaid), 2);
    assert!(err(&unsaid).contains("--socket"), "{}", err(&unsaid));
}

#[test]
fn a_verb_for_either_wants_a_store_or_a_socket() {
    for verb in [&["losses"][..], &["letters", "list", "--node", "1"]] {
        let output = hh(verb).env_remove("HH_SOCKET").output().unwrap();
        assert_eq!(code(&output), 2, "{verb:?}: {}", err(&output));
        assert!(err(&output).contains("--socket"), "{}", err(&output));
    }
}
