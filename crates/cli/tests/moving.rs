//! Hints that move: from a store that is given up into a host that runs, and from a node to others.

mod hosts;
mod stores;

use std::fs;

use hinted_handoff::{NodeId, Pause};
use hosts::{AWAY, Host, row};
use serde_json::Value;
use stores::{closed, code, err, lines, ok, out, path, place, run};

/// All but what names a hint in its store.
fn bare(text: &str) -> Vec<Value> {
    let records = lines(text).into_iter().map(|mut record| {
        for name in ["id", "queue", "sequence"] {
            record.as_object_mut().unwrap().remove(name);
        }
        record
    });
    records.collect()
}

fn of(records: &[Value], node: u64, kind: &str) -> Vec<Value> {
    let wanted = records.iter().cloned();
    let wanted = wanted.filter(|it| it["kind"] == kind && it["node"] == node);
    wanted.collect()
}

#[test]
fn hints_of_a_store_that_is_given_up_go_into_a_host_that_runs() {
    let (_dir, store) = place();
    closed(&store);
    let exported = ok(&["export", path(&store)]);
    let (file, ids) = (store.with_extension("jsonl"), store.with_extension("ids"));
    fs::write(&file, &exported).unwrap();
    let host = Host::start();
    let pausing = host.handoff.pause_all(Pause::UntilRestart);
    host.runtime.block_on(pausing).unwrap();
    let imported = host.json(&["import", "--online", path(&file), "--ids", path(&ids)]);
    assert_eq!(imported["imported_hints"], 8);
    assert_eq!(imported["imported_dead_letters"], 1);
    assert_eq!(imported["is_complete"], true);

    host.runtime.block_on(host.handoff.shutdown()).unwrap();
    let there = ok(&["export", path(&host.dir.path().join("hints"))]);
    let (found, given) = (bare(&there), bare(&exported));
    assert_eq!(found.len(), given.len());
    for node in [1, 2] {
        for kind in ["hint", "dead_letter"] {
            assert_eq!(
                of(&found, node, kind),
                of(&given, node, kind),
                "{kind} of {node}"
            );
        }
    }
    let id_of = |record: &Value| record["id"].as_str().unwrap().to_owned();
    let payload_of = |text: &str, id: &str| {
        let mut records = lines(text).into_iter();
        records.find(|it| it["id"] == id).unwrap()["payload_base64"].clone()
    };
    let told = fs::read_to_string(&ids).unwrap();
    let pairs: Vec<(&str, &str)> = told.lines().filter_map(|it| it.split_once('\t')).collect();
    let old: Vec<String> = lines(&exported).iter().map(id_of).collect();
    assert_eq!(pairs.iter().map(|it| it.0).collect::<Vec<_>>(), old);
    for (old, new) in pairs {
        assert_eq!(payload_of(&exported, old), payload_of(&there, new));
    }
}

#[test]
fn an_import_into_a_host_stops_at_its_limits_and_says_how_much_is_in() {
    let (_dir, store) = place();
    closed(&store);
    let file = store.with_extension("jsonl");
    fs::write(&file, ok(&["export", path(&store)])).unwrap();
    let host = Host::start();
    let pausing = host.handoff.pause_all(Pause::UntilRestart);
    host.runtime.block_on(pausing).unwrap();
    host.ok(&["set", "max_hints=3"]);
    let stopped = host.run(&["--json", "import", "--online", path(&file)]);
    assert_eq!(code(&stopped), 3, "{}", err(&stopped));
    assert!(err(&stopped).contains("max_hints"), "{}", err(&stopped));
    let tally: Value = serde_json::from_str(&out(&stopped)).unwrap();
    assert_eq!(tally["is_complete"], false);
    let pending = host.handoff.stats().store.pending.hints;
    assert_eq!((&tally["imported_hints"], pending), (&Value::from(3), 3));

    // What stands before a line that is no hint is in.
    host.ok(&["set", "max_hints="]);
    let first = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    fs::write(&file, format!("{first}\nno hint\n{first}\n")).unwrap();
    let stopped = host.run(&["--json", "import", "--online", path(&file)]);
    assert!(err(&stopped).contains("line 2"), "{}", err(&stopped));
    let tally: Value = serde_json::from_str(&out(&stopped)).unwrap();
    assert_eq!(tally["imported_hints"], 1);
    assert_eq!(host.handoff.stats().store.pending.hints, 4);
}

#[test]
fn an_import_wants_a_store_or_a_host_and_not_both() {
    let host = Host::start();
    for (arguments, says) in [
        (&["import"][..], "--online"),
        (&["import", "--online", "a", "b"], "input alone"),
        (&["import", "a", "--ids", "b"], "--online"),
    ] {
        let error = host.fails(2, arguments);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
    let homeless = run(&["import", "--online", "/dev/null"]);
    assert_eq!(code(&homeless), 2, "{}", err(&homeless));
    let told = err(&homeless);
    assert!(told.contains("--socket of the host"), "{told}");
    assert!(!told.contains("directory"), "{told}");
}

#[test]
fn hints_of_a_node_go_to_others_once_it_is_paused() {
    let host = Host::start();
    host.hint(AWAY, &["one", "two", "three"]);
    let moved = host.json(&["rehint", "2", "--to", "5,6"]);
    assert_eq!(moved["rehinted"]["hints"], 3);
    assert_eq!(moved["stays"]["hints"], 0);
    let nodes = host.handoff.stats().nodes;
    assert!(
        nodes
            .iter()
            .any(|it| it.node == AWAY && it.paused.is_some())
    );
    assert_eq!([2, 5, 6].map(|node| host.pending(NodeId(node))), [0, 3, 3]);
    // Of another shard there are none.
    let moved = host.json(&["rehint", "5", "--to", "7", "--shard", "1,2"]);
    assert_eq!(moved["rehinted"]["hints"], 0);
    assert_eq!(moved["stays"]["hints"], 3);
    let plain = host.ok(&["status"]);
    assert_eq!(row(&plain, "lost_since_open")[1], "none");
    assert_eq!(row(&plain, "rehinted_since_open")[1], "3");
    let plain = host.ok(&["rehint", "5", "--to", "7", "--shard", "1,7"]);
    assert_eq!(plain, "rehinted\t3 (11)\nstays\t0 (0)\n");
    let error = host.fails(3, &["rehint", "99", "--to", "5"]);
    assert!(error.contains("404"), "{error}");
    host.fails(2, &["rehint", "2"]);
}

#[test]
fn a_node_that_is_its_own_new_owner_is_not_paused_for_it() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    let error = host.fails(2, &["rehint", "2", "--to", "5,2"]);
    assert!(error.contains("new owners"), "{error}");
    let nodes = host.handoff.stats().nodes;
    assert!(nodes.iter().all(|it| it.paused.is_none()), "{nodes:?}");
}

#[test]
fn a_node_whose_hints_a_host_does_not_give_away_is_said_to_be_paused() {
    let host = Host::start();
    host.hint(AWAY, &["one"]);
    host.handoff.stop_hinting(NodeId(5));
    let error = host.fails(3, &["rehint", "2", "--to", "5"]);
    assert!(error.contains("node 2 is paused; resume it"), "{error}");
    // Of none that the host does not know.
    let error = host.fails(3, &["rehint", "99", "--to", "5"]);
    assert!(!error.contains("is paused"), "{error}");
}
