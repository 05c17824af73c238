//! The points of a body to all servers.

use std::{error::Error, sync::Arc};

use futures_util::future::join_all;
use hinted_handoff::{
    ConsistencyLevel, HintedHandoff, NodeId, OwnerError, PointsWriteError, PointsWriter, Shard,
    ShardId, Tally, WriteOutcome,
};

use super::report::{Failure, Kind, Report, are_all_refused};
use crate::{InfluxWriter, LinePoints, NodeAnswer, Points, causes::with_causes};

/// Writes, about, that a request may make for each shard to find the points that servers refuse.
const TRIES: u32 = 125;

/// Writes points to all servers.
#[derive(Debug, Clone)]
pub struct Writes {
    handoff: HintedHandoff<LinePoints>,
    to: PointsWriter<LinePoints, Arc<InfluxWriter>>,
    servers: Arc<InfluxWriter>,
    owners: Vec<NodeId>,
    /// More is written in parts: no hint may be larger than the queue takes, and no body larger
    /// than a server should be sent.
    part_bytes: usize,
}

impl Writes {
    pub fn new(
        handoff: HintedHandoff<LinePoints>,
        servers: Arc<InfluxWriter>,
        owners: Vec<NodeId>,
        body_bytes: u64,
    ) -> Writes {
        // A hint has some bytes beside the lines.
        let entry_bytes = handoff.config().max_entry_bytes.saturating_sub(4096);
        let part_bytes = usize::try_from(entry_bytes.min(body_bytes)).unwrap_or(usize::MAX);
        Writes {
            to: PointsWriter::new(handoff.clone(), Arc::clone(&servers)),
            handoff,
            servers,
            owners,
            part_bytes,
        }
    }

    pub fn handoff(&self) -> &HintedHandoff<LinePoints> {
        &self.handoff
    }

    /// Writes all points, those of different shards side by side.
    pub async fn write(&self, points: Points, level: ConsistencyLevel) -> Report {
        let shards = points.into_shards().map(|(shard, points)| {
            let shard = Shard {
                id: shard,
                owners: self.owners.clone(),
            };
            self.write_shard(shard, level, points)
        });
        let reports = join_all(shards.collect::<Vec<_>>()).await;
        reports.into_iter().fold(Report::default(), Report::and)
    }

    /// Writes the points of a shard, in order. Points that are refused are written again in halves,
    /// until it is known which ones those are: a server that refuses one point of a body has taken
    /// the others, and so must all.
    async fn write_shard(
        &self,
        shard: Shard,
        level: ConsistencyLevel,
        points: LinePoints,
    ) -> Report {
        let mut report = Report::default();
        let mut tries = TRIES;
        let mut waiting = vec![points];
        while let Some(points) = waiting.pop() {
            if points.lines().len() > self.part_bytes
                && let Some([first, second]) = points.halves()
            {
                waiting.extend([second, first]);
                continue;
            }
            let count = u64::from(points.points());
            let database = points.target().database.clone();
            match self.to.write(&shard, level, points.clone()).await {
                Ok(outcome) => report.took(count, outcome),
                Err(PointsWriteError::Refused(tally)) => {
                    let why = refusal(&tally);
                    let halves = points.halves().filter(|_| !are_all_refused(&why));
                    match (halves, tries) {
                        (Some([first, second]), 1..) => {
                            tries -= 1;
                            waiting.extend([second, first]);
                        }
                        (halves, _) => {
                            if halves.is_some() {
                                warn_unsearched(shard.id, count);
                            }
                            report.refused(count, why);
                        }
                    }
                }
                Err(error @ PointsWriteError::BadPoints(_)) => {
                    report.refused(count, with_causes(&error));
                }
                Err(error) => {
                    report.failed(count, failure(&error));
                    // The client will send all of it again.
                    let rest = waiting.drain(..).map(|points| u64::from(points.points()));
                    report.not_tried(rest.sum());
                }
            }
            if report.direct == 0 && self.is_missing(&database) {
                report.missing = Some(database);
            }
        }
        report
    }

    /// Whether each server said last that it does not have the database.
    fn is_missing(&self, database: &str) -> bool {
        let mut owners = self.owners.iter();
        owners.all(|node| self.servers.is_missing(*node, database))
    }
}

fn warn_unsearched(shard: ShardId, points: u64) {
    tracing::warn!(
        shard = shard.0,
        points,
        "too many points were refused to find out which: servers that were asked may have some of \
         these, and nobody else gets any"
    );
}

impl Report {
    fn took(&mut self, points: u64, outcome: WriteOutcome) {
        match outcome {
            WriteOutcome::Queued { .. } => self.queued += points,
            _ => self.direct += points,
        }
    }
}

/// What a server said that refused points.
fn refusal(tally: &Tally) -> String {
    let answer = match &tally.cause {
        OwnerError::Write(error) => error
            .source()
            .and_then(|it| it.downcast_ref::<NodeAnswer>()),
        _ => None,
    };
    match answer {
        Some(answer) => answer.text.clone(),
        None => with_causes(&tally.cause),
    }
}

fn failure(error: &PointsWriteError) -> Failure {
    let kind = match error {
        PointsWriteError::BadOwners { .. } => Kind::Internal,
        _ => Kind::Later,
    };
    Failure {
        kind,
        text: with_causes(error),
    }
}
