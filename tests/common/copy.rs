//! Unclean stops without a second process.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path};

/// The files of an open store as they are, as if its process had been killed.
pub fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(dir, copy.path());
    copy
}

/// All files but a lock's, into a directory that is made if it is missing.
pub fn copy_files(from: &Path, to: &Path) {
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let into = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_files(&entry.path(), &into),
            false if entry.file_name() == "LOCK" => {}
            false => drop(fs::copy(entry.path(), into).unwrap()),
        }
    }
}
