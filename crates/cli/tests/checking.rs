//! What `check`, `status` and `nodes` do not call well.

mod hosts;
mod stores;

use std::time::Duration;

use bytes::Bytes;
use hinted_handoff::NodeId;
use hosts::{AWAY, Host, SHARD, row};
use stores::{code, out};

/// It warns of this, and of nothing else, until that is allowed.
#[track_caller]
fn warns(host: &Host, said: &str, allowed: &[&str]) {
    let checked = host.run(&["check"]);
    let line = out(&checked);
    assert_eq!(code(&checked), 1, "{line}");
    let why = line.strip_prefix("WARNING - ").unwrap();
    let why = why.split(" | ").next().unwrap();
    assert_eq!((why, line.lines().count()), (said, 1));
    host.ok(&[&["check"], allowed].concat());
}

fn refused(host: &Host) {
    let points = Bytes::from("refused");
    let written = host.handoff.write_shard(AWAY, SHARD, &points);
    assert!(host.runtime.block_on(written).is_err());
}

#[test]
fn a_check_warns_of_what_somebody_left_behind() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    for (left, said, allowed, taken_back) in [
        (
            &["pause", "--all"][..],
            "replay is paused for all nodes",
            "paused",
            &["resume", "--all"][..],
        ),
        (
            &["pause", "2"],
            "replay is paused for node 2",
            "paused",
            &["resume", "2"],
        ),
        (
            &["hinting", "stop", "--all"],
            "no hints are made for all nodes",
            "no-hinting",
            &["hinting", "start", "--all"],
        ),
        (
            &["hinting", "stop", "2"],
            "no hints are made for node 2",
            "no-hinting,held-direct",
            &["hinting", "start", "2"],
        ),
        (
            &["direct", "hold", "2"],
            "direct writes are held to node 2",
            "held-direct",
            &["direct", "release", "2"],
        ),
    ] {
        host.ok(&["check"]);
        host.ok(left);
        warns(&host, said, &["--allow", allowed]);
        host.ok(taken_back);
    }
    host.ok(&["check"]);
}

#[test]
fn a_check_warns_of_hints_that_were_refused() {
    let host = Host::start();
    host.ok(&["set", "max_hints=1"]);
    host.hint(AWAY, &["one"]);
    host.ok(&["check"]);
    refused(&host);
    let said = "1 hints refused by a limit and 0 for lack of disk space since open, over 0";
    warns(&host, said, &["--max-refused", "1"]);
}

#[test]
fn a_check_warns_of_hints_that_were_lost_unless_somebody_let_them_go() {
    let host = Host::start();
    host.ok(&["pause", "--all"]);
    host.hint(AWAY, &["one"]);
    host.ok(&["discard", "2", "--shard", "7", "--yes"]);
    host.ok(&["resume", "--all"]);
    host.ok(&["check"]);
    host.hint(AWAY, &["one", "two"]);
    let set = host.runtime.block_on(host.handoff.reconfigure(|config| {
        config.max_age = Duration::from_secs(1);
    }));
    set.unwrap();
    host.until(|stats| stats.store.pending.hints == 0);
    let said = "lost since open: 2 expired, over 0";
    warns(&host, said, &["--max-lost", "2"]);
    let figures = &host.json(&["check", "--max-lost", "2"])["figures"];
    assert_eq!(
        (&figures["lost_hints"], &figures["refused_hints"]),
        (&2.into(), &0.into())
    );
}

#[test]
fn status_and_nodes_tell_what_somebody_did_by_hand() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    host.hint(NodeId(5), &["two"]);
    host.ok(&["hinting", "stop", "2", "5"]);
    host.ok(&["direct", "hold", "5"]);
    let status = host.ok(&["status"]);
    let made = row(&status, "hints_are_made")[1];
    assert_eq!(made, "yes, but not for nodes 2, 5");
    assert_eq!(row(&status, "direct_held")[1], "node 5");
    let nodes = host.ok(&["nodes"]);
    assert_eq!(row(&nodes, "2")[9], "no_hints");
    assert_eq!(row(&nodes, "5")[9], "no_hints,held");
    let removing = host.handoff.drain_and_remove(AWAY, Duration::ZERO);
    host.runtime.block_on(removing).unwrap_err();
    assert_eq!(row(&host.ok(&["nodes"]), "2")[9], "no_hints,leaving");
    // Off a terminal a time is a number.
    let oldest = row(&status, "oldest")[1];
    assert!(oldest.parse::<u64>().is_ok(), "{oldest}");
}

#[test]
fn the_first_line_of_a_status_does_not_say_that_replay_runs_while_it_is_paused() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let first = || host.ok(&["status"]).lines().next().unwrap().to_owned();
    assert_eq!(first(), "It serves, and replay runs.");
    for (pause, resume) in [
        (["pause", "--all"], ["resume", "--all"]),
        (["pause", "2"], ["resume", "2"]),
    ] {
        host.ok(&pause);
        assert_eq!(first(), "It serves, and replay is paused for all nodes.");
        host.ok(&resume);
    }
}
