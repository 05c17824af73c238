//! What there is to import, counted before anything is written.

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use serde::Serialize;

use super::{
    error::ImportFailure,
    shards::{Place, Shards},
    source::{SegmentFile, Source},
    walk::{Found, Opened},
};
use crate::points::{Precision, Target};

/// So many names that are no part of a queue are told of; more are counted.
const IGNORED_TOLD: usize = 20;

/// What there is to import.
#[derive(Debug, Default, Serialize)]
pub struct Survey {
    pub nodes: Vec<NodeSurvey>,
    /// Files and folders that are no part of a queue, the first of them.
    pub ignored: Vec<String>,
    pub ignored_entries: u64,
}

/// What there is for a node.
#[derive(Debug, Default, Serialize)]
pub struct NodeSurvey {
    /// The node, as the old servers counted.
    pub old_node: u64,
    /// Which node gets it.
    pub node: Option<u64>,
    /// Then it was not read.
    pub is_skipped: bool,
    pub segments: u64,
    pub segment_bytes: u64,
    /// Records that the node has not.
    pub records: u64,
    /// Records that it has.
    pub acknowledged_records: u64,
    pub points: u64,
    /// Places that could not be read.
    pub unreadable: u64,
    /// When the segment that waits the longest was changed the last time.
    pub oldest_file_unix_ms: Option<u64>,
    pub shards: Vec<ShardSurvey>,
}

/// What there is of a shard.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShardSurvey {
    pub shard: u64,
    /// Where it goes, if the file of shards says it.
    pub place: Option<Place>,
    pub records: u64,
    pub points: u64,
}

impl Survey {
    /// Reads all segments but those of nodes that are skipped. `progress` is called with bytes of
    /// segments that were read.
    pub fn of(
        source: &Source,
        shards: &Shards,
        options: &Options,
        mut progress: impl FnMut(u64),
    ) -> Result<Survey, ImportFailure> {
        let mut nodes: BTreeMap<u64, Counts> = BTreeMap::new();
        for file in &source.segments {
            let counts = nodes.entry(file.node).or_default();
            counts.node.segments += 1;
            counts.node.segment_bytes += file.bytes;
            if !options.skip.contains(&file.node) {
                counts.read(file, options.from_start)?;
            }
            progress(file.bytes);
        }
        let nodes = nodes.into_iter().map(|(old_node, counts)| NodeSurvey {
            old_node,
            node: options.map.get(&old_node).copied(),
            is_skipped: options.skip.contains(&old_node),
            shards: counts.shards.into_values().collect(),
            ..counts.node
        });
        let mut survey = Survey {
            nodes: nodes.collect(),
            ignored_entries: source.ignored.len() as u64,
            ..Survey::default()
        };
        let ignored = source.ignored.iter().take(IGNORED_TOLD);
        survey.ignored = ignored.map(|path| path.display().to_string()).collect();
        for shard in survey.nodes.iter_mut().flat_map(|node| &mut node.shards) {
            shard.place = shards.place(shard.shard).cloned();
        }
        Ok(survey)
    }

    /// Whether anything could not be read.
    pub fn is_damaged(&self) -> bool {
        self.nodes.iter().any(|node| node.unreadable > 0)
    }

    /// The nodes that have points and no place.
    pub fn unmapped_nodes(&self) -> impl Iterator<Item = &NodeSurvey> {
        let wanted = |it: &&NodeSurvey| it.points > 0 && it.node.is_none();
        self.nodes.iter().filter(wanted)
    }

    /// The shards of all nodes, summed up.
    pub fn shards(&self) -> Vec<ShardSurvey> {
        let mut all: BTreeMap<u64, ShardSurvey> = BTreeMap::new();
        for shard in self.nodes.iter().flat_map(|node| &node.shards) {
            let sum = all.entry(shard.shard).or_insert_with(|| ShardSurvey {
                records: 0,
                points: 0,
                ..shard.clone()
            });
            sum.records += shard.records;
            sum.points += shard.points;
        }
        all.into_values().collect()
    }
}

/// What an import is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which node gets what was for an old one.
    pub map: BTreeMap<u64, u64>,
    /// Old nodes that are left out.
    pub skip: Vec<u64>,
    /// Whether records count that the node has.
    pub from_start: bool,
}

#[derive(Debug, Default)]
struct Counts {
    node: NodeSurvey,
    shards: BTreeMap<u64, ShardSurvey>,
}

impl Counts {
    fn read(&mut self, file: &SegmentFile, from_start: bool) -> Result<(), ImportFailure> {
        let Some(opened) = Opened::of(file, from_start)? else {
            self.node.unreadable += 1;
            return Ok(());
        };
        self.node.acknowledged_records += opened.segment.acknowledged as u64;
        if !opened.segment.pending.is_empty() {
            let age = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            let oldest = self.node.oldest_file_unix_ms.get_or_insert(u64::MAX);
            *oldest = (*oldest).min(age.as_millis() as u64);
        }
        let nowhere = Target {
            database: String::new(),
            retention_policy: None,
            precision: Precision::Nanoseconds,
        };
        opened.walk(
            file,
            |_| nowhere.clone(),
            |found| {
                match found {
                    Found::Unread(_) => self.node.unreadable += 1,
                    // What has no point needs no place.
                    Found::Points { points, .. } if points.points() == 0 => {}
                    Found::Points { shard, points, .. } => {
                        let points = points.points() as u64;
                        self.node.records += 1;
                        self.node.points += points;
                        let of_shard = self.shards.entry(shard).or_default();
                        of_shard.shard = shard;
                        of_shard.records += 1;
                        of_shard.points += points;
                    }
                }
                Ok(())
            },
        )
    }
}
