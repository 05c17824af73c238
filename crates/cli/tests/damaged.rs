//! What is said of stores in which something is damaged, and the exit status of it.

mod stores;

use std::{fs, path::Path};

use serde_json::Value;
use stores::*;

#[test]
fn verify_says_what_is_damaged_and_where_and_an_export_goes_on_behind_it() {
    let (_dir, store) = place();
    closed(&store);
    assert!(ok(&["verify", path(&store)]).starts_with("sound\t"));
    destroy(&store, &marked(3));
    let verified = run(&["--json", "verify", path(&store)]);
    assert_eq!(code(&verified), 1);
    let said: Value = serde_json::from_str(&out(&verified)).unwrap();
    assert_eq!(said["is_sound"], false);
    let findings = said["findings"].as_array().unwrap();
    // The leaf that it stood in had what is node 2's as well.
    let lost = findings
        .iter()
        .filter(|it| it["severity"] == "lost" && it["node"] == 1);
    let lost: Vec<_> = lost.collect();
    assert_eq!(lost.len(), 1, "{findings:?}");
    assert_eq!(lost[0]["queue"], 1);
    assert_eq!(
        (&lost[0]["first"], &lost[0]["last"]),
        (&4.into(), &4.into())
    );
    let exported = run(&["export", path(&store), "--node", "1"]);
    assert_eq!(code(&exported), 1);
    assert!(
        err(&exported).contains("sequences 4 to 4"),
        "{}",
        err(&exported)
    );
    let there = lines(&out(&exported));
    let sequences: Vec<_> = there
        .iter()
        .map(|it| it["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, [1, 2, 3, 5, 6]);
}

/// Nobody can tell it from what a crash leaves; see `Severity::Unknown`.
#[test]
fn damage_at_the_end_of_a_store_that_was_not_closed_is_told_and_not_blamed() {
    let (_dir, store) = place();
    killed(&store);
    destroy(&store, &marked(7));
    let verified = json(&["verify", path(&store)]);
    assert_eq!(verified["is_sound"], true);
    assert_eq!(verified["is_clean"], false);
    assert_eq!(verified["findings"][0]["severity"], "unknown");
    // As an open would.
    let info = run(&["--json", "info", path(&store)]);
    assert_eq!(code(&info), 0);
    assert!(err(&info).contains("was not closed"), "{}", err(&info));
    let info: Value = serde_json::from_str(&out(&info)).unwrap();
    assert_eq!(info["nodes"][1]["pending"]["hints"], 1);
}

/// Puts something else under the first such key, with sled's checksums as they must be.
fn put(store: &Path, of: impl Fn(&[u8], &[u8]) -> bool, change: impl Fn(&mut Vec<u8>)) {
    put_in("hh/hints", store, of, change);
}

fn put_in(
    tree: &str,
    store: &Path,
    of: impl Fn(&[u8], &[u8]) -> bool,
    change: impl Fn(&mut Vec<u8>),
) {
    let config = hinted_handoff::database_config(store.join("gen-000001"));
    let database = config.open().unwrap();
    let hints = database.open_tree(tree).unwrap();
    let entries: Vec<_> = hints.iter().map(Result::unwrap).collect();
    let mut wanted = entries.into_iter().filter(|(key, value)| of(key, value));
    let (key, value) = wanted.next().unwrap();
    let mut value = value.to_vec();
    change(&mut value);
    hints.insert(key, value).unwrap();
    database.flush().unwrap();
}

#[test]
fn a_dead_letter_that_does_not_say_how_it_became_one_does_not_stop_an_import() {
    let (_dir, store) = place();
    closed(&store);
    let error = b"no such column";
    let has = |value: &[u8]| value.windows(error.len()).any(|it| it == error);
    put(
        &store,
        |_, value| has(value),
        |value| {
            let last = value.last_mut().unwrap();
            *last ^= 1;
        },
    );
    let exported = run(&["export", path(&store)]);
    assert_eq!(code(&exported), 1);
    let told = err(&exported);
    assert!(told.contains("the record of a dead letter"), "{told}");
    assert_eq!(lines(&out(&exported)).len(), 8);
    let file = store.with_extension("jsonl");
    fs::write(&file, out(&exported)).unwrap();
    let into = store.with_extension("into");
    assert_eq!(
        json(&["import", path(&into), path(&file)])["imported_hints"],
        8
    );

    let listed = run(&["--json", "letters", "list", path(&store)]);
    assert_eq!(code(&listed), 1);
    let listed: Value = serde_json::from_str(&out(&listed)).unwrap();
    let shown = run(&[
        "letters",
        "show",
        path(&store),
        listed[0]["id"].as_str().unwrap(),
    ]);
    assert_eq!(code(&shown), 1);
    let shown: Value = serde_json::from_str(&out(&shown)).unwrap();
    assert_eq!(
        (&shown["reads"], &shown["reason"]),
        (&true.into(), &Value::Null)
    );
}

#[test]
fn a_dead_letter_whose_payload_is_gone_is_shown_as_one_that_does_not_read() {
    let (_dir, store) = place();
    closed(&store);
    let id = json(&["letters", "list", path(&store)])[0]["id"].clone();
    destroy(&store, &marked(8));
    let shown = run(&["letters", "show", path(&store), id.as_str().unwrap()]);
    assert_eq!(code(&shown), 1, "{}", err(&shown));
    let shown: Value = serde_json::from_str(&out(&shown)).unwrap();
    assert_eq!(
        (&shown["reads"], &shown["payload_bytes"]),
        (&false.into(), &Value::Null)
    );
}

#[test]
fn what_is_damaged_and_cost_nothing_is_told_by_the_exit_status_too() {
    let (_dir, store) = place();
    closed(&store);
    fs::write(store.join("gen-000001/CLEAN"), "no summary").unwrap();
    let verbs = ["info", "export", "verify", "losses"].map(|it| vec![it]);
    for verb in verbs.into_iter().chain([vec!["letters", "list"]]) {
        let output = run(&[verb.as_slice(), &[path(&store)]].concat());
        assert_eq!(code(&output), 1, "{verb:?}: {}", err(&output));
        let told = err(&output) + &out(&output);
        assert!(told.contains("CLEAN"), "{verb:?}: {told}");
    }
}

#[test]
fn an_export_tells_of_wal_records_that_do_not_read() {
    let (_dir, store) = place();
    // Hints of many nodes at once are in no block of their queue.
    let living = tempfile::tempdir().unwrap();
    let open = open(&living.path().join("store"));
    let (tell, told) = std::sync::mpsc::channel();
    for node in 0..200 {
        let tell = tell.clone();
        let done = move |it: Result<_, _>| drop(tell.send(it.map(drop)));
        open.append(
            hinted_handoff::NodeId(node),
            hint(1, marked(node)),
            Box::new(done),
        );
    }
    for _ in 0..200 {
        told.recv().unwrap().unwrap();
    }
    copy(&living.path().join("store"), &store);
    open.close().unwrap();
    // Where these are, no node is.
    let of_wal = [[0xff; 8], [0; 8]].concat();
    let is_chunk = |key: &[u8]| {
        key.strip_prefix(of_wal.as_slice())
            .is_some_and(|it| it[0] == 1)
    };
    put(
        &store,
        |key, value| is_chunk(key) && !value.is_empty(),
        |value| *value.last_mut().unwrap() ^= 1,
    );
    for verb in ["export", "info"] {
        let output = run(&[verb, path(&store)]);
        let told = err(&output);
        assert_eq!(code(&output), 1, "{verb}: {told}");
        assert!(told.contains("WAL record"), "{verb}: {told}");
    }
}

#[test]
fn an_entry_of_the_loss_journal_that_does_not_read_is_told_by_the_exit_status() {
    let (_dir, dir) = place();
    let store = open(&dir);
    fill(&store);
    let (tell, told) = std::sync::mpsc::channel();
    store.remove_node(hinted_handoff::NodeId(1), move |it| drop(tell.send(it)));
    told.recv().unwrap().unwrap();
    store.close().unwrap();
    let entry = |key: &[u8], _: &[u8]| key.len() == 9;
    put_in("hh/losses", &dir, entry, |value| {
        *value.last_mut().unwrap() ^= 1
    });
    let losses = run(&["--json", "losses", path(&dir)]);
    assert_eq!(code(&losses), 1, "{}", err(&losses));
    let losses: Value = serde_json::from_str(&out(&losses)).unwrap();
    assert_eq!(losses["unreadable"].as_array().unwrap().len(), 1);
    let plain = run(&["losses", path(&dir)]);
    assert_eq!(code(&plain), 1);
    assert!(err(&plain).contains("does not read"), "{}", err(&plain));
}
