//! Putting points into the store.

use std::{collections::BTreeMap, path::Path, path::PathBuf, time::UNIX_EPOCH};

use bytes::Bytes;
use hinted_handoff::{
    EnqueueError, NodeId, Payload, ShardId, StoreId, WriteId,
    offline::{Import, Importer},
};
use serde::Serialize;

use super::{
    error::ImportFailure,
    journal::{About, Begin, Done, End, Journal},
    report::Report,
    settle::settled,
    shards::{Place, Shards},
    source::{SegmentFile, Source},
    survey::Options,
    walk::{Found, Opened, too_long},
};
use crate::points::{LinePoints, Points, STRIPES};

/// What was put into the store.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Loaded {
    pub imported_hints: u64,
    pub imported_points: u64,
    pub imported_payload_bytes: u64,
    /// Hints that an earlier import has put there.
    pub known_hints: u64,
    /// Imported points that had no time, and were given that of their file.
    pub timed_points: u64,
    /// What could not be read is said there.
    pub report: Option<PathBuf>,
}

/// Puts all that is wanted of an old directory into the store. `progress` is called with bytes of
/// segments that are done.
pub fn load(
    source: &Source,
    shards: &Shards,
    options: &Options,
    store: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Loaded, ImportFailure> {
    let (closed, journal) = settled(store)?;
    let id = closed.id();
    drop(closed);
    let mut loader = Loader {
        importer: Importer::open(store).map_err(ImportFailure::open(store))?,
        journal,
        report: Report::new(store),
        loaded: Loaded::default(),
        store: id,
    };
    for file in &source.segments {
        if !options.skip.contains(&file.node) {
            loader.segment(file, shards, options)?;
        }
        progress(file.bytes);
    }
    loader.finish()
}

struct Loader {
    importer: Importer,
    journal: Journal,
    report: Report,
    loaded: Loaded,
    store: StoreId,
}

impl Loader {
    fn segment(
        &mut self,
        file: &SegmentFile,
        shards: &Shards,
        options: &Options,
    ) -> Result<(), ImportFailure> {
        let Some(opened) = Opened::of(file, options.from_start)? else {
            return self.report.add(file, &[], &too_long());
        };
        let places = opened.shards(file).filter_map(|shard| {
            let place = shards.place(shard)?;
            Some((shard, place.clone()))
        });
        let places: BTreeMap<u64, Place> = places.collect();
        let node = options.map.get(&file.node);
        let about = About {
            store: self.store,
            file,
            bytes: &opened.bytes,
            node: node.copied().unwrap_or_default(),
            places: &places,
        };
        let end = opened.segment.pending.iter().map(|it| it.body.end).max();
        let mut hints = Hints {
            done: self.journal.done(&about),
            about: &about,
            end: end.unwrap_or(0),
            begun: None,
        };
        let nowhere = Place::default();
        let target = |shard| places.get(&shard).unwrap_or(&nowhere).target();
        opened.walk(file, target, |found| match found {
            Found::Unread(unread) => self.report.add(file, &opened.bytes, &unread),
            Found::Points { points, .. } if points.points() == 0 => Ok(()),
            Found::Points { shard, .. } if node.is_none() || !places.contains_key(&shard) => {
                Err(ImportFailure::Usage(format!(
                    "{}: points of shard {shard} were not there before; is the old server running?",
                    file.path.display()
                )))
            }
            Found::Points { offset, points, .. } => self.push(&mut hints, offset, points),
        })?;
        if let Some(begin) = hints.begun {
            self.importer.settle()?;
            self.journal.end(End {
                number: begin.number,
                through: None,
            })?;
        }
        Ok(())
    }

    /// Hands in the hints of a record that are not in the store.
    fn push(
        &mut self,
        hints: &mut Hints<'_>,
        offset: usize,
        points: Points,
    ) -> Result<(), ImportFailure> {
        let modified = hints.about.file.modified;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = format!(" {}\n", modified.as_nanos());
        for (index, (shard, points)) in points.into_shards().enumerate() {
            // Of one record there are so many at most.
            let counter = offset as u64 * u64::from(STRIPES) + index as u64 + 1;
            if hints.done.has(offset, counter) {
                self.loaded.known_hints += 1;
                continue;
            }
            let begin = match &hints.begun {
                Some(begin) => begin,
                None => {
                    let begin = hints.about.begin(offset, hints.end);
                    hints.begun.insert(self.journal.begin(begin)?)
                }
            };
            let payload = encode(&points)?;
            self.loaded.imported_hints += 1;
            self.loaded.imported_points += u64::from(points.points());
            self.loaded.imported_payload_bytes += payload.len() as u64;
            self.loaded.timed_points += count(points.lines(), time.as_bytes());
            let write = WriteId {
                boot: begin.boot,
                counter,
            };
            let node = NodeId(hints.about.node);
            let enqueued_unix_ms = modified.as_millis() as u64;
            self.importer
                .push(import(node, shard, write, enqueued_unix_ms, payload))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded, ImportFailure> {
        self.loaded.report = self.report.finish()?;
        self.importer.finish()?;
        Ok(self.loaded)
    }
}

/// The hints of a segment.
struct Hints<'a> {
    about: &'a About<'a>,
    done: Done,
    /// Where the last pending record ends.
    end: usize,
    /// Once there is one that is not in the store.
    begun: Option<Begin>,
}

fn encode(points: &LinePoints) -> Result<Bytes, EnqueueError> {
    let mut payload = Vec::new();
    points.encode(&mut payload)?;
    Ok(payload.into())
}

fn import(
    node: NodeId,
    shard: ShardId,
    write: WriteId,
    enqueued_unix_ms: u64,
    payload: Bytes,
) -> Import {
    Import {
        node,
        shard,
        format: LinePoints::FORMAT,
        enqueued_unix_ms,
        lifetime_ms: None,
        write: Some(write),
        payload,
        dead: None,
    }
}

/// How many lines end so.
fn count(lines: &[u8], ending: &[u8]) -> u64 {
    let ends = lines.split_inclusive(|byte| *byte == b'\n');
    ends.filter(|line| line.ends_with(ending)).count() as u64
}
