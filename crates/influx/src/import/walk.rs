//! All that is in a segment, piece by piece: points, and what could not be read.

use std::ops::Range;

use super::{
    block::Block,
    error::ImportFailure,
    segment::Segment,
    source::{SEGMENT_BYTES_MAX, SegmentFile},
};
use crate::points::{Points, Target};

/// Something that is in a segment.
#[derive(Debug)]
pub enum Found {
    /// Points of a record.
    Points {
        /// Where the record begins.
        offset: usize,
        /// The shard, as the old servers counted.
        shard: u64,
        points: Points,
    },
    Unread(Unread),
}

/// Something that could not be read.
#[derive(Debug)]
pub struct Unread {
    /// Where in the segment.
    pub place: Range<usize>,
    pub what: String,
    /// The first of the lines that are no points.
    pub lines: Vec<String>,
}

/// The bytes of a segment, and its records.
#[derive(Debug)]
pub struct Opened {
    pub bytes: Vec<u8>,
    pub segment: Segment,
}

impl Opened {
    /// Reads a segment. `None` for a file that is too long to be one.
    pub fn of(file: &SegmentFile, from_start: bool) -> Result<Option<Opened>, ImportFailure> {
        let read = file.read()?;
        Ok(read.map(|bytes| Opened {
            segment: match from_start {
                true => Segment::read_from_start(&bytes),
                false => Segment::read(&bytes),
            },
            bytes,
        }))
    }

    /// The shards of its pending records.
    pub fn shards(&self, file: &SegmentFile) -> impl Iterator<Item = u64> {
        self.segment.pending.iter().filter_map(|record| {
            let id = self.bytes.get(record.body.clone())?.first_chunk::<8>()?;
            file.shard.or(Some(u64::from_be_bytes(*id)))
        })
    }

    /// Calls `take` for all that is in it, but for records that the node has.
    pub fn walk(
        &self,
        file: &SegmentFile,
        target: impl Fn(u64) -> Target,
        mut take: impl FnMut(Found) -> Result<(), ImportFailure>,
    ) -> Result<(), ImportFailure> {
        for damage in &self.segment.damage {
            take(Found::Unread(Unread {
                place: damage.place.clone(),
                what: damage.what.clone(),
                lines: Vec::new(),
            }))?;
        }
        for record in &self.segment.pending {
            let body = self.bytes.get(record.body.clone()).unwrap_or_default();
            // The servers of shards' folders deliver to the shard that the folder says.
            let block = Block::read(body);
            let shard = block.as_ref().and_then(|block| file.shard.or(block.shard));
            let (Some(block), Some(shard)) = (block, shard) else {
                take(Found::Unread(Unread {
                    place: record.offset..record.body.end,
                    what: "it names no shard".to_owned(),
                    lines: Vec::new(),
                }))?;
                continue;
            };
            for place in block.unread {
                take(Found::Unread(Unread {
                    place: record.body.start + place.start..record.body.start + place.end,
                    what: "this is no point".to_owned(),
                    lines: Vec::new(),
                }))?;
            }
            let points = Points::read(target(shard), &block.lines, file.modified);
            if points.bad_lines() > 0 {
                take(Found::Unread(Unread {
                    place: record.offset..record.body.end,
                    what: format!("{} of its lines are no points", points.bad_lines()),
                    lines: points.bad().iter().map(ToString::to_string).collect(),
                }))?;
            }
            take(Found::Points {
                offset: record.offset,
                shard,
                points,
            })?;
        }
        Ok(())
    }
}

/// What is said of a file that is too long.
pub fn too_long() -> Unread {
    Unread {
        place: 0..0,
        what: format!("it is no segment: it is longer than {SEGMENT_BYTES_MAX} bytes"),
        lines: Vec::new(),
    }
}
