//! A store in the host's database: what it needs of it, what it leaves alone, and what it cannot do
//! there.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::Duration,
};

use crate::common::{
    copy::copy_files,
    hosting,
    hosting::{Handoff, Host, MANUAL, SHARD, config, open_db},
};
use bytes::Bytes;
use hinted_handoff::{
    Config, DatabaseProblem, DirectoryGone, EnqueueError, FailedOutcome, Health, HintedHandoff,
    LockKind, OpenError, database_config,
    internals::CommitFault,
    make_durable, open_database, repair_database, salvage,
    sled::{self, Db},
};
use hinted_handoff_testkit::ScriptedWriter;

async fn refused(db: &Db, config: Config) -> DatabaseProblem {
    let path = config.dir.clone();
    let opened = Handoff::open_in(db, config, ScriptedWriter::down()).await;
    match opened.err() {
        Some(OpenError::Database { problem, .. }) => problem,
        other => panic!("{}: {other:?}", path.display()),
    }
}

fn names(db: &Db) -> BTreeSet<String> {
    let names = db.tree_names().into_iter();
    names
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .collect()
}

fn files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("snap.")).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn it_adds_its_own_trees_and_files_and_touches_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open_db(&path);
    db.insert("default", "1").unwrap();
    db.open_tree("rows").unwrap().insert("row", "2").unwrap();
    drop(db);
    let host = Host::open(&path).await;
    for _ in 0..3 {
        host.hint(MANUAL, "hint").await;
    }
    let mut consumer = host.handoff.consumer(MANUAL).unwrap();
    let hints = consumer.peek(2).await.unwrap();
    consumer.ack(&hints).await.unwrap();
    drop(consumer);
    let trees = [
        "__sled__default",
        "rows",
        "hh/meta",
        "hh/nodes",
        "hh/hints",
        "hh/losses",
    ];
    assert_eq!(names(&host.db), set(trees));
    host.handoff.shutdown().await.unwrap();
    let expected = ["db", "conf", "blobs", "hh-LOCK", "hh-STORE", "hh-CLEAN"];
    assert_eq!(files(&path), set(expected));
    assert_eq!(host.db.get("default").unwrap().unwrap(), "1");
    assert_eq!(host.row("row").as_deref(), Some("2"));
}

#[tokio::test]
async fn it_is_closed_and_opened_again_in_a_database_that_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    let first = host.hint(MANUAL, "first").await;
    host.handoff.shutdown().await.unwrap();
    host.rows.insert("the host", "goes on").unwrap();
    let again = Handoff::open_in(&host.db, config(&path), ScriptedWriter::down());
    let host = Host {
        handoff: again.await.unwrap(),
        ..host
    };
    assert!(
        !path.join("hh-CLEAN").exists(),
        "it would speak of an older state"
    );
    let second = host.hint(MANUAL, "second").await;
    assert_eq!(
        (second.store, second.queue),
        (first.store, first.queue),
        "it was closed cleanly"
    );
    assert_eq!(second.sequence.0, 2);
    assert_eq!(host.waiting().await, ["first", "second"]);
    host.close().await;
    let host = Host::open(&path).await;
    assert_eq!(host.waiting().await, ["first", "second"]);
    assert_eq!(host.row("the host").as_deref(), Some("goes on"));
    host.close().await;
}

/// sled's first write of `conf` is its text, its second the checksum; a SIGKILL may come between
/// them, and before any other.
#[tokio::test]
async fn a_first_open_that_was_interrupted_is_begun_anew() {
    let made = tempfile::tempdir().unwrap();
    drop(open_db(&made.path().join("db")));
    let conf = fs::read(made.path().join("db/conf")).unwrap();
    let cuts = (0..=conf.len()).filter(|cut| *cut < 10 || cut % 7 == 0 || cut + 6 > conf.len());
    for (cut, has_log) in cuts.flat_map(|cut| [(cut, false), (cut, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::create_dir_all(path.join("blobs")).unwrap();
        fs::write(path.join("conf"), &conf[..cut]).unwrap();
        if has_log {
            fs::write(path.join("db"), "").unwrap();
        }
        let db = open_database(&database_config(&path));
        let db = db.unwrap_or_else(|error| panic!("{cut} bytes of conf, {has_log}: {error}"));
        db.insert("row", "kept").unwrap();
        drop(db);
        let host = Host::open(&path).await;
        host.hint(MANUAL, "hint").await;
        host.close().await;
        let host = Host::open(&path).await;
        assert_eq!(host.waiting().await, ["hint"], "{cut}");
        assert_eq!(host.db.get("row").unwrap().unwrap(), "kept", "{cut}");
        host.close().await;
        assert_eq!(fs::read(path.join("conf")).unwrap(), conf, "{cut}");
    }
}

#[tokio::test]
async fn nothing_is_begun_anew_over_what_was_stored() {
    for also_without_log in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let host = Host::open(&path).await;
        host.hint(MANUAL, "hint").await;
        host.close().await;
        let conf = fs::read(path.join("conf")).unwrap();
        fs::write(path.join("conf"), &conf[..conf.len() - 4]).unwrap();
        if also_without_log {
            fs::remove_file(path.join("db")).unwrap();
        }
        let log = fs::read(path.join("db")).ok();
        let error = open_database(&database_config(&path)).err();
        let Some(OpenError::Database { problem, .. }) = error else {
            panic!("{error:?}");
        };
        assert!(
            matches!(problem, DatabaseProblem::Damaged { .. }),
            "{problem}"
        );
        assert!(fs::read(path.join("db")).ok() == log);
        if !also_without_log {
            fs::write(path.join("conf"), conf).unwrap();
            let host = Host::open(&path).await;
            assert_eq!(host.waiting().await, ["hint"]);
            host.close().await;
        }
    }
}

#[tokio::test]
async fn there_is_one_store_in_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    let second = Handoff::open_in(&host.db, config(&path), ScriptedWriter::down()).await;
    match second.err() {
        Some(OpenError::Locked {
            kind: LockKind::Store { holder },
            ..
        }) => assert_eq!(holder, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    host.hint(MANUAL, "the first is not disturbed").await;
    host.close().await;
}

#[tokio::test]
async fn a_database_that_a_store_cannot_live_with_is_refused_and_left_alone() {
    type Settings = fn(sled::Config) -> sled::Config;
    let cases: [(&str, Settings); 3] = [
        ("small", |config| config.segment_size(512 << 10)),
        ("temporary", |config| config.temporary(true)),
        ("never-flushed", |config| config.flush_every_ms(None)),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, settings) in cases {
        let path = dir.path().join(name);
        let settings = settings(database_config(&path));
        let early = open_database(&settings);
        assert!(matches!(early, Err(OpenError::Database { .. })), "{name}");
        assert!(!path.exists(), "nothing is made");
        let db = settings.open().unwrap();
        let problem = refused(&db, config(&path)).await;
        match (name, problem) {
            ("small", DatabaseProblem::SegmentSize { found, wanted }) => {
                assert_eq!((found, wanted), (512 << 10, 8 << 20));
            }
            ("temporary", DatabaseProblem::Temporary) => {}
            ("never-flushed", DatabaseProblem::NeverFlushed) => {}
            (_, other) => panic!("{name}: {other:?}"),
        }
        assert_eq!(names(&db), set(["__sled__default"]), "{name}");
        assert!(files(&path).is_disjoint(&set(["hh-LOCK", "hh-STORE", "hh-CLEAN"])));
    }
    // sled's own default, as most hosts have it.
    let path = dir.path().join("default");
    let db = sled::open(&path).unwrap();
    let problem = refused(&db, config(&path)).await;
    assert!(
        matches!(problem, DatabaseProblem::SegmentSize { .. }),
        "{problem:?}"
    );
    let text = problem.to_string();
    assert!(
        text.contains("524288") && text.contains("database_config()"),
        "{text}"
    );
}

#[tokio::test]
async fn the_configured_directory_must_be_the_databases() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open_db(&path);
    for other in [dir.path().to_owned(), dir.path().join("not there")] {
        let problem = refused(&db, config(&other)).await;
        assert!(matches!(problem, DatabaseProblem::OtherDirectory { dir } if dir == other));
    }
    let indirect = path.join("../db");
    let handoff = Handoff::open_in(&db, config(&indirect), ScriptedWriter::down());
    handoff.await.unwrap().shutdown().await.unwrap();
}

/// One component has no parent to be named: sled keeps the path as it is given.
#[tokio::test]
async fn a_relative_path_will_do() {
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let name = Path::new(dir.path().file_name().unwrap());
    let host = Host::open(name).await;
    host.hint(MANUAL, "hint").await;
    host.close().await;
    assert!(dir.path().join("hh-CLEAN").exists());
}

/// sled's own default, as most hosts have it.
#[tokio::test]
async fn a_database_that_was_made_with_other_settings_is_not_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(sled::open(&path).unwrap());
    let before = fs::read(path.join("db")).unwrap();
    match open_database(&database_config(&path)).err() {
        Some(OpenError::Database {
            problem: DatabaseProblem::Settings { text },
            ..
        }) => assert!(text.contains("524288"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(path.join("db")).unwrap(), before);
}

#[tokio::test]
async fn a_setting_out_of_range_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open_db(&path);
    let config = Config {
        batch_bytes: 0,
        ..config(&path)
    };
    let refused = Handoff::open_in(&db, config, ScriptedWriter::down()).await;
    assert!(matches!(refused.err(), Some(OpenError::Config(_))));
    assert_eq!(names(&db), set(["__sled__default"]));
}

#[tokio::test]
async fn a_torn_snapshot_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    host.hint(MANUAL, "kept").await;
    host.close().await;
    fs::write(path.join("snap.0000000000FFFFFF.generating"), [9; 50]).unwrap();
    let host = Host::open(&path).await;
    assert_eq!(host.waiting().await, ["kept"]);
    host.close().await;
}

#[tokio::test]
async fn a_kill_starts_a_new_queue_and_a_clean_stop_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (path, killed) = (dir.path().join("db"), dir.path().join("killed"));
    let host = Host::open(&path).await;
    let first = host.hint(MANUAL, "first").await;
    copy_files(&path, &killed);
    host.close().await;
    let host = Host::open(&killed).await;
    let after = host.hint(MANUAL, "after").await;
    assert_ne!(after.queue, first.queue);
    assert_eq!(after.sequence.0, 1);
    assert_eq!(host.waiting().await, ["first"], "a peek stays in one queue");
    assert_eq!(host.pending(MANUAL), 2);
    host.close().await;
}

/// docs/sled.md rule 10: sled may lose records, or all of a tree, without a word.
#[tokio::test]
async fn what_the_database_lost_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    host.hint(MANUAL, "lost").await;
    host.close().await;
    let db = open_db(&path);
    let tree = db.open_tree("hh/hints").unwrap();
    let chunk = tree
        .iter()
        .keys()
        .map(Result::unwrap)
        .find(|key| key.len() == 27);
    tree.remove(chunk.unwrap()).unwrap();
    drop((tree, db));
    let host = Host::open(&path).await;
    assert_eq!(host.pending(MANUAL), 1, "hh-CLEAN knows of it");
    assert!(!host.handoff.stats().store.damage.is_empty());
    host.close().await;
    let db = open_db(&path);
    for tree in ["hh/meta", "hh/nodes", "hh/hints"] {
        db.drop_tree(tree).unwrap();
    }
    let problem = refused(&db, config(&path)).await;
    assert!(
        matches!(problem, DatabaseProblem::Damaged { .. }),
        "{problem:?}"
    );
    assert!(problem.to_string().contains("schema"), "{problem}");
}

#[tokio::test]
async fn a_damaged_database_is_left_as_it_was_and_its_hints_can_be_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let (path, into) = (dir.path().join("db"), dir.path().join("salvaged"));
    let host = Host::open(&path).await;
    for _ in 0..5 {
        host.hint(MANUAL, "intact").await;
    }
    host.rows.insert("a row", "of the host").unwrap();
    host.close().await;
    // sled does not open a log whose snapshot is damaged.
    let snapshot = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let snapshot = snapshot.filter(|it| it.to_string_lossy().contains("snap."));
    for snapshot in snapshot {
        let file = fs::File::options().write(true).open(snapshot).unwrap();
        file.write_all_at(&[0x5a; 8], 0).unwrap();
    }
    fs::write(path.join("conf"), [0x5a; 40]).unwrap();
    let before = fs::read(path.join("db")).unwrap();
    match open_database(&database_config(&path)).err() {
        Some(OpenError::Database {
            problem: DatabaseProblem::Damaged { .. },
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(path.join("db")).unwrap(), before);
    salvage(&path, &into).unwrap();
    let salvaged = HintedHandoff::<Bytes>::open(config(&into), ScriptedWriter::down());
    let salvaged = salvaged.await.unwrap();
    let hints = salvaged.consumer(MANUAL).unwrap().peek(10).await.unwrap();
    assert_eq!(hosting::points(&hints), ["intact"; 5]);
    salvaged.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_storage_error_is_the_hosts_to_reopen_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    host.hint(MANUAL, "durable").await;
    host.handoff.inject(CommitFault::Fail);
    let failed = host
        .handoff
        .write_shard(MANUAL, hosting::SHARD, &"lost".into())
        .await;
    assert!(failed.is_err());
    host.handoff.inject(CommitFault::None);
    // An owned store would have opened itself again by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(host.handoff.health(), Health::ReopenRequired(_)));
    assert_eq!(host.handoff.stats().store.reopened, 0);
    assert!(host.handoff.sync().await.is_err());
    assert!(host.handoff.shutdown().await.is_err());
    drop(host);
    let host = Host::open(&path).await;
    assert!(matches!(host.handoff.health(), Health::Serving));
    assert_eq!(host.waiting().await[0], "durable");
    host.close().await;
}

/// What a disk does with a log that is not copied: `failed_fsync`.
#[tokio::test]
async fn a_database_is_taken_after_a_failed_fsync_only_if_its_log_was_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    host.hint(MANUAL, "durable").await;
    host.handoff.inject(CommitFault::FailFsync);
    let points = Bytes::from_static(b"unknown");
    let unknown = host.handoff.write_shard(MANUAL, SHARD, &points).await;
    assert!(matches!(unknown, Err(EnqueueError::Unknown(_))));
    assert!(matches!(host.handoff.health(), Health::ReopenRequired(_)));
    let held = repair_database(&path);
    assert!(matches!(held, Err(OpenError::Locked { .. })), "{held:?}");
    assert!(host.handoff.shutdown().await.is_err());
    drop(host);

    let by_sled = database_config(&path).open().unwrap();
    let problem = refused(&by_sled, config(&path)).await;
    assert!(matches!(problem, DatabaseProblem::Unsynced), "{problem}");
    drop(by_sled);
    let host = Host::open(&path).await;
    assert_eq!(host.waiting().await[0], "durable");
    host.close().await;

    // One that opens its database by itself, or saw a failure by itself, does it by hand.
    let log = || fs::metadata(path.join("db")).unwrap().ino();
    let before = log();
    repair_database(&path).unwrap();
    assert_ne!(log(), before);
    let by_sled = database_config(&path).open().unwrap();
    let handoff = Handoff::open_in(&by_sled, config(&path), ScriptedWriter::down()).await;
    handoff.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restored_database_gets_a_new_identity_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let host = Host::open(&path).await;
    let old = host.hint(MANUAL, "hint").await.store;
    host.close().await;
    let config = Config {
        reset_identity: true,
        ..config(&path)
    };
    let host = Host::open_as(config).await;
    assert_ne!(host.handoff.stats().store.store, old);
    host.close().await;
}

/// The directory is the host's, and so are its rows; but no transaction is answered that the next
/// open will not find.
#[tokio::test]
async fn no_transaction_in_a_database_whose_directory_is_gone_is_answered() {
    for is_exchanged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("db"), dir.path().join("moved"));
        let host = Host::open(&path).await;
        host.count("before").await;
        fs::rename(&path, &moved).unwrap();
        let second = match is_exchanged {
            true => Some(Host::open(&path).await),
            false => None,
        };
        if let Some(second) = &second {
            second.count("of the second").await;
        }
        let committed = host.handoff.transaction(&[&host.rows], |rows, _| {
            rows[0].insert("after", "1")?;
            Ok(())
        });
        let failed = committed.await.unwrap_err();
        assert_eq!(failed.outcome(), FailedOutcome::Unknown, "{failed:?}");
        assert!(matches!(host.handoff.health(), Health::DirectoryGone(_)));
        assert!(host.handoff.shutdown().await.is_err());
        let db = host.db;
        if let Some(second) = second {
            assert!(!path.join("hh-CLEAN").exists());
            assert_eq!(second.waiting().await, ["0"]);
            second.close().await;
            let second = Host::open(&path).await;
            assert_eq!(second.waiting().await, ["0"]);
            second.close().await;
        }
        let not_durable = make_durable(&db).unwrap_err();
        assert!(not_durable.source.is::<DirectoryGone>(), "{not_durable:?}");
        drop((db, host.rows, host.handoff));
        if is_exchanged {
            fs::remove_dir_all(&path).unwrap();
        }
        // What is to be done: put back, and opened again.
        fs::rename(&moved, &path).unwrap();
        let host = Host::open(&path).await;
        assert_eq!(host.waiting().await, ["0"]);
        assert!(host.rows.contains_key("before").unwrap());
        host.close().await;
    }
}
