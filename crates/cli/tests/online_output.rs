//! Where the output of verbs that ask a host goes: a terminal that is narrow, a pipe that nobody
//! reads, with colours and without.

mod hosts;
mod stores;
mod terminal;

use std::{io, process::Stdio};

use hinted_handoff::NodeId;
use hosts::{AWAY, Host};
use stores::{code, err, hh, out};
use terminal::{Terminal, has_colours};

/// Verbs that print tables, with the columns that they have.
const TABLES: [(&[&str], &[&str]); 5] = [
    (&["status"], &["nodes", "pending", "dead letters", "store"]),
    (
        &["nodes"],
        &["node", "state", "pending", "oldest", "last error"],
    ),
    (&["peek", "2"], &["id", "shard", "bytes"]),
    (
        &["letters", "list", "--node", "4"],
        &["id", "shard", "error"],
    ),
    (&["losses"], &["index", "node", "hints", "reason"]),
];

/// Verbs that print anything else, and end by themselves.
const OTHERS: [&[&str]; 8] = [
    &["nodes", "2"],
    &["metrics"],
    &["check"],
    &["set"],
    &["pause", "2"],
    &["resume", "2"],
    &["drain", "3", "--unknown"],
    &["barrier", "2"],
];

/// One with hints, a dead letter and a loss.
fn host() -> Host {
    let host = Host::start();
    host.ok(&["pause", "--all"]);
    host.hint(NodeId(5), &["lost"]);
    host.ok(&["discard", "5", "--shard", "7", "--yes"]);
    host.ok(&["resume", "--all"]);
    host.hint(AWAY, &["one", "two"]);
    host.with_letter();
    host.until(|stats| stats.nodes.iter().any(|it| it.last_error.is_some()));
    host
}

/// What it prints on a terminal of so many columns.
#[track_caller]
fn on_terminal(host: &Host, columns: u16, arguments: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = terminal::program(env!("CARGO_BIN_EXE_hh"));
    command.args(arguments);
    command.env("HH_SOCKET", host.socket());
    env.iter()
        .for_each(|(name, value)| command.env(name, value));
    let mut terminal = Terminal::run(command, columns, 24);
    let status = terminal.ended();
    let all = terminal.bytes();
    assert!(
        status.success(),
        "{arguments:?} on {columns} columns: {status:?} {all}"
    );
    all.replace("\r\n", "\n")
}

#[test]
fn a_narrow_terminal_gets_a_line_a_cell_with_its_name() {
    let host = host();
    for columns in [20, 5, 1] {
        for (verb, names) in TABLES {
            let all = on_terminal(&host, columns, verb, &[]);
            for name in names {
                let begin = format!("{name}: ");
                let found = all.lines().find_map(|line| line.strip_prefix(&begin));
                assert!(
                    found.is_some_and(|it| !it.is_empty()),
                    "{verb:?} {name}: {all}"
                );
            }
        }
    }
    let nodes = on_terminal(&host, 20, &["nodes"], &[]);
    assert!(nodes.contains("node: 2\nname: replica-2\n"), "{nodes}");
    assert!(nodes.contains("scripted: down"), "{nodes}");
    assert!(nodes.contains("\n\nnode: 4\n"), "{nodes}");
}

#[test]
fn a_terminal_with_room_for_a_table_gets_no_line_that_is_longer() {
    let host = host();
    for columns in [80, 120] {
        for (verb, names) in TABLES.into_iter().skip(1) {
            let all = on_terminal(&host, columns, verb, &[]);
            for line in all.lines() {
                assert!(
                    line.chars().count() <= usize::from(columns),
                    "{verb:?}: {line:?}"
                );
            }
            let head = all.lines().next().unwrap();
            for name in &names[..2] {
                assert!(head.contains(name), "{verb:?}: {head:?}");
            }
        }
    }
}

#[test]
fn every_verb_goes_well_on_a_terminal_of_any_width() {
    let host = host();
    for columns in [1, 20, 300] {
        for verb in OTHERS {
            assert_ne!(on_terminal(&host, columns, verb, &[]), "", "{verb:?}");
        }
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_no_error_to_tell() {
    let host = host();
    let verbs = TABLES.iter().map(|(verb, _)| *verb).chain(OTHERS);
    for verb in verbs {
        for json in [&[][..], &["--json"]] {
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            let mut command = hh(&[json, verb].concat());
            let command = command.env("HH_SOCKET", host.socket()).stdout(writer);
            let ended = command.stderr(Stdio::piped()).output().unwrap();
            let told = (code(&ended), err(&ended));
            assert_eq!(told, (141, String::new()), "{json:?} {verb:?}");
        }
    }
}

#[test]
fn a_verb_that_follows_ends_once_nobody_reads_it() {
    let host = host();
    for verb in [&["events"][..], &["losses", "--follow"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = hh(verb);
        let command = command.env("HH_SOCKET", host.socket()).stdout(writer);
        let mut following = command.stderr(Stdio::piped()).spawn().unwrap();
        // Something happens until it has heard of it.
        for number in 0.. {
            assert!(number < 10_000, "{verb:?} goes on");
            if following.try_wait().unwrap().is_some() {
                break;
            }
            host.hint(hosts::STRICT, &["refused"]);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let ended = following.wait_with_output().unwrap();
        assert_eq!(
            (code(&ended), err(&ended)),
            (141, String::new()),
            "{verb:?}"
        );
    }
}

#[test]
fn colours_are_for_terminals_where_no_color_allows_them() {
    let host = host();
    let status = ["status"];
    assert!(has_colours(&on_terminal(&host, 100, &status, &[])));
    for none in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        assert!(
            !has_colours(&on_terminal(&host, 100, &status, &[none])),
            "{none:?}"
        );
    }
    let verbs = TABLES.iter().map(|(verb, _)| *verb).chain(OTHERS);
    for verb in verbs {
        let plain = on_terminal(&host, 100, verb, &[("NO_COLOR", "1")]);
        assert!(!has_colours(&plain), "{verb:?}: {plain}");
        let piped = host.run(verb);
        assert_eq!(code(&piped), 0, "{verb:?}: {}", err(&piped));
        assert!(!out(&piped).contains('\u{1b}'), "{verb:?}: {}", out(&piped));
    }
}

#[test]
fn settings_are_a_table_on_a_terminal_that_says_which_can_change() {
    let host = host();
    let all = on_terminal(&host, 100, &["set"], &[]);
    let row = |name: &str| {
        let found = all.lines().map(|it| it.trim());
        let found = found.filter(|it| it.split_whitespace().next() == Some(name));
        let found: Vec<&str> = found.collect();
        assert_eq!(found.len(), 1, "{name}: {all}");
        found[0].to_owned()
    };
    assert!(row("max_age").contains("can change"), "{all}");
    assert!(row("max_hints").contains("none"), "{all}");
    assert!(row("purge_after").contains("7days"), "{all}");
    assert!(row("purge_after").contains("fixed"), "{all}");
}
