//! What the tests of a shared database need: a host with rows of its own, whose nodes are down or
//! taken by hand.

pub mod races;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use hinted_handoff::{
    Accepted, Config, HintId, HintedHandoff, NodeId, PeekedPoints, ShardId, database_config,
    open_database,
    sled::{Db, Tree},
};
use hinted_handoff_testkit::ScriptedWriter;

pub const SHARD: ShardId = ShardId(7);
/// Its hints are taken by hand.
pub const MANUAL: NodeId = NodeId(1);
/// It is down.
pub const DOWN: NodeId = NodeId(2);

pub type Handoff = HintedHandoff<Bytes>;

pub fn config(dir: &Path) -> Config {
    Config {
        manual_nodes: [MANUAL].into(),
        min_free_disk: 0,
        retry_interval: Duration::from_secs(3600),
        retry_max_interval: Duration::from_secs(3600),
        ..Config::new(dir)
    }
}

pub fn open_db(dir: &Path) -> Db {
    open_database(&database_config(dir)).unwrap()
}

/// A database with one tree for the host's rows, and a store in it.
pub struct Host {
    pub handoff: Handoff,
    pub rows: Tree,
    pub db: Db,
}

impl Host {
    pub async fn open(dir: &Path) -> Host {
        Host::open_as(config(dir)).await
    }

    pub async fn open_as(config: Config) -> Host {
        let db = open_db(&config.dir);
        Host {
            handoff: Handoff::open_in(&db, config, ScriptedWriter::down())
                .await
                .unwrap(),
            rows: db.open_tree("rows").unwrap(),
            db,
        }
    }

    /// Lets go of the store and of the database.
    pub async fn close(self) {
        self.handoff.shutdown().await.unwrap();
    }

    /// Adds one to a row, and a hint of the number it had.
    pub async fn count(&self, key: &str) -> u64 {
        let committed = self.handoff.transaction(&[&self.rows], |rows, hints| {
            let count = number(rows[0].get(key)?);
            rows[0].insert(key, &(count + 1).to_be_bytes())?;
            hints.enqueue(MANUAL, SHARD, &text(count))?;
            Ok(count)
        });
        committed.await.unwrap().value
    }

    pub fn row(&self, key: &str) -> Option<String> {
        let value = self.rows.get(key).unwrap()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    pub async fn hint(&self, node: NodeId, points: &'static str) -> HintId {
        let points = Bytes::from_static(points.as_bytes());
        match self
            .handoff
            .write_shard(node, SHARD, &points)
            .await
            .unwrap()
        {
            Accepted::Durable(id) => id,
            other => panic!("it was to be durable: {other:?}"),
        }
    }

    /// All that waits for the manual node.
    pub async fn waiting(&self) -> Vec<String> {
        let mut consumer = self.handoff.consumer(MANUAL).unwrap();
        points(&consumer.peek(usize::MAX).await.unwrap())
    }

    pub fn pending(&self, node: NodeId) -> u64 {
        let nodes = self.handoff.stats().nodes;
        let found = nodes.iter().find(|it| it.node == node);
        found.map_or(0, |it| it.pending.hints)
    }
}

pub fn points(hints: &[PeekedPoints<Bytes>]) -> Vec<String> {
    let points = hints.iter().map(|hint| hint.points.to_vec());
    points.map(|it| String::from_utf8(it).unwrap()).collect()
}

pub fn text(number: u64) -> Bytes {
    number.to_string().into()
}

pub fn number(value: Option<hinted_handoff::sled::IVec>) -> u64 {
    let bytes = value.map(|value| value.as_ref().try_into().unwrap());
    bytes.map_or(0, u64::from_be_bytes)
}
