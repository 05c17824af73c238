use std::{fs, path::Path, sync::Arc};

use crate::{
    config::Config,
    offline::{ClosedStore, Severity},
    store::{Store, engine::generation::Engine},
};

/// Whether the reader believes that the record of a node is damaged, which it does where the tree
/// can only be ours.
fn blames(dir: &Path) -> bool {
    let store = ClosedStore::open(dir).unwrap();
    let mut findings = store.findings().iter();
    findings.any(|it| it.severity == Severity::Damaged && it.what.contains("the node's record"))
}

#[test]
fn a_generation_that_was_moved_aside_has_no_trees_of_a_host_and_other_folders_may() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let config = Config {
        min_free_disk: 0,
        ..Config::new(at("store"))
    };
    let store = Store::open(&config, Box::new(|_| {})).unwrap();
    store.close().unwrap();
    let generation = at("store/gen-000001");
    let engine = Engine::open(&generation, Arc::default()).unwrap();
    engine.nodes.insert(7_u64.to_be_bytes(), vec![3; 30]);
    engine.close().unwrap();
    assert!(blames(&at("store")));

    let aside = at("store/aside-1700000000-gen-000001");
    fs::rename(&generation, &aside).unwrap();
    assert!(blames(&aside));
    // By another path, too.
    let link = at("link");
    std::os::unix::fs::symlink(&aside, &link).unwrap();
    assert!(blames(&link));

    let database = at("database");
    fs::rename(&aside, &database).unwrap();
    assert!(!blames(&database));
    // A host may call its database as it likes.
    for file in ["hh-LOCK", "hh-STORE"] {
        let named = at("aside-1700000000-gen-000001");
        fs::rename(&database, &named).unwrap();
        fs::write(named.join(file), "").unwrap();
        assert!(!blames(&named), "{file}");
        fs::remove_file(named.join(file)).unwrap();
        fs::rename(&named, &database).unwrap();
    }
}
