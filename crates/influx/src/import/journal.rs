//! What was imported: `influx-import/journal` in the store's directory, a line of JSON an event.
//!
//! Before the first hint of a segment is handed in, a line `begin` is on the disk; when all hints
//! of it are, a line `end` is. See the module's documentation for why that is enough.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use hinted_handoff::StoreId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{error::ImportFailure, shards::Place, source::SegmentFile};

/// In the store's directory, so that it is moved, copied and deleted with it.
pub const FOLDER: &str = "influx-import";
const NAME: &str = "journal";

/// Hints of a segment that are handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Its line's number among those of the kind.
    pub number: u64,
    /// The store that they are put into.
    pub store: StoreId,
    /// Where they come from.
    pub old_node: u64,
    pub old_shard: Option<u64>,
    pub segment: u64,
    /// The records from here on,
    pub from: u64,
    /// and before here,
    pub to: u64,
    /// which are these bytes: SHA-256, in hex.
    pub digest: String,
    /// Where they go.
    pub node: u64,
    pub places: BTreeMap<u64, Place>,
    /// What the ids of their writes have in common.
    pub boot: u64,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The number of the line `begin`.
    pub number: u64,
    /// They are in the store up to this counter of the ids of their writes; all if it is left out.
    pub through: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Begin(Begin),
    End(End),
}

/// What a journal says.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    begun: Vec<(Begin, Option<End>)>,
    file: Option<File>,
}

impl Journal {
    /// Reads that of a store; an empty one if there is none.
    pub fn read(store: &Path) -> Result<Journal, ImportFailure> {
        let path = store.join(FOLDER).join(NAME);
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(ImportFailure::file("read", &path)(source)),
        };
        let mut journal = Journal {
            path,
            begun: Vec::new(),
            file: None,
        };
        // What follows the last end of a line is one that a crash cut short.
        for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if line.last() != Some(&b'\n') {
                break;
            }
            let wrong = |why: String| ImportFailure::Journal {
                path: journal.path.clone(),
                line: at + 1,
                why,
            };
            match serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))? {
                Line::Begin(begin) => journal.begun.push((begin, None)),
                Line::End(end) => {
                    let mut begun = journal.begun.iter_mut().rev();
                    let of = begun.find(|(begin, _)| begin.number == end.number);
                    of.ok_or_else(|| wrong("its beginning is missing".to_owned()))?
                        .1 = Some(end);
                }
            }
        }
        Ok(journal)
    }

    /// What was begun and is not known to have ended.
    pub fn unsettled(&self) -> impl Iterator<Item = &Begin> {
        let unsettled = self.begun.iter().filter(|(_, end)| end.is_none());
        unsettled.map(|(begin, _)| begin)
    }

    /// Says what is going to be handed in; returns the line, with its number and `boot`.
    pub fn begin(&mut self, mut begin: Begin) -> Result<Begin, ImportFailure> {
        begin.number = self.begun.len() as u64 + 1;
        let mut hasher = Sha256::new();
        hasher.update(begin.store.to_string());
        hasher.update(begin.number.to_be_bytes());
        hasher.update(&begin.digest);
        let digest = hasher.finalize();
        let boot = digest.first_chunk::<8>().map(|it| u64::from_be_bytes(*it));
        // It is never 0.
        begin.boot = boot.unwrap_or_default() | 1;
        self.write(&Line::Begin(begin.clone()))?;
        self.begun.push((begin.clone(), None));
        Ok(begin)
    }

    /// Says what became of it.
    pub fn end(&mut self, end: End) -> Result<(), ImportFailure> {
        self.write(&Line::End(end))?;
        for (begin, ended) in &mut self.begun {
            if begin.number == end.number {
                *ended = Some(end);
            }
        }
        Ok(())
    }

    /// Puts a line behind the others, durably.
    fn write(&mut self, line: &Line) -> Result<(), ImportFailure> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        let text = serde_json::to_vec(line).map_err(io::Error::other);
        let written = text.and_then(|mut text| {
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_data()
        });
        written.map_err(ImportFailure::file("write", &self.path))?;
        // After an error it is opened again: the next line must not follow half a one.
        self.file = Some(file);
        Ok(())
    }

    /// Which hints of a segment are in the store.
    pub fn done(&self, about: &About<'_>) -> Done {
        let ended = self
            .begun
            .iter()
            .filter_map(|(it, end)| Some((it, (*end)?)));
        let ended = ended.filter(|(begin, _)| about.is(begin));
        Done(
            ended
                .map(|(it, end)| (it.from..it.to, end.through))
                .collect(),
        )
    }
}

/// Which hints of a segment are in the store: by where their records begin, up to a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done(Vec<(Range<u64>, Option<u64>)>);

impl Done {
    /// Whether the hint of a record, with this counter in the id of its write, is.
    pub fn has(&self, offset: usize, counter: u64) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(records, through)| {
            records.contains(&(offset as u64)) && through.is_none_or(|last| counter <= last)
        })
    }
}

/// A segment, and where its points go.
#[derive(Debug)]
pub struct About<'a> {
    pub store: StoreId,
    pub file: &'a SegmentFile,
    pub bytes: &'a [u8],
    pub node: u64,
    /// Of the shards that it has.
    pub places: &'a BTreeMap<u64, Place>,
}

impl About<'_> {
    /// What a line `begin` says of the records in a range; its number and `boot` are not given.
    pub fn begin(&self, from: usize, to: usize) -> Begin {
        Begin {
            number: 0,
            store: self.store,
            old_node: self.file.node,
            old_shard: self.file.shard,
            segment: self.file.segment,
            from: from as u64,
            to: to as u64,
            digest: self.digest(from, to).unwrap_or_default(),
            node: self.node,
            places: self.places.clone(),
            boot: 0,
        }
    }

    fn digest(&self, from: usize, to: usize) -> Option<String> {
        let digest = Sha256::digest(self.bytes.get(from..to)?);
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a line is of the same bytes, to be put in the same place: of another server there
    /// may be a segment of the same name.
    fn is(&self, begin: &Begin) -> bool {
        let name = (begin.old_node, begin.old_shard, begin.segment);
        let mut places = begin.places.iter();
        let (from, to) = (begin.from as usize, begin.to as usize);
        name == (self.file.node, self.file.shard, self.file.segment)
            && (begin.store, begin.node) == (self.store, self.node)
            && places.all(|(shard, place)| self.places.get(shard).is_none_or(|it| it == place))
            && self.digest(from, to).as_ref() == Some(&begin.digest)
    }
}

/// Opens a journal to put lines behind those that it has, and makes it if there is none.
fn open(path: &Path) -> Result<File, ImportFailure> {
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(folder);
        made.map_err(ImportFailure::file("create", folder))?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(ImportFailure::file("open", path))?;
    // Half a line that a crash left.
    let text = fs::read(path).map_err(ImportFailure::file("read", path))?;
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let whole = whole.map_or(0, |end| end + 1);
    if whole < text.len() {
        let cut = file.set_len(whole as u64);
        cut.map_err(ImportFailure::file("cut", path))?;
    }
    file.sync_all().map_err(ImportFailure::file("sync", path))?;
    for folder in path.ancestors().skip(1).take(2) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(ImportFailure::file("sync", folder))?;
    }
    Ok(file)
}
