//! A service with a scripted writer, and ways to restart it.

use std::{fs, sync::Arc, time::Duration};

use crate::common::{self, within};
use bytes::Bytes;
use hinted_handoff::{
    Accepted, Config, HintId, HintedHandoff, NodeId, NodeState, NodeStats, ShardId,
    internals::WallClock,
};
use hinted_handoff_testkit::{ScriptedWriter, Seen};

/// How the service stops between two lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Clean,
    /// As after a crash with all written: there is no summary.
    Unclean,
}

pub const STOPS: [Stop; 2] = [Stop::Clean, Stop::Unclean];

pub struct Host {
    pub dir: tempfile::TempDir,
    pub config: Config,
    pub writer: Arc<ScriptedWriter>,
    pub handoff: HintedHandoff<Bytes>,
    /// Goes as tokio's clock does, over all lives.
    clock: WallClock,
}

impl Host {
    pub async fn new(writer: ScriptedWriter) -> Host {
        Host::with(writer, |_| {}).await
    }

    pub async fn with(writer: ScriptedWriter, change: impl FnOnce(&mut Config)) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            retry_interval: Duration::from_millis(2),
            retry_max_interval: Duration::from_millis(5),
            ..common::config(dir.path())
        };
        change(&mut config);
        let clock = WallClock::new(1_700_000_000_000);
        Host::open(dir, config, clock, writer).await
    }

    async fn open(
        dir: tempfile::TempDir,
        config: Config,
        clock: WallClock,
        writer: ScriptedWriter,
    ) -> Host {
        let writer = Arc::new(writer);
        let by = clock.clone();
        let handoff = HintedHandoff::open_by_clock(config.clone(), by, Arc::clone(&writer)).await;
        Host {
            dir,
            config,
            writer,
            handoff: handoff.unwrap(),
            clock,
        }
    }

    /// Stops, and opens again with another writer.
    pub async fn restart(self, stop: Stop, writer: ScriptedWriter) -> Host {
        let Host {
            dir,
            config,
            handoff,
            clock,
            ..
        } = self;
        handoff.shutdown().await.unwrap();
        drop(handoff);
        if stop == Stop::Unclean {
            fs::remove_file(common::generation(dir.path()).join("CLEAN")).unwrap();
        }
        let host = Host::open(dir, config, clock, writer).await;
        assert_eq!(host.handoff.stats().store.damage, []);
        host
    }

    pub async fn write(&self, node: NodeId, shard: u64, text: &str) -> HintId {
        let points = Bytes::copy_from_slice(text.as_bytes());
        let accepted = self
            .handoff
            .write_shard(node, ShardId(shard), &points)
            .await;
        match accepted.unwrap() {
            Accepted::Durable(id) => id,
            other => panic!("it is to be durable: {other:?}"),
        }
    }

    pub fn stats(&self, node: NodeId) -> Option<NodeStats> {
        let nodes = self.handoff.stats().nodes;
        nodes.into_iter().find(|it| it.node == node)
    }

    pub fn state(&self, node: NodeId) -> NodeState {
        self.stats(node).unwrap().state
    }

    pub fn pending(&self, node: NodeId) -> u64 {
        self.stats(node).map_or(0, |it| it.pending.hints)
    }

    pub async fn taken(&self, payloads: usize) {
        within(self.writer.until_taken(payloads)).await;
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Host) -> bool) {
        for _ in 0..6_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} does not come: {:?}", self.handoff.stats());
    }

    /// What a node was sent and took, in order.
    pub fn sent(&self, node: NodeId) -> Vec<(HintId, u64, String)> {
        let all = self.writer.seen();
        let sent = all.iter().filter(|seen| seen.node == node);
        sent.flat_map(hints_of).collect()
    }

    pub fn pings(&self, node: NodeId) -> usize {
        let pings = self.writer.pings();
        pings.iter().filter(|(_, pinged)| *pinged == node).count()
    }
}

fn hints_of(seen: &Seen) -> Vec<(HintId, u64, String)> {
    let texts = seen.points.iter().map(|it| String::from_utf8(it.to_vec()));
    let hints = seen.hints.iter().zip(texts);
    hints
        .map(|(id, text)| (*id, seen.shard.0, text.unwrap()))
        .collect()
}

pub fn texts(sent: &[(HintId, u64, String)]) -> Vec<&str> {
    sent.iter().map(|(_, _, text)| text.as_str()).collect()
}

pub fn of_shard(sent: &[(HintId, u64, String)], shard: u64) -> Vec<&str> {
    let sent = sent.iter().filter(|it| it.1 == shard);
    sent.map(|(_, _, text)| text.as_str()).collect()
}

/// Long enough for a task that should not do anything to do it.
pub async fn a_while() {
    tokio::time::sleep(Duration::from_millis(40)).await;
}
