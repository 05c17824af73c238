//! sled's snapshots: where each page lies in the log, written by an open so that the next one need
//! not read all of it. All that a snapshot tells follows from the log.

use std::{fs, io, path::Path};

use crate::{
    error::{OpenError, UnopenableReason},
    store::{
        engine::folder::failed,
        failpoints::{Safeguard, is_off},
    },
};

/// What a log says that opens without its snapshot only.
pub const AHEAD: &str = "the log has less than its snapshot told of. After a power cut that is what \
                         was not answered yet; if there was none, the disk lost what was answered";

/// docs/sled.md rule 6: a torn one makes every later open fail; it is never needed.
pub fn remove_torn(dir: &Path) -> Result<(), OpenError> {
    if is_off(Safeguard::TornSnapshots) {
        return Ok(());
    }
    let is_torn = |name: &str| name.ends_with(".generating");
    remove(dir, is_torn, "a torn snapshot left by an unclean stop").map(drop)
}

/// What is wrong with the newest of a database. The log tells all that it does.
pub fn problem(dir: &Path) -> Option<String> {
    let (newest, bytes) = match newest(dir) {
        Ok(newest) => newest?,
        Err(error) => return Some(format!("the engine's snapshot: {error}")),
    };
    let (rest, crc) = bytes.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
    let (body, _length) = rest.split_last_chunk::<8>().unwrap_or((&[], &[0; 8]));
    let is_whole = !body.is_empty() && crc32fast::hash(body).to_le_bytes() == *crc;
    (!is_whole).then(|| format!("{newest}, the engine's snapshot, does not pass its checksum"))
}

/// Its name, and what is in it.
fn newest(dir: &Path) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && !name.contains(".generating") {
            newest = newest.max(Some(name));
        }
    }
    let Some(name) = newest else {
        return Ok(None);
    };
    let bytes = fs::read(dir.join(&name))?;
    Ok(Some((name, bytes)))
}

/// Opens by `open`, and once more without a snapshot if sled cannot open what it finds. Says
/// whether one was removed.
///
/// docs/sled.md rule 17: after a power cut it may tell of more than the log has, and sled refuses
/// both.
pub fn or_without<T>(
    dir: &Path,
    open: impl Fn() -> Result<T, OpenError>,
) -> Result<(T, bool), OpenError> {
    let opened = open();
    let is_damaged = matches!(
        &opened,
        Err(OpenError::Unopenable {
            reason: UnopenableReason::Engine(_) | UnopenableReason::Panic(_),
            ..
        })
    );
    let may_help = is_damaged && !is_off(Safeguard::StaleSnapshots);
    let what = "a snapshot that the engine cannot open the log with";
    if !may_help || !remove(dir, |_| true, what)? {
        return opened.map(|opened| (opened, false));
    }
    let opened = open()?;
    tracing::error!(path = %dir.display(), error = AHEAD, "opened without a snapshot");
    Ok((opened, true))
}

/// Removes those whose names are `unwanted`; says whether there was any.
fn remove(dir: &Path, unwanted: impl Fn(&str) -> bool, what: &str) -> Result<bool, OpenError> {
    let mut is_any = false;
    for entry in fs::read_dir(dir).map_err(|source| failed("list", dir, source))? {
        let entry = entry.map_err(|source| failed("list", dir, source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && unwanted(&name) {
            tracing::warn!(path = %entry.path().display(), error = what, "a snapshot is removed");
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
            is_any = true;
        }
    }
    Ok(is_any)
}
