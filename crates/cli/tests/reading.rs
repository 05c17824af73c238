//! What each verb says of stores that were closed, killed or damaged.

mod stores;

use std::{fs, path::Path};

use serde_json::Value;
use stores::*;

#[test]
fn info_tells_what_waits_in_a_closed_store_and_in_a_killed_one() {
    for (make, is_clean) in [(closed as fn(&Path), true), (killed, false)] {
        let (_dir, store) = place();
        make(&store);
        let info = json(&["info", path(&store)]);
        assert_eq!(info["is_clean"], is_clean);
        assert_eq!(info["generation"], "gen-000001");
        assert_eq!(info["schema"], 1);
        assert_eq!(info["pending"]["hints"], 8);
        assert_eq!(info["dead_letters"]["hints"], 1);
        let nodes = info["nodes"].as_array().unwrap();
        let about = |node: &Value| (node["node"].clone(), node["pending"]["hints"].clone());
        let nodes: Vec<_> = nodes.iter().map(about).collect();
        assert_eq!(nodes, [(1.into(), 6.into()), (2.into(), 2.into())]);
        let plain = ok(&["info", path(&store)]);
        let row = plain
            .lines()
            .find(|line| line.starts_with("node\t1\t"))
            .unwrap();
        let cells: Vec<&str> = row.split('\t').collect();
        assert_eq!(cells[..3], ["node", "1", "6"]);
        assert_eq!(cells[4], "1700000000001");
        assert!(!plain.contains('\u{1b}'));
    }
}

#[test]
fn an_export_has_every_hint_in_order_with_all_that_is_known_of_it() {
    for make in [closed as fn(&Path), killed] {
        let (_dir, store) = place();
        make(&store);
        let records = lines(&ok(&["export", path(&store)]));
        let of = |kind: &str, node: u64| {
            let wanted = records
                .iter()
                .filter(|it| it["kind"] == kind && it["node"] == node);
            wanted.collect::<Vec<_>>()
        };
        assert_eq!(records.len(), 9);
        let one = of("hint", 1);
        let sequences: Vec<u64> = one
            .iter()
            .map(|it| it["sequence"].as_u64().unwrap())
            .collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
        let shards: Vec<u64> = one.iter().map(|it| it["shard"].as_u64().unwrap()).collect();
        assert_eq!(shards, [1, 2, 1, 2, 1, 2]);
        assert_eq!(one[1]["lifetime_ms"], 1_u64 << 50);
        assert_eq!(one[1]["write"], "000000000000004d/2");
        assert_eq!(one[1]["format"], 3);
        assert_eq!(one[1]["enqueued_unix_ms"], 1_700_000_000_002_u64);
        let dead = of("dead_letter", 2);
        assert_eq!(dead[0]["dead"]["reason"], "rejected");
        assert_eq!(dead[0]["dead"]["attempts"], 5);
        assert_eq!(of("hint", 2)[0]["payload_bytes"], 100_000);
    }
}

#[test]
fn an_export_takes_only_what_is_asked_for() {
    let (_dir, store) = place();
    closed(&store);
    let count = |more: &[&str]| {
        let arguments = [&["export", path(&store)], more].concat();
        lines(&ok(&arguments)).len()
    };
    assert_eq!(count(&["--node", "1"]), 6);
    assert_eq!(count(&["--node", "1", "--shard", "2"]), 3);
    assert_eq!(count(&["--node", "1", "--from", "2", "--to", "4"]), 3);
    assert_eq!(count(&["--only", "letters"]), 1);
    assert_eq!(count(&["--only", "hints", "--node", "2"]), 2);
    assert_eq!(count(&["--node", "99"]), 0);
    let raw = store.with_extension("raw");
    ok(&["export", path(&store), "--raw", path(&raw)]);
    let third = raw.join("hints/1/1/00000000000000000001-00000000000000000003");
    let dir = fs::read_dir(raw.join("hints/1/1")).unwrap();
    let names: Vec<_> = dir.map(|it| it.unwrap().path()).collect();
    let third = names
        .iter()
        .find(|it| it.ends_with(third.file_name().unwrap()));
    assert_eq!(
        fs::read(third.unwrap_or_else(|| panic!("{names:?}"))).unwrap(),
        marked(2)
    );
    assert!(raw.join("letters/2/1").is_dir());
    let again = run(&["export", path(&store), "--raw", path(&raw)]);
    assert_eq!(code(&again), 3, "a directory that exists");
}

#[test]
fn what_is_exported_and_imported_keeps_order_age_and_all_but_the_id() {
    let (_dir, store) = place();
    closed(&store);
    let exported = ok(&["export", path(&store)]);
    let file = store.with_extension("jsonl");
    fs::write(&file, &exported).unwrap();
    let into = store.with_extension("into");
    // Into one that is made, and then once more into one that has hints.
    for times in 1..=2 {
        let imported = json(&["import", path(&into), path(&file)]);
        assert_eq!(imported["imported_hints"], 8);
        assert_eq!(imported["imported_dead_letters"], 1);
        assert_eq!(imported["is_complete"], true);
        let there = lines(&ok(&["export", path(&into)]));
        let bare = |records: Vec<Value>| {
            let bare = records.into_iter().map(|mut record| {
                for name in ["id", "queue", "sequence"] {
                    record.as_object_mut().unwrap().remove(name);
                }
                record
            });
            bare.collect::<Vec<_>>()
        };
        let (there, given) = (bare(there), bare(lines(&exported)));
        assert_eq!(there.len(), given.len() * times);
        for node in [1, 2] {
            for kind in ["hint", "dead_letter"] {
                let of = |records: &[Value]| {
                    let wanted = records.iter().cloned();
                    let wanted = wanted.filter(|it| it["kind"] == kind && it["node"] == node);
                    wanted.collect::<Vec<_>>()
                };
                let expected = vec![of(&given); times].concat();
                assert_eq!(of(&there), expected, "{kind} of {node}");
            }
        }
    }
    assert_eq!(json(&["verify", path(&into)])["is_sound"], true);
}

#[test]
fn an_import_stops_at_what_is_no_hint_and_says_where() {
    let (_dir, store) = place();
    closed(&store);
    let exported = ok(&["export", path(&store), "--node", "1"]);
    let first = exported.lines().next().unwrap();
    let changed = |from: &str, to: &str| first.replace(from, to);
    let letters = ok(&["export", path(&store), "--only", "letters"]);
    for (line, why) in [
        ("nonsense".to_owned(), "expected"),
        (
            changed("\"payload_base64\":\"", "\"payload_base64\":\"!"),
            "payload_base64",
        ),
        (
            changed("\"payload_bytes\":47", "\"payload_bytes\":48"),
            "payload_bytes",
        ),
        (
            changed("\"kind\":\"hint\"", "\"kind\":\"dead_letter\""),
            "`dead` must be given",
        ),
        (
            letters.trim().replace("\"dead_letter\"", "\"hint\""),
            "only for one",
        ),
        (changed("\"node\":1", "\"node\":-1"), "integer `-1`"),
    ] {
        let (_dir, into) = place();
        let file = into.with_extension("jsonl");
        fs::write(&file, format!("{first}\n\n{line}\n{first}\n")).unwrap();
        let checked = run(&["import", path(&into), path(&file), "--dry-run"]);
        assert_eq!(code(&checked), 3);
        assert!(!into.exists());
        let stopped = run(&["--json", "import", path(&into), path(&file)]);
        let said = err(&stopped);
        assert_eq!(code(&stopped), 3);
        let tally: Value = serde_json::from_str(&out(&stopped)).unwrap();
        assert_eq!(tally["imported_hints"], 1);
        assert_eq!(tally["is_complete"], false);
        assert!(said.contains("line 3") && said.contains(why), "{said}");
        assert_eq!(lines(&ok(&["export", path(&into)])).len(), 1);
    }
}

#[test]
fn a_deep_verify_has_the_engine_open_a_copy_and_leaves_nothing_behind() {
    for make in [closed as fn(&Path), killed] {
        let (dir, store) = place();
        make(&store);
        let before = all_of(&store);
        let deep = |code_wanted: i32| {
            let scratch = path(dir.path());
            let arguments = [
                "--json",
                "verify",
                "--deep",
                "--scratch",
                scratch,
                path(&store),
            ];
            let output = run(&arguments);
            assert_eq!(code(&output), code_wanted, "{}", err(&output));
            serde_json::from_str::<Value>(&out(&output)).unwrap()
        };
        let verified = deep(0);
        assert_eq!(verified["findings"].as_array().unwrap().len(), 0);
        assert_eq!(verified["pending"]["hints"], 8);
        assert_eq!(all_of(&store), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    let (dir, store) = place();
    closed(&store);
    destroy(&store, &marked(3));
    let arguments = [
        "verify",
        "--deep",
        "--scratch",
        path(dir.path()),
        path(&store),
    ];
    let output = run(&arguments);
    assert_eq!(code(&output), 1);
    assert!(
        out(&output).contains("the engine, on a copy"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_salvaged_store_has_what_is_intact() {
    let (_dir, store) = place();
    closed(&store);
    destroy(&store, &marked(3));
    let (generation, into) = (store.join("gen-000001"), store.with_extension("into"));
    let before = all_of(&generation);
    let salvaged = run(&["--json", "salvage", path(&generation), path(&into)]);
    assert_eq!(code(&salvaged), 1, "something is missing");
    let told = err(&salvaged);
    assert!(told.contains("node 1 queue 1 sequences 4 to 4"), "{told}");
    let salvaged: Value = serde_json::from_str(&out(&salvaged)).unwrap();
    assert_eq!(all_of(&generation), before);
    assert_eq!(salvaged["dead_letters"], 1);
    // Ids and bytes are those that the old one has, without what is gone.
    let exported = |store: &Path, more: &[&str]| {
        let exported = run(&[&["export", path(store)], more].concat());
        lines(&out(&exported))
    };
    let all = exported(&into, &["--only", "hints"]).len();
    assert_eq!(
        salvaged["pending_hints"], all,
        "no hint is told that is not there"
    );
    assert_eq!(all as u64 + salvaged["lost_hints"].as_u64().unwrap(), 8);
    let of_node = ["--node", "1"];
    let (there, given) = (exported(&into, &of_node), exported(&store, &of_node));
    assert_eq!(there.len(), 5);
    let told = |it: &Value| (it["id"].clone(), it["payload_base64"].clone());
    let told = |of: &[Value]| of.iter().map(told).collect::<Vec<_>>();
    assert_eq!(told(&there), told(&given));
    let occupied = run(&["salvage", path(&generation), path(&into)]);
    assert_eq!(code(&occupied), 3);
    assert_eq!(code(&run(&["salvage", path(&store), path(&into)])), 2);
}

#[test]
fn a_salvage_of_a_store_that_was_not_closed_says_that_its_end_may_be_missing() {
    let (_dir, store) = place();
    killed(&store);
    let (generation, into) = (store.join("gen-000001"), store.with_extension("into"));
    let salvaged = run(&["--json", "salvage", path(&generation), path(&into)]);
    assert_eq!(code(&salvaged), 0, "{}", err(&salvaged));
    assert!(
        err(&salvaged).contains("was not closed"),
        "{}",
        err(&salvaged)
    );
    let salvaged: Value = serde_json::from_str(&out(&salvaged)).unwrap();
    assert_eq!(
        (&salvaged["pending_hints"], &salvaged["lost_hints"]),
        (&8.into(), &0.into())
    );
}

#[test]
fn a_deep_verify_leaves_a_directory_alone_that_it_did_not_make() {
    let (dir, store) = place();
    closed(&store);
    // Which process it is going to be nobody knows: a shell makes the directory of its own number.
    let script = "mkdir \"$1/hh-verify-$$\" && touch \"$1/hh-verify-$$/kept\" && \
                  exec \"$0\" verify --deep --scratch \"$1\" \"$2\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_hh")])
        .args([dir.path(), store.as_path()])
        .output()
        .unwrap();
    assert_eq!(code(&output), 3);
    assert!(
        err(&output).contains("could not create"),
        "{}",
        err(&output)
    );
    let entries = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap());
    let kept = entries.filter(|it| it.path().join("kept").is_file());
    assert_eq!(kept.count(), 1);
}

#[test]
fn an_import_that_is_refused_says_how_much_is_in_the_store() {
    let (_dir, store) = place();
    closed(&store);
    let exported = ok(&["export", path(&store), "--node", "1"]);
    let first = exported.lines().next().unwrap();
    let large = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let bytes = 64 * 1024 * 1024 + 1;
        let mut record: Value = serde_json::from_str(first).unwrap();
        record["payload_bytes"] = bytes.into();
        record["payload_base64"] = STANDARD.encode(vec![7; bytes]).into();
        record
    };
    let (file, into) = (store.with_extension("jsonl"), store.with_extension("into"));
    fs::write(&file, format!("{first}\n{first}\n{large}\n{first}\n")).unwrap();
    let stopped = run(&["import", path(&into), path(&file)]);
    assert_eq!(code(&stopped), 3);
    let told = err(&stopped);
    assert!(
        told.contains("2 hints of the input are in the store"),
        "{told}"
    );
    assert!(told.contains("67108865"), "{told}");
    assert_eq!(lines(&ok(&["export", path(&into)])).len(), 2);
    fs::write(&file, first).unwrap();
    let checked = json(&["import", path(&into), path(&file), "--dry-run"]);
    assert_eq!(
        (&checked["dry_run"], &checked["imported_hints"]),
        (&true.into(), &1.into())
    );
}

#[test]
fn dead_letters_are_listed_and_one_is_shown() {
    let (_dir, store) = place();
    closed(&store);
    let listed = json(&["letters", "list", path(&store)]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["attempts"], 5);
    let id = listed[0]["id"].as_str().unwrap();
    let shown = json(&["letters", "show", path(&store), id]);
    assert_eq!(shown["payload_bytes"], marked(8).len());
    let plain = ok(&["letters", "list", path(&store), "--node", "2"]);
    // What an error says does not reach the terminal as a command, nor as a column.
    assert!(
        plain.ends_with("\trejected\t5\tno such column\\u{1b}[2J\\tat all\n"),
        "{plain:?}"
    );
    assert_eq!(ok(&["letters", "list", path(&store), "--node", "1"]), "");
    let other = id.replace('/', "/9");
    assert_eq!(code(&run(&["letters", "show", path(&store), &other])), 3);
}

#[test]
fn losses_are_told_from_an_index_on() {
    let (_dir, dir) = place();
    let store = open(&dir);
    fill(&store);
    let (tell, told) = std::sync::mpsc::channel();
    store.remove_node(hinted_handoff::NodeId(1), move |it| drop(tell.send(it)));
    told.recv().unwrap().unwrap();
    store.close().unwrap();
    let losses = json(&["losses", path(&dir)]);
    assert_eq!(losses["by_reason"]["discarded"]["hints"], 6);
    let next = losses["next"].to_string();
    let later = json(&["losses", path(&dir), "--since", &next]);
    assert_eq!(later["entries"].as_array().unwrap().len(), 0);
    let plain = ok(&["losses", path(&dir)]);
    assert!(plain.contains("\tdiscarded\t"), "{plain}");
    assert_eq!(ok(&["losses", path(&dir), "--node", "2"]), "");
}
