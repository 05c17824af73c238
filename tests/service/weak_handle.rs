//! A writer that knows the handoff it belongs to: by a weak handle it does not keep it alive, and
//! with the last handle of the host's the service stops.

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use hinted_handoff::{
    Config, HintedHandoff, NodeId, OpenError, ShardId, ShardWrite, ShardWriter, WeakHandoff,
    WriteError,
};

const SOURCE: NodeId = NodeId(1);
const TARGET: NodeId = NodeId(2);
const DOWN: NodeId = NodeId(3);
const SHARD: ShardId = ShardId(7);

type Handoff = HintedHandoff<String>;

/// How a writer knows its handoff.
enum Own {
    Weak(WeakHandoff<String>),
    Strong(Handoff),
}

/// Forwards what `SOURCE` takes to `TARGET`, as hints of its own.
#[derive(Default)]
struct Forwards {
    own: OnceLock<Own>,
    taken: Mutex<Vec<String>>,
}

impl ShardWriter<String> for Forwards {
    async fn write_shard(&self, write: ShardWrite<String>) -> Result<(), WriteError> {
        match write.node {
            SOURCE => {
                let own = match self.own.get() {
                    Some(Own::Weak(weak)) => weak.upgrade(),
                    Some(Own::Strong(own)) => Some(own.clone()),
                    None => None,
                };
                let own = own.ok_or_else(|| WriteError::retry("it is being opened or closed"))?;
                for batch in &write.batches {
                    let hinted = own.write_shard(TARGET, write.shard, &batch.points).await;
                    hinted.map_err(WriteError::retry)?;
                }
            }
            TARGET => {
                let points = write.batches.into_iter().map(|batch| batch.points);
                self.taken.lock().unwrap().extend(points);
            }
            _ => return Err(WriteError::retry("it is down")),
        }
        Ok(())
    }
}

async fn open(dir: &Path, writer: &Arc<Forwards>) -> Result<Handoff, OpenError> {
    let mut config = Config::new(dir);
    config.retry_interval = Duration::from_millis(2);
    config.retry_max_interval = Duration::from_millis(5);
    config.min_free_disk = 0;
    HintedHandoff::open(config, Arc::clone(writer)).await
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} does not come");
}

async fn forward(handoff: &Handoff, writer: &Forwards, text: &str) {
    let points = text.to_owned();
    handoff.write_shard(SOURCE, SHARD, &points).await.unwrap();
    until("what is forwarded", || {
        writer.taken.lock().unwrap().contains(&points)
    })
    .await;
}

#[tokio::test]
async fn with_the_last_handle_the_service_stops_and_all_that_was_answered_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(Forwards::default());
    let handoff = open(dir.path(), &writer).await.unwrap();
    let weak = handoff.downgrade();
    assert!(writer.own.set(Own::Weak(weak.clone())).is_ok());
    forward(&handoff, &writer, "a").await;
    handoff
        .write_shard(DOWN, SHARD, &"kept".to_owned())
        .await
        .unwrap();
    until("that nothing else waits", || {
        let waits = handoff
            .stats()
            .nodes
            .into_iter()
            .map(|node| node.pending.hints);
        waits.sum::<u64>() == 1
    })
    .await;

    let another = handoff.clone();
    drop(handoff);
    assert!(weak.upgrade().is_some(), "a clone is a handle, too");
    let mut events = another.events();
    drop(another);
    assert!(weak.upgrade().is_none());
    let last = loop {
        match events.recv().await {
            Ok(event) => drop(event),
            Err(closed) => break closed,
        }
    };
    assert_eq!(last.to_string(), "channel closed");
    until("the end of its tasks, which have the writer", || {
        Arc::strong_count(&writer) == 1
    })
    .await;

    let again = open(dir.path(), &Arc::new(Forwards::default()))
        .await
        .unwrap();
    let node = again
        .stats()
        .nodes
        .into_iter()
        .find(|node| node.node == DOWN);
    assert_eq!(node.unwrap().pending.hints, 1);
    again.shutdown().await.unwrap();
}

/// The control: what the weak handle is there for.
#[tokio::test]
async fn a_writer_with_a_handle_of_its_own_keeps_the_service_alive() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(Forwards::default());
    let handoff = open(dir.path(), &writer).await.unwrap();
    assert!(writer.own.set(Own::Strong(handoff.clone())).is_ok());
    forward(&handoff, &writer, "a").await;
    let weak = handoff.downgrade();
    drop(handoff);
    let alive = weak.upgrade().expect("it was stopped");
    let locked = open(dir.path(), &writer).await;
    assert!(
        matches!(locked, Err(OpenError::Locked { .. })),
        "{locked:?}"
    );
    // Until it is shut down; then it is given still, and serves nobody.
    alive.shutdown().await.unwrap();
    let refused = weak
        .upgrade()
        .unwrap()
        .write_shard(TARGET, SHARD, &"b".to_owned())
        .await;
    refused.unwrap_err();
}
