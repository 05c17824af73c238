//! Each verb on stores that nobody has open: closed, killed, damaged, in use, newer, none at all.

mod stores;

use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Stdio,
};

use serde_json::Value;
use stores::*;

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

/// A directory for a store, and what holds it.
fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    (dir, store)
}

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
            "does not say why",
        ),
        (changed("\"node\":1", "\"node\":-1"), "integer `-1`"),
    ] {
        let (_dir, into) = place();
        let file = into.with_extension("jsonl");
        fs::write(&file, format!("{first}\n\n{line}\n{first}\n")).unwrap();
        let checked = run(&["import", path(&into), path(&file), "--dry-run"]);
        assert_eq!(code(&checked), 3);
        assert!(!into.exists());
        let stopped = run(&["import", path(&into), path(&file)]);
        let said = err(&stopped);
        assert_eq!(code(&stopped), 3);
        assert!(said.contains("line 3") && said.contains(why), "{said}");
        assert_eq!(lines(&ok(&["export", path(&into)])).len(), 1);
    }
}

#[test]
fn verify_says_what_is_damaged_and_where_and_an_export_goes_on_behind_it() {
    let (_dir, store) = place();
    closed(&store);
    assert_eq!(ok(&["verify", path(&store)]), "");
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
    let salvaged = json(&["salvage", path(&generation), path(&into)]);
    assert_eq!(all_of(&generation), before);
    assert_eq!(salvaged["dead_letters"], 1);
    let exported = run(&["export", path(&into), "--node", "1"]);
    assert_eq!(lines(&out(&exported)).len(), 5);
    let occupied = run(&["salvage", path(&generation), path(&into)]);
    assert_eq!(code(&occupied), 3);
    assert_eq!(code(&run(&["salvage", path(&store), path(&into)])), 2);
}

#[test]
fn dead_letters_are_listed_and_one_is_shown() {
    let (_dir, store) = place();
    closed(&store);
    let listed = json(&["letters", "list", path(&store)]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["dead"]["attempts"], 5);
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
    assert_eq!(code(&run(&["letters", "show", path(&store), &other])), 2);
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

const READERS: [&[&str]; 6] = [
    &["info"],
    &["verify"],
    &["export"],
    &["letters", "list"],
    &["losses"],
    &["--json", "info"],
];

#[test]
fn no_reader_changes_a_byte_or_a_time_of_the_directory() {
    for make in [closed as fn(&Path), killed] {
        let (_dir, store) = place();
        make(&store);
        fs::write(store.join("OPENING"), "2\n").unwrap();
        let before = all_of(&store);
        for verb in READERS {
            ok(&[verb, &[path(&store)]].concat());
            assert_eq!(all_of(&store), before, "{verb:?}");
        }
    }
}

#[test]
fn a_store_in_use_is_left_alone_and_its_process_named() {
    let (_dir, dir) = place();
    let store = open(&dir);
    fill(&store);
    let empty = dir.with_extension("jsonl");
    fs::write(&empty, "").unwrap();
    let import: [&str; 3] = ["import", path(&dir), path(&empty)];
    let readers = READERS
        .iter()
        .map(|verb| [verb, &[path(&dir)][..]].concat());
    for arguments in readers.chain([import.to_vec()]) {
        let refused = run(&arguments);
        assert_eq!(code(&refused), 4, "{arguments:?}");
        assert_eq!(out(&refused), "");
        let pid = std::process::id().to_string();
        assert!(err(&refused).contains(&pid), "{}", err(&refused));
    }
    // The database alone, without the lock beside it.
    let generation = dir.join("gen-000001");
    assert_eq!(code(&run(&["info", path(&generation)])), 4);
    store.close().unwrap();
    ok(&["info", path(&dir)]);
}

#[test]
fn a_reader_keeps_the_store_closed_while_it_reads() {
    let (_dir, dir) = place();
    let store = open(&dir);
    for number in 0..200 {
        append(&store, 1, hint(1, noise(60_000, number)));
    }
    store.close().unwrap();
    let mut reader = hh(&["export", path(&dir)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun, and waits for the pipe.
    let mut first = [0; 10];
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let opened = hinted_handoff::internals::Store::open(&config(&dir), Box::new(|_| {}));
    assert!(
        matches!(opened, Err(hinted_handoff::OpenError::Locked { .. })),
        "{opened:?}"
    );
    ok(&["info", path(&dir)]);
    reader.kill().unwrap();
    reader.wait().unwrap();
    open(&dir).close().unwrap();
}

#[test]
fn a_pipe_that_closes_early_is_no_error_to_tell() {
    let (_dir, dir) = place();
    let store = open(&dir);
    for number in 0..40 {
        append(&store, 1, hint(1, noise(60_000, number)));
    }
    store.close().unwrap();
    let mut reader = hh(&["export", path(&dir)]);
    let mut reader = reader
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = reader.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 10]).unwrap();
    drop(pipe);
    let ended = reader.wait_with_output().unwrap();
    assert_eq!((code(&ended), err(&ended).as_str()), (141, ""));
}

#[test]
fn a_store_of_a_newer_schema_is_refused() {
    let (_dir, store) = place();
    closed(&store);
    let config = hinted_handoff::database_config(store.join("gen-000001"));
    let database = config.open().unwrap();
    let (key, version) = (b"schema", 99_u32.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &version).to_be_bytes();
    let meta = database.open_tree("hh/meta").unwrap();
    meta.insert(key, [version, crc].concat()).unwrap();
    database.flush().unwrap();
    drop((meta, database));
    for verb in READERS {
        let refused = run(&[verb, &[path(&store)]].concat());
        assert_eq!(code(&refused), 3, "{verb:?}");
        assert!(err(&refused).contains("schema 99"), "{}", err(&refused));
    }
}

#[test]
fn what_is_no_store_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, file, other) = (
        dir.path().join("empty"),
        dir.path().join("file"),
        dir.path(),
    );
    fs::create_dir(&empty).unwrap();
    fs::write(&file, "no store").unwrap();
    for place in [
        empty.as_path(),
        &file,
        other,
        Path::new("/nonexistent/store"),
    ] {
        for verb in READERS {
            let refused = run(&[verb, &[path(place)]].concat());
            assert_eq!(code(&refused), 3, "{verb:?} {place:?}");
            assert!(err(&refused).starts_with("hh: "), "{}", err(&refused));
        }
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    // One whose `CURRENT` names nothing is damaged, not none.
    let (_dir, store) = place();
    closed(&store);
    fs::write(store.join("CURRENT"), "gen-000009\n").unwrap();
    assert_eq!(code(&run(&["verify", path(&store)])), 1);
    assert_eq!(code(&run(&["info", path(&store)])), 3);
}

#[test]
fn another_user_is_refused() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|it| {
        use std::os::unix::fs::MetadataExt;
        it.uid() == 0
    });
    if !is_root {
        let ci = std::env::var("CI").is_ok_and(|it| it == "true");
        assert!(!ci, "CI must run this as root");
        println!("SKIPPED: only root can be another user");
        return;
    }
    let (dir, store) = place();
    closed(&store);
    // Where anybody may come, but not into the store.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("hh");
    fs::copy(env!("CARGO_BIN_EXE_hh"), &program).unwrap();
    for verb in READERS {
        let mut command = std::process::Command::new(&program);
        command
            .args([verb, &[path(&store)]].concat())
            .uid(65534)
            .gid(65534);
        let refused = command.output().unwrap();
        assert_eq!(code(&refused), 3, "{verb:?}");
        assert!(
            err(&refused).contains("Permission denied"),
            "{}",
            err(&refused)
        );
    }
}

/// `script` gives a program a terminal.
fn on_a_terminal(arguments: &str, columns: u16, no_color: bool) -> Option<String> {
    let program = env!("CARGO_BIN_EXE_hh");
    let line = format!("stty cols {columns}; {program} {arguments}");
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null());
    command.env_remove("NO_COLOR").env("TERM", "xterm");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    match command.output() {
        Ok(output) => Some(out(&output)),
        Err(error) => {
            let ci = std::env::var("CI").is_ok_and(|it| it == "true");
            assert!(!ci, "script: {error}");
            println!("SKIPPED: script, which gives a terminal: {error}");
            None
        }
    }
}

#[test]
fn a_terminal_gets_tables_colours_and_lines_of_its_width() {
    let (_dir, store) = place();
    closed(&store);
    let verify = format!("verify {}", path(&store));
    let Some(verified) = on_a_terminal(&verify, 100, false) else {
        return;
    };
    assert!(
        verified.contains("\u{1b}[1m\u{1b}[32msound"),
        "{verified:?}"
    );
    let plain = on_a_terminal(&verify, 100, true).unwrap();
    let without_bar = plain.rsplit('\r').find(|it| it.contains("sound")).unwrap();
    assert!(!without_bar.contains("\u{1b}[32m"), "{plain:?}");
    let info = on_a_terminal(&format!("info {}", path(&store)), 100, true).unwrap();
    assert!(
        info.contains("last error") && info.contains("2023-11-14T22:13:20Z"),
        "{info}"
    );
    for columns in [20, 40] {
        let narrow = on_a_terminal(&format!("letters list {}", path(&store)), columns, true);
        assert!(narrow.unwrap().contains("err"));
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(&["completions", shell]).contains("salvage"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    ok(&["man", path(dir.path())]);
    let main = fs::read_to_string(dir.path().join("hh.1")).unwrap();
    assert!(main.contains("Exit status"), "{main}");
    assert!(dir.path().join("hh-export.1").exists());
    assert_eq!(code(&run(&["no-such-verb"])), 2);
}

/// `HH_EXPORT_MIB` is the size of the store's payloads, 48 if it is not set.
#[test]
fn an_export_takes_less_than_200_megabytes_of_memory() {
    const BYTES_MAX: u64 = 200_000_000;
    let mebibytes = std::env::var("HH_EXPORT_MIB").map_or(48, |it| it.parse().unwrap());
    let (_dir, dir) = place();
    let mut importer = hinted_handoff::offline::Importer::open(&dir).unwrap();
    let hints = mebibytes * 1024 / 8;
    for number in 0..hints {
        importer
            .push(hinted_handoff::offline::Import {
                node: hinted_handoff::NodeId(number % 3),
                shard: hinted_handoff::ShardId(1),
                format: 0,
                enqueued_unix_ms: number,
                lifetime_ms: None,
                write: None,
                payload: noise(8192, number).into(),
                dead: None,
            })
            .unwrap();
    }
    importer.finish().unwrap();
    let mut export = hh(&["export", path(&dir)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", export.id());
    let (mut most, mut lines) = (0, 0);
    let mut pipe = export.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = pipe.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        // The most that it ever had, in KiB. It is gone once all is read.
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().split(' ').next());
        most = most.max(number.map_or(0, |it| it.parse::<u64>().unwrap() * 1024));
    }
    assert!(export.wait().unwrap().success());
    assert_eq!(lines, hints);
    println!("{hints} hints of {mebibytes} MiB exported with {most} bytes at most");
    assert!(most > 0 && most < BYTES_MAX, "{most} bytes");
}
