//! sled's `conf`: the settings that are fixed for a database's life.
//!
//! sled writes it in two steps, never fsyncs it (docs/sled.md rule 7), and opens nothing beside one
//! that was cut short. So it is written here, whole and durable, before sled makes the database,
//! and again where a first open was interrupted, as long as nothing can be stored there.
//!
//! The format is that of sled 0.34.7 (`config.rs`): three lines of text, then their CRC32 u32
//! little endian.

use std::{fs, io, path::Path};

use crate::{
    error::OpenError,
    store::{
        engine::folder::{Folder, failed},
        format::file_names::{CLEAN, HOST_CLEAN, HOST_STORE},
    },
};

const CONF: &str = "conf";
const CRC_BYTES: usize = 4;

/// Writes the settings of `config` where there is no database yet, and none was.
pub fn make_whole(dir: &Path, config: &sled::Config) -> Result<(), OpenError> {
    let path = dir.join(CONF);
    let is_whole = match fs::read(&path) {
        Ok(bytes) => passes_checksum(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(source) => return Err(failed("read", &path, source)),
    };
    if is_whole || !holds_nothing(dir).map_err(|source| failed("list", dir, source))? {
        return Ok(());
    }
    Folder::open(dir)?.replace(CONF, &encode(config))
}

fn encode(config: &sled::Config) -> Vec<u8> {
    let (major, minor) = config.version;
    let text = format!(
        "segment_size: {}\nuse_compression: {}\nversion: {major}.{minor}\n",
        config.segment_size, config.use_compression
    );
    let crc = crc32fast::hash(text.as_bytes()).to_le_bytes();
    [text.as_bytes(), &crc].concat()
}

fn passes_checksum(bytes: &[u8]) -> bool {
    let text = bytes.split_last_chunk::<CRC_BYTES>();
    text.is_some_and(|(text, crc)| crc32fast::hash(text).to_le_bytes() == *crc)
}

/// What is wrong with that of a database, which sled does not open with it.
pub fn problem(dir: &Path) -> Option<String> {
    match fs::read(dir.join(CONF)) {
        Ok(bytes) if passes_checksum(&bytes) => None,
        Ok(_) => Some("conf, the engine's settings, does not pass its checksum".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("conf, the engine's settings: {error}")),
    }
}

/// Whether nothing was ever stored in the directory: its log is not begun, and nothing tells of one
/// that was.
fn holds_nothing(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_used = match &*name {
            "db" => entry.metadata()?.len() > 0,
            "blobs" => fs::read_dir(entry.path())?.next().is_some(),
            CLEAN | HOST_CLEAN | HOST_STORE => true,
            other => other.starts_with("snap."),
        };
        if is_used {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database_config;

    #[test]
    fn it_is_what_sled_writes_and_no_part_of_it_is_taken_for_whole() {
        for config in [
            database_config("there"),
            sled::Config::new().segment_size(512 * 1024),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let config = config.path(dir.path());
            drop(config.open().unwrap());
            let written = fs::read(dir.path().join(CONF)).unwrap();
            assert_eq!(encode(&config), written);
            assert!(passes_checksum(&written));
            for cut in 0..written.len() {
                assert!(!passes_checksum(&written[..cut]), "{cut}");
            }
        }
    }

    #[test]
    fn a_directory_with_any_trace_of_a_database_is_left_alone() {
        let traces = ["db", "snap.0001", "CLEAN", "hh-CLEAN", "hh-STORE"];
        for trace in traces.map(Some).into_iter().chain([None]) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(CONF), "segment_si").unwrap();
            fs::write(dir.path().join("a host's own"), "x").unwrap();
            fs::create_dir(dir.path().join("blobs")).unwrap();
            if let Some(trace) = trace {
                fs::write(dir.path().join(trace), "x").unwrap();
            }
            make_whole(dir.path(), &database_config(dir.path())).unwrap();
            let conf = fs::read(dir.path().join(CONF)).unwrap();
            assert_eq!(passes_checksum(&conf), trace.is_none(), "{trace:?}");
        }
    }
}
