//! What a verb asks before it does something, and what it takes for a typo.

mod hosts;
mod stores;

use std::time::Duration;

use hinted_handoff::NodeId;
use hosts::{AWAY, Host};
use serde_json::Value;
use stores::{code, err, out};

#[test]
fn a_rename_to_a_node_that_has_a_queue_and_a_retain_that_may_be_a_typo_want_a_yes() {
    let host = Host::start();
    host.hint(AWAY, &["one", "two"]);
    host.hint(NodeId(5), &["three"]);
    let error = host.fails(2, &["rename", "2", "5"]);
    assert!(
        error.contains("node 2: 2 hints wait (6 B), the oldest for"),
        "{error}"
    );
    assert!(error.contains("node 5: 1 hints wait (5 B)"), "{error}");
    assert!(error.contains("--yes"), "{error}");
    let error = host.fails(2, &["retain", "2", "5", "77"]);
    assert!(error.contains("node 77 is not known"), "{error}");
    let error = host.fails(2, &["retain", "2"]);
    assert!(
        error.contains("to be parked: node 5: 1 hints wait"),
        "{error}"
    );
    assert_eq!((host.pending(AWAY), host.pending(NodeId(5))), (2, 1));
    assert_ne!(host.json(&["nodes", "5"])["state"], "parked");

    host.ok(&["retain", "2", "5"]);
    host.ok(&["retain", "2", "77", "--yes"]);
    assert_eq!(host.json(&["nodes", "5"])["state"], "parked");
    // It was parked already.
    host.ok(&["retain", "2"]);
    host.ok(&["rename", "2", "5", "--yes"]);
    assert_eq!((host.pending(AWAY), host.pending(NodeId(5))), (0, 3));
}

#[test]
fn settings_that_take_hints_or_refuse_them_show_which_and_want_a_yes() {
    let host = Host::start();
    host.ok(&["pause", "--all"]);
    host.hint(AWAY, &["one", "two", "three"]);
    let old = Some(Duration::from_millis(1_100));
    host.until(|stats| stats.nodes.iter().all(|it| it.oldest_age >= old));
    for (setting, said) in [
        ("max_age=1s", "those older than 1s leave undelivered"),
        (
            "max_hints=2",
            "3 hints wait, 1 over max_hints = 2; the next finds no room",
        ),
        (
            "max_bytes_per_node=1",
            "node 2: 11 bytes wait, 10 over max_bytes_per_node = 1;",
        ),
    ] {
        let error = host.fails(2, &["set", setting]);
        assert!(error.contains("--yes"), "{error}");
        assert!(error.contains(said), "{error}");
    }
    let config = host.json(&["set", "max_age=3h"]);
    assert_eq!(config["max_hints"], Value::Null, "nothing was changed");
    assert_eq!(host.pending(AWAY), 3);
    host.ok(&["set", "max_hints=4"]);
    host.ok(&["set", "max_hints=2", "--yes"]);
    // What is higher than before takes nothing, though hints are over it.
    host.ok(&["set", "max_hints=3"]);
    host.ok(&["set", "max_age=1s", "--yes"]);
    host.until(|stats| stats.nodes.iter().all(|it| it.pending.hints == 0));
}

#[test]
fn a_removal_that_waits_goes_on_until_it_is_called_off() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let error = host.fails(3, &["remove", "2", "--yes", "--timeout", "50ms"]);
    assert!(error.contains("node 2: 1 hints wait (3 B)"), "{error}");
    assert!(error.contains("hh remove 2 --cancel"), "{error}");
    assert!(!error.contains("_node"), "no call of Rust: {error}");
    assert_eq!(host.json(&["nodes", "2"])["leaving"], true);
    host.ok(&["remove", "2", "--cancel"]);
    assert_eq!(host.json(&["nodes", "2"])["leaving"], false);
    host.fails(2, &["remove", "2", "--cancel", "--discard-pending"]);
    assert_eq!(host.pending(AWAY), 1);
}

#[test]
fn a_node_that_is_not_known_is_taken_for_a_typo() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    for arguments in [
        &["direct", "hold", "98"][..],
        &["direct", "release", "98"],
        &["hinting", "stop", "98"],
        &["hinting", "stop", "2", "98"],
        &["drain", "98"],
    ] {
        let error = host.fails(3, arguments);
        assert!(
            error.contains("98") && error.contains("--unknown"),
            "{error}"
        );
    }
    let nodes = host.handoff.stats().nodes;
    assert_eq!(nodes.len(), 1, "none is listed for it: {nodes:?}");
    assert!(nodes[0].hinting);
    for arguments in [
        &["direct", "hold", "98", "--unknown"][..],
        &["hinting", "stop", "2", "98", "--unknown"],
        &["drain", "97", "--unknown"],
    ] {
        host.ok(arguments);
    }
    let stats = host.handoff.stats();
    assert!(
        stats.nodes.iter().all(|it| !it.hinting),
        "{:?}",
        stats.nodes
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
    let error = host.fails(2, &["discard", "2", "--shard", "7", "--older-than", "1h"]);
    assert!(error.contains("2 hints wait (6 B)"), "{error}");
    let said = "all that waits; of it only what is older than 1h and is of shard 7 is discarded";
    assert!(error.contains(said), "{error}");

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
