//! Errors say what is the case, and what to do.

mod hosts;
mod stores;

use std::fs;

use hinted_handoff::sled;
use hosts::{AWAY, Host};
use stores::{closed, code, err, out, path, place, run};

#[test]
fn a_setting_that_cannot_change_now_is_not_called_out_of_range() {
    let host = Host::start();
    let error = host.fails(3, &["set", "dir=/elsewhere"]);
    assert!(error.contains("cannot change while it runs"), "{error}");
    assert!(error.contains("next open"), "{error}");
    assert!(!error.contains("out of range"), "{error}");
    let error = host.fails(3, &["set", "batch_bytes=65MiB"]);
    assert!(error.contains("between 1 and 64MiB"), "{error}");
}

#[test]
fn a_time_that_is_taken_away_says_how_it_has_no_limit() {
    let host = Host::start();
    let error = host.fails(3, &["set", "max_age="]);
    assert!(error.contains("max_age") && error.contains("0s"), "{error}");
    assert!(!error.contains("null"), "{error}");
    host.ok(&["set", "max_hints="]);
}

#[test]
fn a_hint_of_an_import_that_has_no_room_is_not_called_a_dead_letter() {
    let host = Host::start();
    host.ok(&["pause", "--all"]);
    host.hint(AWAY, &["one"]);
    let (_dir, store) = place();
    closed(&store);
    let file = host.dir.path().join("hints.jsonl");
    fs::write(&file, stores::ok(&["export", path(&store)])).unwrap();
    let set = host.runtime.block_on(host.handoff.reconfigure(|config| {
        config.max_hints = Some(1);
    }));
    set.unwrap();
    let error = host.fails(3, &["import", "--online", path(&file)]);
    assert!(error.contains("max_hints"), "{error}");
    assert!(!error.contains("dead letter stays"), "{error}");
}

#[test]
fn a_database_that_never_was_a_store_is_told_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let database = sled::open(dir.path().join("database")).unwrap();
    database.insert("row", "value").unwrap();
    drop(database);
    let verified = run(&["verify", path(&dir.path().join("database"))]);
    let told = out(&verified) + &err(&verified);
    assert_ne!(code(&verified), 0, "{told}");
    assert!(told.contains("no host ever had a store there"), "{told}");
}

#[test]
fn a_sound_store_is_told_to_be_sound_in_the_columns_of_findings() {
    let (_dir, store) = place();
    closed(&store);
    let verified = stores::ok(&["verify", path(&store)]);
    let columns: Vec<&str> = verified.trim_end().split('\t').collect();
    assert_eq!(columns[..6], ["sound", "-", "-", "-", "-", "0"]);
    assert!(columns[6].starts_with("8 pending hints"), "{verified}");
    assert_eq!(columns.len(), 7);
}

#[test]
fn the_help_lists_the_verb_for_manual_pages() {
    let help = stores::ok(&["--help"]);
    assert!(help.lines().any(|it| it.starts_with("  man ")), "{help}");
}
