//! What each verb prints for programs: a document of JSON, by the same names wherever it is from.

mod hosts;
mod stores;

use hosts::{AWAY, Host};
use serde_json::Value;

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
    let error = host.fails(3, &["letters", "show", &other]);
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
        "check --allow paused",
        "pause 2",
        "resume 2",
        "barrier 2",
        "barrier 3 --wait",
        "rename 2 22",
        "retain 22 4",
        "hinting stop 22",
        "hinting start 22",
        "direct hold 3 --unknown",
        "direct release 3",
        "discard 22 --shard 7 --yes",
        "set",
        "set max_age=3h",
        "letters list",
        "letters show ID",
        "letters redrive 4 ID",
        "rehint 4 --to 5",
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
