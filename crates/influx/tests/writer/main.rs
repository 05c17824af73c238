//! `InfluxWriter` sends what it is given, and tells what became of it.
//!
//! Most stories are told before a server of our own that answers as it is told; those in `real`
//! before influxd itself.

mod answers;
mod bodies;
mod credentials;
mod fake;
#[path = "../common/influxd.rs"]
mod influxd;
mod real;
mod refused;
mod settings;
mod tls;
mod told;

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use hinted_handoff::{
    Batch, HintId, NodeId, QueueId, Sequence, ShardId, ShardWrite, ShardWriter, StoreId, WriteError,
};
use hinted_handoff_influx::{
    InfluxWriter, LinePoints, NodeAnswer, NodeSettings, Points, Precision, Target, WriterSettings,
};

const NODE: NodeId = NodeId(1);

fn target(database: &str) -> Target {
    Target {
        database: database.to_owned(),
        retention_policy: None,
        precision: Precision::Nanoseconds,
    }
}

/// Points of one series, and so of one shard.
fn points_to(target: Target, lines: &str) -> LinePoints {
    let points = Points::read(target, lines.as_bytes(), SystemTime::now());
    assert_eq!(points.bad(), []);
    let mut shards = points.into_shards();
    let (_, points) = shards.next().unwrap();
    assert!(shards.next().is_none(), "they are of several series");
    points
}

fn points(lines: &str) -> LinePoints {
    points_to(target("db"), lines)
}

/// Hints in their order, of now.
fn hints(points: impl IntoIterator<Item = LinePoints>) -> ShardWrite<LinePoints> {
    let batches = points.into_iter().enumerate().map(|(number, points)| {
        let mut batch = Batch::new(points);
        batch.hint = Some(HintId {
            store: StoreId([7; 16]),
            queue: QueueId(1),
            sequence: Sequence(number as u64 + 1),
        });
        batch
    });
    ShardWrite::new(NODE, ShardId(1), batches.collect())
}

/// A write of a client.
fn direct(points: LinePoints) -> ShardWrite<LinePoints> {
    ShardWrite::new(NODE, ShardId(1), vec![Batch::new(points)])
}

fn aged(mut write: ShardWrite<LinePoints>, age: Duration) -> ShardWrite<LinePoints> {
    for batch in &mut write.batches {
        batch.enqueued -= age;
    }
    write
}

fn plain() -> WriterSettings {
    WriterSettings {
        gzip: false,
        ..WriterSettings::default()
    }
}

/// A writer to one server.
fn writer_to(url: String, settings: WriterSettings) -> InfluxWriter {
    InfluxWriter::new(&[NodeSettings::new(NODE.0, url)], settings).unwrap()
}

fn answer_of(error: &WriteError) -> Option<&NodeAnswer> {
    error.source().and_then(|it| it.downcast_ref())
}

/// In one word, with the text of the answer.
fn outcome(result: Result<(), WriteError>) -> String {
    let Err(error) = result else {
        return "taken".to_owned();
    };
    let answer = match answer_of(&error) {
        Some(answer) => format!("{}: {}", answer.status, answer.text),
        None => "no answer".to_owned(),
    };
    let after = |after: Duration| format!("{}s ", after.as_secs());
    match &error {
        WriteError::Retry { after: wish, .. } => {
            format!("retry {}{answer}", wish.map(after).unwrap_or_default())
        }
        WriteError::Reject { .. } => format!("reject {answer}"),
        WriteError::Obsolete { .. } => format!("obsolete {answer}"),
        WriteError::Partial { taken, .. } => format!("partial {taken} {answer}"),
        _ => "another one".to_owned(),
    }
}

async fn sent(writer: &InfluxWriter, write: ShardWrite<LinePoints>) -> String {
    outcome(writer.write_shard(write).await)
}
