//! What the fan-out costs a write whose owners all answer at once, beside sends that are spawned by
//! hand and nothing else.

use std::{future::Future, sync::Arc, time::Instant};

use bytes::Bytes;
use hinted_handoff::{
    Batch, Config, ConsistencyLevel, HintedHandoff, NodeId, PointsWriter, Shard, ShardId,
    ShardWrite, ShardWriter, WriteError,
};
use tokio::sync::mpsc;

use crate::{
    Settings,
    common::{
        Outcome,
        entries::{Entries, POINTS},
        machine::Place,
        report::Spread,
    },
};

const OWNERS: u64 = 3;
const WRITES: f64 = 100_000.0;
const ROUNDS: usize = 9;
/// Writers at a time.
const WRITERS: [usize; 2] = [1, 64];

#[derive(Clone)]
struct AtOnce;

impl ShardWriter<Bytes> for AtOnce {
    async fn write_shard(&self, _: ShardWrite<Bytes>) -> Result<(), WriteError> {
        Ok(())
    }
}

/// Two of three have it when this returns, as at quorum.
async fn by_hand(points: Bytes) {
    let (tell, mut told) = mpsc::channel(OWNERS as usize);
    for node in 1..=OWNERS {
        let (tell, points) = (tell.clone(), points.clone());
        tokio::spawn(async move {
            let batches = vec![Batch::new(points)];
            let write = ShardWrite::new(NodeId(node), ShardId(7), batches);
            let answer = AtOnce.write_shard(write).await;
            let _ = tell.send(answer.is_ok()).await;
        });
    }
    drop(tell);
    let mut written = 0;
    while let Some(true) = told.recv().await {
        written += 1;
        if written * 2 > OWNERS {
            return;
        }
    }
}

/// Microseconds that a write takes, by so many writers at a time.
async fn micros<F: Future<Output = ()> + Send + 'static>(
    writers: usize,
    writes: u64,
    write: impl Fn() -> F + Clone + Send + 'static,
) -> Outcome<f64> {
    let each = writes / writers as u64;
    let started = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let write = write.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    write().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / (each * writers as u64) as f64)
}

pub async fn run(settings: &Settings, place: &Place) -> Outcome<()> {
    let dir = place.fresh_dir()?;
    let config = Config::new(dir.path().join("store"));
    let handoff = HintedHandoff::<Bytes>::open(config, AtOnce).await?;
    let points_writer = PointsWriter::new(handoff.clone(), AtOnce);
    let entries = Entries::line_protocol(1, POINTS)?;
    let points = entries.next();
    let writes = (WRITES * settings.scale) as u64;
    for writers in WRITERS {
        let (mut hand, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let sent = points.clone();
            let plain = micros(writers, writes, move || by_hand(sent.clone())).await?;
            let (points_writer, sent) = (points_writer.clone(), points.clone());
            let shard = Arc::new(Shard {
                id: ShardId(7),
                owners: (1..=OWNERS).map(NodeId).collect(),
            });
            let write = move || {
                let (points_writer, sent) = (points_writer.clone(), sent.clone());
                let shard = Arc::clone(&shard);
                async move {
                    let level = ConsistencyLevel::Quorum;
                    let _ = points_writer.write(&shard, level, sent).await;
                }
            };
            let fan_out = micros(writers, writes, write).await?;
            hand.push(plain);
            ours.push(fan_out);
            ratios.push(fan_out / plain);
        }
        eprintln!(
            "fan_out, {writers} writers: {} us a write, sends by hand {} us; of these {}",
            Spread::of(ours).ratio(),
            Spread::of(hand).ratio(),
            Spread::of(ratios).ratio()
        );
    }
    let stats = handoff.stats();
    if stats.writes.hinted > 0 {
        eprintln!(
            "{} writes were hinted: the machine stood still",
            stats.writes.hinted
        );
    }
    handoff.shutdown().await?;
    Ok(())
}
