//! Unclean stops without a second process.

use std::{fs, path::Path};

/// The files of an open store as they are, as if its process had been killed.
pub fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(dir, copy.path());
    copy
}

pub fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&into).unwrap();
            copy_files(&entry.path(), &into);
        } else if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), into).unwrap();
        }
    }
}
