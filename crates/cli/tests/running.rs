//! Each verb that asks a host, at one that runs, at one that refuses, at one that hangs, at none.

mod stores;

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{Config, HintedHandoff, NodeId, ShardId, Stats};
use hinted_handoff_admin::{Address, Server, Settings, serve};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use serde_json::Value;
use stores::{code, err, hh, out, run};
use tokio::runtime::Runtime;

/// Nodes of these tests: one that is away, one that takes all, one that rejects.
const AWAY: NodeId = NodeId(2);
const WELL: NodeId = NodeId(3);
const STRICT: NodeId = NodeId(4);
const SHARD: ShardId = ShardId(7);

/// A host with its socket, and the program asking it.
struct Host {
    dir: tempfile::TempDir,
    runtime: Runtime,
    handoff: HintedHandoff<Bytes>,
    _server: Server,
}

impl Host {
    fn start() -> Host {
        Host::with(Settings {
            read_only: false,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let writer = ScriptedWriter::new(|write| match write.node {
            WELL => Reply::Take,
            STRICT => Reply::Reject,
            _ => Reply::Retry,
        });
        let config = Config {
            retry_interval: Duration::from_millis(10),
            retry_max_interval: Duration::from_millis(50),
            min_free_disk: 0,
            ..Config::new(dir.path().join("hints"))
        };
        let settings = Settings {
            node_names: Some(Arc::new(|node| Some(format!("replica-{node}")))),
            ..settings
        };
        let address = Address::Unix(dir.path().join("hh.sock"));
        let (handoff, server) = runtime.block_on(async {
            let handoff = HintedHandoff::open(config, writer).await.unwrap();
            let server = serve(&handoff, settings, address).await.unwrap();
            (handoff, server)
        });
        Host {
            dir,
            runtime,
            handoff,
            _server: server,
        }
    }

    fn hint(&self, node: NodeId, texts: &[&str]) {
        for text in texts {
            let points = Bytes::from(text.to_string());
            let written = self.handoff.write_shard(node, SHARD, &points);
            self.runtime.block_on(written).unwrap();
        }
    }

    fn until(&self, wished: impl Fn(&Stats) -> bool) {
        let by = Instant::now() + Duration::from_secs(60);
        while !wished(&self.handoff.stats()) {
            assert!(Instant::now() < by, "{:?}", self.handoff.stats());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn pending(&self, node: NodeId) -> u64 {
        let stats = self.handoff.stats();
        let node = stats.nodes.iter().find(|it| it.node == node);
        node.map_or(0, |it| it.pending.hints)
    }

    fn letters(&self) -> u64 {
        let nodes = self.handoff.stats().nodes;
        nodes.iter().map(|it| it.dead_letters.hints).sum()
    }

    /// With a dead letter.
    fn with_letter(&self) {
        self.hint(STRICT, &["refused"]);
        self.until(|stats| stats.nodes.iter().any(|it| it.dead_letters.hints > 0));
    }

    /// Has the writes to the node that takes all become hints that wait.
    fn hold_well(&self) {
        self.ok(&["direct", "hold", "3"]);
        // Only a node that has a queue is paused.
        self.hint(WELL, &["first"]);
        assert_eq!(self.ok(&["drain", "3"]), "delivered\n");
        assert_eq!(self.ok(&["pause", "3"]), "done\n");
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("hh.sock")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        at(&self.socket(), arguments)
    }

    /// What is printed, if it went well.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
        out(&output)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        serde_json::from_str(&self.ok(&arguments)).unwrap()
    }

    /// What is said of it, if it failed with this exit status.
    #[track_caller]
    fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), status, "{arguments:?}: {}", err(&output));
        err(&output)
    }
}

fn at(socket: &Path, arguments: &[&str]) -> Output {
    hh(arguments).env("HH_SOCKET", socket).output().unwrap()
}

/// The cells of the row that begins with this.
#[track_caller]
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let rows = text.lines().map(|it| it.split('\t').collect::<Vec<_>>());
    let mut rows = rows.filter(|it| it.first() == Some(&first));
    rows.next().unwrap_or_else(|| panic!("{first}: {text}"))
}

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
    assert!(away[9].contains("scripted: down"), "{away:?}");
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
fn what_cannot_be_taken_back_shows_what_would_go_and_wants_a_yes() {
    let host = Host::start();
    host.with_letter();
    // Hints that are being sent are not discarded.
    host.ok(&["pause", "--all"]);
    host.hint(AWAY, &["one", "two"]);
    for arguments in [
        &["remove", "2", "--discard-pending"][..],
        &["discard", "2", "--shard", "7"],
        &["letters", "discard", "4", "--all"],
    ] {
        let output = host.run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert_eq!(out(&output), "");
        assert!(err(&output).contains("hints wait"), "{}", err(&output));
        assert!(err(&output).contains("--yes"), "{}", err(&output));
    }
    assert_eq!((host.pending(AWAY), host.letters()), (2, 1));

    let discarded = host.json(&["discard", "2", "--shard", "7", "--yes"]);
    assert_eq!(discarded["discarded"]["hints"], 2);
    assert_eq!(host.pending(AWAY), 0);
    host.hint(AWAY, &["three"]);
    let removed = host.json(&["remove", "2", "--discard-pending", "--yes"]);
    assert_eq!(removed["discarded"]["hints"], 1);
    host.json(&["letters", "discard", "4", "--all", "--yes"]);
    assert_eq!(host.letters(), 0);

    let losses = host.json(&["losses"]);
    let reasons = losses["entries"].as_array().unwrap().iter();
    let reasons: Vec<_> = reasons
        .map(|it| it[1]["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["discarded"; 3]);
    let of_away = host.ok(&["losses", "--node", "2"]);
    let nodes: Vec<_> = of_away.lines().map(|it| it.split('\t').nth(1)).collect();
    assert_eq!(nodes, [Some("2"); 2]);
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
}

/// Names of an object, in order.
fn names(of: &Value) -> Vec<&String> {
    of.as_object().unwrap().keys().collect()
}

#[test]
fn a_dead_letter_of_a_host_is_shown_by_the_names_that_a_closed_store_has_for_it() {
    let host = Host::start();
    host.with_letter();
    let listed = host.json(&["letters", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "of all nodes");
    let id = listed[0]["id"].as_str().unwrap();
    let shown = host.json(&["letters", "show", id]);
    assert_eq!(shown["node"], 4);
    assert_eq!(shown["payload_base64"], "cmVmdXNlZA==");
    assert_eq!(
        (&shown["cut"], &shown["reads"]),
        (&false.into(), &true.into())
    );
    assert_eq!(host.json(&["letters", "show", id, "--node", "4"]), shown);
    let other = format!("{id}0");
    let error = host.fails(2, &["letters", "show", &other]);
    assert!(error.contains("no dead letter"), "{error}");
    host.fails(3, &["letters", "show", id, "--node", "9"]);

    let shutdown = host.handoff.shutdown();
    host.runtime.block_on(shutdown).unwrap();
    let store = host.dir.path().join("hints");
    let store = store.to_str().unwrap();
    // What is named comes before the socket of the environment.
    let of_store = host.json(&["letters", "list", store]);
    assert_eq!(names(&of_store[0]), names(&listed[0]));
    let shown_of_store = host.json(&["letters", "show", store, id]);
    assert_eq!(names(&shown_of_store), names(&shown));
    for name in [
        "enqueued_unix_ms",
        "error",
        "first_failed_unix_ms",
        "reason",
        "payload_base64",
    ] {
        assert_eq!(shown_of_store[name], shown[name], "{name}");
    }
}

#[test]
fn a_node_is_renamed_and_the_members_of_the_cluster_are_said() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    host.hint(NodeId(5), &["two"]);
    let moved = host.json(&["rename", "2", "22"]);
    assert_eq!(moved["pending"]["hints"], 1);
    assert_eq!((host.pending(AWAY), host.pending(NodeId(22))), (0, 1));
    host.json(&["retain", "22"]);
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
    host.ok(&["hinting", "stop", "2"]);
    let points = Bytes::from("refused");
    let written = host.handoff.write_shard(AWAY, SHARD, &points);
    assert!(host.runtime.block_on(written).is_err());
    host.ok(&["hinting", "start", "2"]);
    host.hint(AWAY, &["accepted"]);
    host.ok(&["hinting", "stop", "--all"]);
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
    let nobody = at(&host.dir.path().join("none"), &["check"]);
    assert_eq!(code(&nobody), 3);
    assert!(out(&nobody).starts_with("UNKNOWN - nobody answers"));
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

/// Those that print something else: lines as they come, or a picture.
const NO_DOCUMENT: [&str; 4] = ["events", "export", "top", "help"];

#[test]
fn every_verb_prints_one_document_of_json() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    host.with_letter();
    let id = host.json(&["letters", "list"])[0]["id"].clone();
    let id = id.as_str().unwrap();
    let into = |name: &str| host.dir.path().join(name).to_str().unwrap().to_owned();
    let (store, raw, man, file) = (into("hints"), into("raw"), into("man"), into("lines"));
    let of_host = [
        "status",
        "nodes",
        "nodes 2",
        "peek 2",
        "metrics",
        "check",
        "pause 2",
        "resume 2",
        "barrier 2",
        "barrier 3 --wait",
        "rename 2 22",
        "retain 22 4",
        "hinting stop 22",
        "hinting start 22",
        "direct hold 3",
        "direct release 3",
        "discard 22 --shard 7 --yes",
        "set",
        "set max_age=3h",
        "letters list",
        "letters show ID",
        "letters redrive 4 ID",
        "letters discard 4 --all --yes",
        "losses",
        "remove 22 --discard-pending --yes",
        "completions bash",
        "man MAN",
    ];
    let of_store = [
        "info STORE",
        "verify STORE",
        "verify STORE --deep",
        "export STORE --raw RAW",
        "import INTO LINES",
        "salvage STORE/gen-000001 SALVAGED",
        "letters list STORE",
        "losses STORE",
    ];
    let mut asked = Vec::new();
    let mut ask = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            "ID" => id.to_owned(),
            "STORE" => store.clone(),
            "RAW" => raw.clone(),
            "MAN" => man.clone(),
            "LINES" => file.clone(),
            "INTO" | "SALVAGED" => into(word),
            word => word.replace("STORE", &store),
        });
        let words: Vec<String> = words.collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        asked.push(words[0].to_owned());
        // One, or this panics.
        let document = host.json(&words);
        assert!(!document.is_null(), "{line}");
    };
    std::fs::create_dir(&man).unwrap();
    // Otherwise the letter would be there again before it is discarded.
    host.ok(&["pause", "4"]);
    of_host.iter().for_each(|line| ask(line));
    host.ok(&["drain", "3", "--json"]).parse::<Value>().unwrap();
    host.runtime.block_on(host.handoff.shutdown()).unwrap();
    std::fs::write(&file, host.ok(&["export", &store])).unwrap();
    of_store.iter().for_each(|line| ask(line));
    asked.push("drain".to_owned());

    let help = host.ok(&["--help"]);
    let (_, verbs) = help.split_once("Commands:\n").unwrap();
    let verbs = verbs.lines().take_while(|line| !line.is_empty());
    let verbs = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs: Vec<&str> = verbs
        .filter_map(|it| it.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 20, "{help}");
    for verb in verbs {
        let is_seen = asked.iter().any(|it| it == verb) || NO_DOCUMENT.contains(&verb);
        assert!(is_seen, "{verb} is not asked here");
    }
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
fn a_usage_has_what_comes_first_first() {
    let usage = |arguments: &[&str]| {
        let help = stores::ok(&[arguments, &["--help"]].concat());
        let usage = help.lines().find_map(|it| it.strip_prefix("Usage: "));
        usage.unwrap_or_else(|| panic!("{help}")).to_owned()
    };
    for (verb, first, then) in [
        (&["hinting"][..], "<WHAT>", "<NODE"),
        (&["letters", "redrive"], "<NODE>", "<IDS"),
        (&["letters", "discard"], "<NODE>", "<IDS"),
        (&["direct"], "<WHAT>", "<NODE"),
        (&["letters", "show"], "[DIR]", "<ID>"),
    ] {
        let usage = usage(verb);
        let (first, then) = (usage.find(first), usage.find(then));
        assert!(first.is_some() && first < then, "{usage}");
    }
}

#[test]
fn events_are_told_as_they_happen() {
    let host = Host::start();
    let mut following = Following::start(&host, &["events", "--max", "1"]);
    // It may not listen yet: something happens until it has heard of it.
    let told = loop {
        host.hint(STRICT, &["refused"]);
        if let Ok(line) = following.lines.try_recv() {
            break line;
        }
    };
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
