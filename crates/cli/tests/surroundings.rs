//! What is no closed store, who else is there, and where the output goes.

mod stores;

use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Stdio,
};

use stores::*;

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
fn a_store_in_use_is_not_salvaged_and_one_moved_aside_beside_it_is() {
    let (_dir, dir) = place();
    closed(&dir);
    let generation = dir.join("gen-000001");
    let aside = dir.join("aside-1763856000000-gen-000001");
    copy(&generation, &aside);
    let (store, into) = (open(&dir), dir.with_extension("into"));
    let salvaged = run(&["salvage", path(&generation), path(&into)]);
    assert_eq!(code(&salvaged), 4, "{}", err(&salvaged));
    let holder = format!("({})", std::process::id());
    assert!(
        err(&salvaged).contains("that process is "),
        "{}",
        err(&salvaged)
    );
    assert!(err(&salvaged).contains(&holder), "{}", err(&salvaged));
    assert!(!into.exists(), "its identity is not cloned");
    ok(&["salvage", path(&aside), path(&into)]);
    store.close().unwrap();
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
