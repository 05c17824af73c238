//! A store is taken through a step that is made for the test, and through deaths on the way.

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use super::*;
use crate::store::failpoints::Safeguard;

const ROWS: u64 = 200;
const STORE: [u8; 16] = [7; 16];
/// What the step puts before each value.
const NEW: &[u8] = b"new: ";
/// Has the step die in its middle.
const DIES_WITHIN: &str = "HH_STEP_DIES_WITHIN";

/// Step 2: each hint is written in another form. Safe to run again, as every step must be.
fn step_2(db: &sled::Db, _store_id: [u8; 16]) -> sled::Result<()> {
    let hints = db.open_tree("hh/hints")?;
    for (number, row) in hints.iter().enumerate() {
        let (key, value) = row?;
        if !value.starts_with(NEW) {
            hints.insert(key, [NEW, &value].concat())?;
        }
        if number as u64 == ROWS / 2 && std::env::var_os(DIES_WITHIN).is_some() {
            hints.flush()?;
            std::process::abort();
        }
    }
    Ok(())
}

const TWO_STEPS: [Step; 2] = [STEPS[0], step_2];

fn with_engine<T>(dir: &Path, work: impl FnOnce(&Arc<Engine>) -> T) -> T {
    let engine = Arc::new(Engine::open(dir, Arc::default()).unwrap());
    let done = work(&engine);
    Engine::close_shared(engine).unwrap();
    done
}

fn store_of_schema_1(dir: &Path) {
    with_engine(dir, |engine| {
        run(engine, false, STORE, &STEPS).unwrap();
        let mut writer = Writer::new(Arc::clone(engine), "fill", Safeguard::GroupCommits);
        for number in 0..ROWS {
            let key = number.to_be_bytes();
            writer.put(&engine.hints, &key, b"old".to_vec()).unwrap();
        }
        writer.commit().unwrap();
    });
}

/// All rows are of the new form, once, and the store is the one it was.
fn check_schema_2(dir: &Path) {
    with_engine(dir, |engine| {
        assert_eq!(meta::schema(engine).unwrap(), Some(2));
        assert_eq!(meta::store_id(engine).unwrap().unwrap().0, STORE);
        let rows = engine.db().open_tree("hh/hints").unwrap();
        assert_eq!(rows.len() as u64, ROWS);
        let is_new = |row: sled::Result<(sled::IVec, sled::IVec)>| row.unwrap().1 == b"new: old";
        assert!(rows.iter().all(is_new));
        let older = run(engine, true, STORE, &STEPS);
        assert!(matches!(older, Err(SchemaError::Newer { found: 2 })));
    });
}

/// Not a test of its own: the process that dies on the way.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os("HH_MIGRATED") {
        let ended = with_engine(Path::new(&dir), |it| run(it, true, STORE, &TWO_STEPS));
        assert!(matches!(ended, Err(SchemaError::Storage(_))), "{ended:?}");
    }
}

#[test]
fn a_store_of_an_older_schema_is_migrated_once() {
    let dir = tempfile::tempdir().unwrap();
    store_of_schema_1(dir.path());
    for _ in 0..2 {
        with_engine(dir.path(), |it| run(it, true, [9; 16], &TWO_STEPS)).unwrap();
        check_schema_2(dir.path());
    }
}

#[test]
fn a_migration_that_dies_anywhere_is_run_again_and_ends_the_same() {
    let within = (DIES_WITHIN, "yes".to_owned(), "within the step");
    let points = [
        "migrate: data written",
        "migrate: data durable",
        "migrate: version written",
    ];
    let behind = points.iter().flat_map(|point| {
        ["abort", "error"].map(|how| ("HH_FAILPOINT", format!("{point}/{how}/1"), *point))
    });
    for (variable, value, place) in behind.chain([within]) {
        let dir = tempfile::tempdir().unwrap();
        store_of_schema_1(dir.path());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::engine::migrate::tests::child"])
            .env("HH_MIGRATED", dir.path())
            .env(variable, &value)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let dies = !value.ends_with("error/1");
        assert_eq!(status.signal().is_some(), dies, "{value}: {status}");
        assert!(dies || status.success(), "{value}: {status}");
        // The version comes last. An error flushes what was written; an abort does not.
        let schema = with_engine(dir.path(), |it| meta::schema(it).unwrap().unwrap());
        let may_be_new = place == "migrate: version written";
        assert!(schema == 1 || may_be_new, "{value}: {schema}");
        assert!(schema == 2 || !may_be_new || dies, "{value}: {schema}");
        with_engine(dir.path(), |it| run(it, true, [9; 16], &TWO_STEPS)).unwrap();
        check_schema_2(dir.path());
    }
}
