//! Directories that cannot hold a store, stores that cannot be opened, locks held by others: each a
//! clear error, and nothing is lost or deleted.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::{Command, Stdio},
};

use crate::common::*;
use hinted_handoff::{
    Config, DirectoryProblem, LockKind, OnUnopenable, OpenError, UnopenableReason, internals::Store,
};

const NODE: u64 = 2;

fn try_open(config: &Config) -> Result<Store, OpenError> {
    Store::open(config, Box::new(|_| {}))
}

fn problem(dir: &Path) -> DirectoryProblem {
    match try_open(&config(dir)).err().unwrap() {
        OpenError::Directory { path, problem, .. } => {
            assert_eq!(path, dir);
            problem
        }
        other => panic!("{other:?}"),
    }
}

fn unopenable(config: &Config) -> UnopenableReason {
    match try_open(config).err().unwrap() {
        OpenError::Unopenable { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// A store with one hint, closed.
fn filled(dir: &Path) {
    let store = open(dir);
    append(&store, NODE, "kept");
    store.close().unwrap();
}

#[test]
fn a_missing_directory_is_made_private_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/hints");
    open(&deep).close().unwrap();
    for made in [deep.clone(), deep.join("gen-000001")] {
        let mode = fs::metadata(&made).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", made.display());
    }
    assert_eq!(
        fs::read_to_string(deep.join("CURRENT")).unwrap(),
        "gen-000001\n"
    );
}

#[test]
fn a_file_a_symlink_a_strangers_and_a_writable_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(problem(&file), DirectoryProblem::NotADirectory);

    let real = dir.path().join("real");
    filled(&real);
    let link = dir.path().join("link");
    symlink(&real, &link).unwrap();
    assert_eq!(problem(&link), DirectoryProblem::Symlink);

    fs::set_permissions(&real, fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(
        problem(&real),
        DirectoryProblem::WritableByOthers { mode: 0o770 }
    );
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();

    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("photo.jpg"), "x").unwrap();
    assert_eq!(
        problem(&foreign),
        DirectoryProblem::Foreign {
            entry: "photo.jpg".into(),
        }
    );
    // Other databases have files of the same names.
    let strangers: [&[&str]; 4] = [
        &["000003.log", "CURRENT", "LOCK"],
        &["LOCK", "precious"],
        &["gen-eral.txt"],
        &["gen-1"],
    ];
    for names in strangers {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "theirs").unwrap();
        }
        assert!(matches!(
            problem(dir.path()),
            DirectoryProblem::Foreign { .. }
        ));
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), names.len(), "{left:?}");
        while let Some(Ok(entry)) = left.pop() {
            assert_eq!(fs::read(entry.path()).unwrap(), b"theirs");
        }
    }
    // Beside a store a note does no harm.
    fs::write(real.join("notes.txt"), "x").unwrap();
    assert_eq!(payloads(&open(&real), NODE), ["kept"]);
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    if let Err(error) = chown(&theirs, Some(12_345), None) {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root: {error}");
        println!("SKIPPED: only root can give a directory away ({error})");
        return;
    }
    let found = problem(&theirs);
    assert!(
        matches!(found, DirectoryProblem::WrongOwner { owner: 12_345, .. }),
        "{found:?}"
    );
}

#[test]
fn a_store_locked_by_another_process_names_the_lock_and_the_process() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let lock = dir.path().join("LOCK");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&lock)
        .unwrap();
    file.try_lock().unwrap();
    // A lock by flock belongs to the open file, which the child inherits.
    let mut child = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::from(file))
        .spawn()
        .unwrap();
    fs::write(&lock, format!("{}\n", child.id())).unwrap();
    let error = try_open(&config(dir.path())).err().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    match &error {
        OpenError::Locked {
            kind: LockKind::Store { holder },
            ..
        } => assert_eq!(*holder, Some(child.id())),
        other => panic!("{other:?}"),
    }
    let text = error.to_string();
    assert!(
        text.contains("flock") && text.contains(&child.id().to_string()),
        "{text}"
    );
    assert_eq!(payloads(&open(dir.path()), NODE), ["kept"]);
}

#[test]
fn a_database_opened_behind_our_back_is_told_as_sleds_lock() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    behind_its_back(dir.path(), |_db| {
        let error = try_open(&config(dir.path())).err().unwrap();
        assert!(
            matches!(
                error,
                OpenError::Locked {
                    kind: LockKind::Sled,
                    ..
                }
            ),
            "{error:?}"
        );
    });
    assert_eq!(payloads(&open(dir.path()), NODE), ["kept"]);
}

/// sled takes a file of garbage for an empty database; the store must not.
#[test]
fn a_store_that_came_back_as_garbage_or_empty_is_an_error_not_a_fresh_start() {
    for (name, content) in [("garbage", noise(100_000, 3)), ("empty", Vec::new())] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let generation = generation(dir.path());
        for entry in fs::read_dir(&generation).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            if file.starts_with("snap.") {
                fs::remove_file(&path).unwrap();
            }
        }
        fs::write(generation.join("db"), &content).unwrap();
        unopenable(&config(dir.path()));
        assert!(generation.join("db").exists(), "{name}: nothing is deleted");

        // The caller may choose to start empty; the old store is moved aside whole.
        let start_empty = Config {
            on_unopenable: OnUnopenable::StartEmpty,
            ..config(dir.path())
        };
        let store = try_open(&start_empty).unwrap();
        let aside = store.stats().moved_aside.unwrap();
        assert!(
            aside.join("db").exists() && aside.join("CLEAN").exists(),
            "{name}"
        );
        assert!(!generation.exists());
        append(&store, NODE, "anew");
        store.close().unwrap();
        let store = open(dir.path());
        assert_eq!(payloads(&store, NODE), ["anew"]);
        assert_eq!(store.stats().moved_aside, None);
    }
}

#[test]
fn five_deaths_while_opening_stop_the_sixth_attempt() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let opening = dir.path().join("OPENING");
    fs::write(&opening, "4\n").unwrap();
    open(dir.path()).close().unwrap();
    assert!(!opening.exists(), "an attempt that lived is forgotten");

    fs::write(&opening, "5\n").unwrap();
    for _ in 0..2 {
        let reason = unopenable(&config(dir.path()));
        assert!(
            matches!(reason, UnopenableReason::DiedWhileOpening { attempts: 5 }),
            "{reason:?}"
        );
        assert!(
            reason.to_string().contains("delete the OPENING file"),
            "{reason}"
        );
    }
    fs::remove_file(&opening).unwrap();
    assert_eq!(payloads(&open(dir.path()), NODE), ["kept"]);
}

#[test]
fn a_first_open_that_died_anywhere_is_no_obstacle() {
    // Before anything, with a half-made database, with one that does not open, and without its
    // lock.
    type Leave = fn(&Path);
    let stages: [Leave; 6] = [
        |_| {},
        |generation| fs::create_dir(generation).unwrap(),
        |generation| {
            fs::create_dir_all(generation.join("blobs")).unwrap();
            fs::write(generation.join("db"), "").unwrap();
        },
        |generation| {
            fs::create_dir(generation).unwrap();
            fs::write(generation.join("conf"), noise(40, 9)).unwrap();
        },
        |generation| {
            let conf = "segment_size: 8388608\nuse_compression: false\nversion: 0.34\n";
            fs::create_dir_all(generation.join("blobs")).unwrap();
            fs::write(generation.join("conf"), conf).unwrap();
        },
        |generation| fs::remove_file(generation.parent().unwrap().join("LOCK")).unwrap(),
    ];
    for stage in stages {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LOCK"), "").unwrap();
        fs::write(dir.path().join("OPENING"), "1\n").unwrap();
        stage(&generation(dir.path()));
        let store = open(dir.path());
        append(&store, NODE, "works");
        store.close().unwrap();
        assert_eq!(payloads(&open(dir.path()), NODE), ["works"]);
    }
}

#[test]
fn a_directory_that_holds_any_file_of_ours_is_no_strangers() {
    for name in [
        "LOCK",
        "OPENING",
        "OPENING.new",
        "CURRENT.new",
        "COMPACTION",
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), "1\n").unwrap();
        let store = open(dir.path());
        append(&store, NODE, "works");
        store.close().unwrap();
        assert_eq!(payloads(&open(dir.path()), NODE), ["works"], "{name}");
    }
}

#[test]
fn a_torn_snapshot_is_removed_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let torn = generation(dir.path()).join("snap.0000000000000042.generating");
    fs::write(&torn, noise(100, 1)).unwrap();
    assert_eq!(payloads(&open(dir.path()), NODE), ["kept"]);
    assert!(!torn.exists());
}

#[test]
fn a_current_file_that_names_nothing_is_an_error_not_a_fresh_start() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let current = dir.path().join("CURRENT");
    fs::write(&current, "gen-000009\n").unwrap();
    assert!(matches!(
        problem(dir.path()),
        DirectoryProblem::BadCurrent { .. }
    ));

    // Without CURRENT the only generation is taken, two are a question.
    fs::remove_file(&current).unwrap();
    assert_eq!(payloads(&open(dir.path()), NODE), ["kept"]);
    fs::remove_file(&current).unwrap();
    fs::create_dir(dir.path().join("gen-000002")).unwrap();
    assert!(matches!(
        problem(dir.path()),
        DirectoryProblem::NoCurrent { .. }
    ));
}

#[test]
fn a_disk_below_its_reserve_refuses_hints_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let everything = Config {
        min_free_disk: u64::MAX,
        ..config(dir.path())
    };
    let store = try_open(&everything).unwrap();
    let refused = try_append(&store, NODE, vec![hint(1, "no room")])
        .remove(0)
        .unwrap_err();
    assert!(matches!(
        refused,
        hinted_handoff::EnqueueError::DiskReserve {
            reserve_bytes: u64::MAX,
            ..
        }
    ));
    assert_eq!(store.stats().refused_for_space, 1);
    // A buffered answer is a promise, so it is refused at the door and never afterwards.
    let refused = store.append_buffered(
        hinted_handoff::NodeId(NODE),
        hint(1, "no room"),
        Box::new(|_| {}),
    );
    assert!(refused.is_err());
    assert_eq!(store.stats().refused_for_space, 2);
}
