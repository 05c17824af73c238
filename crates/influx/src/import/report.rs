//! What could not be read: said line by line, and kept.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{error::ImportFailure, journal::FOLDER, source::SegmentFile, walk::Unread};

const NAME: &str = "report.jsonl";
const UNREADABLE: &str = "unreadable";

/// The report of an import: `influx-import/<unix ms>/report.jsonl` in the store's directory, and
/// the bytes beside it in `unreadable/`. They are made when there is something to say.
#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    out: Option<BufWriter<File>>,
}

#[derive(Serialize)]
struct Line<'a> {
    file: String,
    offset: usize,
    bytes: usize,
    what: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    lines: &'a [String],
    /// Where the bytes are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

impl Report {
    /// One in the directory of a store.
    pub fn new(store: &Path) -> Report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        Report {
            folder: store.join(FOLDER).join(now.to_string()),
            out: None,
        }
    }

    /// Says what could not be read of a segment, and keeps its bytes.
    pub fn add(
        &mut self,
        file: &SegmentFile,
        bytes: &[u8],
        unread: &Unread,
    ) -> Result<(), ImportFailure> {
        let path = self.folder.join(NAME);
        if self.out.is_none() {
            let unreadable = self.folder.join(UNREADABLE);
            let made = DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(&unreadable);
            made.map_err(ImportFailure::file("create", &unreadable))?;
            let made = create(&path).map_err(ImportFailure::file("create", &path))?;
            self.out = Some(BufWriter::new(made));
        }
        let line = Line {
            file: file.path.display().to_string(),
            offset: unread.place.start,
            bytes: unread.place.len(),
            what: &unread.what,
            lines: &unread.lines,
            kept: self.keep(file, bytes, &unread.place)?,
        };
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        let text = serde_json::to_string(&line).map_err(io::Error::other);
        let written = text.and_then(|text| writeln!(out, "{text}"));
        written.map_err(ImportFailure::file("write", &path))
    }

    fn keep(
        &self,
        file: &SegmentFile,
        bytes: &[u8],
        place: &Range<usize>,
    ) -> Result<Option<String>, ImportFailure> {
        let Some(bytes) = bytes.get(place.clone()).filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        let name = format!(
            "{UNREADABLE}/{}-{}-{}",
            file.name(),
            place.start,
            place.len()
        );
        let path = self.folder.join(&name);
        let kept = create(&path).and_then(|mut file| file.write_all(bytes));
        kept.map_err(ImportFailure::file("write", &path))?;
        Ok(Some(name))
    }

    /// Ends it; returns where it is, if there was something to say.
    pub fn finish(self) -> Result<Option<PathBuf>, ImportFailure> {
        let path = self.folder.join(NAME);
        let Some(out) = self.out else {
            return Ok(None);
        };
        let synced = out.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = synced.and_then(|file| file.sync_all());
        synced.map_err(ImportFailure::file("write", &path))?;
        Ok(Some(path))
    }
}

/// Points are for those who may read the store alone.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}
