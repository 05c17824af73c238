//! Makes a large store, and replays one to a node that takes everything at once: what `hh export`
//! is measured against.
//!
//! ```sh
//! cargo run --release -p hinted-handoff-cli --example large_store -- fill DIR MEBIBYTES
//! cargo run --release -p hinted-handoff-cli --example large_store -- replay DIR
//! ```
//! `HH_NODES` is the number of nodes, 1 if it is not set. Replay empties the store.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hinted_handoff::{
    Config, HintedHandoff, NodeId, ShardId, ShardWrite, ShardWriter, WriteError,
    offline::{Import, Importer},
};

/// Points of line protocol in a hint: 1.8 KB.
const POINTS: u64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["fill", dir, mebibytes] => fill(dir, mebibytes.parse()?),
        ["replay", dir] => replay(dir),
        _ => Err("give fill DIR MEBIBYTES, or replay DIR".into()),
    }
}

fn fill(dir: &str, mebibytes: u64) -> Result<(), Box<dyn Error>> {
    let nodes = std::env::var("HH_NODES").map_or(Ok(1), |it| it.parse::<u64>())?;
    let mut importer = Importer::open(dir)?;
    let (mut bytes, mut number) = (0, 0);
    while bytes < mebibytes << 20 {
        let payload = points(number);
        bytes += payload.len() as u64;
        importer.push(Import {
            node: NodeId(1 + number % nodes),
            shard: ShardId(number % 8),
            format: 0,
            enqueued_unix_ms: 1_700_000_000_000 + number,
            lifetime_ms: None,
            write: None,
            payload,
            dead: None,
        })?;
        number += 1;
    }
    println!("{:?}", importer.finish()?);
    Ok(())
}

fn points(number: u64) -> Bytes {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    let mut text = String::with_capacity(2000);
    for point in 0..POINTS {
        let (host, core) = (next(500), next(64));
        text += &format!(
            "cpu,host=server-{host:04},region=eu-central-1,rack={},core={core} \
             usage_user={}.{},usage_system={}.{},usage_idle={}.{},irq={}i,context_switches={}i {}\n",
            next(40),
            next(100),
            next(1000),
            next(100),
            next(1000),
            next(100),
            next(1000),
            next(100_000),
            next(1_000_000_000),
            1_700_000_000_000_000_000 + number * 1_000_000 + point
        );
    }
    text.into()
}

/// Takes everything.
struct Taker {
    bytes: AtomicU64,
    hints: AtomicU64,
}

impl ShardWriter<Bytes> for Taker {
    async fn write_shard(&self, write: ShardWrite<Bytes>) -> Result<(), WriteError> {
        for batch in &write.batches {
            self.bytes.fetch_add(batch.points.len() as u64, Relaxed);
            self.hints.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

fn replay(dir: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let taker = Arc::new(Taker {
            bytes: AtomicU64::new(0),
            hints: AtomicU64::new(0),
        });
        let started = Instant::now();
        let handoff = HintedHandoff::<Bytes>::open(Config::new(dir), taker.clone()).await?;
        let opened = started.elapsed();
        while handoff.stats().store.pending.hints > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let taken = started.elapsed();
        let (bytes, hints) = (taker.bytes.load(Relaxed), taker.hints.load(Relaxed));
        println!(
            "opened in {opened:?}; {hints} hints, {bytes} bytes in {taken:?}: {:.0} MB/s",
            bytes as f64 / 1e6 / taken.as_secs_f64()
        );
        handoff.shutdown().await?;
        Ok(())
    })
}
