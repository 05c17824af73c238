//! What an operator sees in the log: each change of a node's state once, not every retry; spans
//! with node, range, bytes.

mod common;

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hinted_handoff::{Config, HintedHandoff, NodeId, NodeState, ShardId};
use hinted_handoff_testkit::{Reply, ScriptedWriter};
use tracing::{Level, Subscriber, field::Visit, span};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, registry::LookupSpan};

/// Remembers events as lines, and spans with all that was recorded on them.
#[derive(Clone, Default)]
struct Log {
    events: Arc<Mutex<Vec<(Level, String)>>>,
    spans: Arc<Mutex<BTreeMap<u64, String>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.events
            .lock()
            .unwrap()
            .push((*event.metadata().level(), line.0));
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, _: Context<'_, S>) {
        let mut line = Line(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        self.spans.lock().unwrap().insert(id.into_u64(), line.0);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        let mut spans = self.spans.lock().unwrap();
        let mut line = Line(spans.remove(&id.into_u64()).unwrap_or_default());
        values.record(&mut line);
        spans.insert(id.into_u64(), line.0);
    }
}

impl Log {
    fn changes(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let changes = events
            .iter()
            .filter(|(_, line)| line.contains("changed state"));
        let states = changes.filter(|(level, _)| *level <= Level::INFO);
        states
            .map(|(_, line)| {
                line.split("state=")
                    .nth(1)
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    fn has_span(&self, parts: &[&str]) -> bool {
        let spans = self.spans.lock().unwrap();
        spans
            .values()
            .any(|span| parts.iter().all(|part| span.contains(part)))
    }
}

#[tokio::test]
async fn a_state_change_is_logged_once_and_the_spans_say_what_moved() {
    let log = Log::default();
    // Global, since the commit thread logs too; this test is alone in its process.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log.clone()))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        retry_interval: Duration::from_millis(4),
        retry_max_interval: Duration::from_millis(8),
        ..common::config(dir.path())
    };
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Retry));
    let handoff = HintedHandoff::open(config, Arc::clone(&writer))
        .await
        .unwrap();
    let points = Bytes::from_static(b"twelve bytes");
    handoff
        .write_shard(NodeId(5), ShardId(1), &points)
        .await
        .unwrap();
    let until = async |wished: &dyn Fn(NodeState, u64) -> bool| {
        for _ in 0..5000 {
            let node = handoff.stats().nodes.remove(0);
            if wished(node.state, node.failures) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{:?}", handoff.stats());
    };
    until(&|_, failures| failures >= 10).await;
    assert_eq!(log.changes(), ["Down"], "ten failures, one line");

    writer.follow(|_| Reply::Take);
    until(&|state, _| state == NodeState::CaughtUp).await;
    assert_eq!(log.changes(), ["Down", "Replaying", "CaughtUp"]);

    // A node that is up flips between replaying and caught up with every hint: no news.
    for _ in 0..5 {
        handoff
            .write_shard(NodeId(5), ShardId(1), &points)
            .await
            .unwrap();
    }
    writer.until_taken(6).await;
    assert_eq!(log.changes().len(), 3);

    assert!(log.has_span(&["commit_group", "hints=1", " written_bytes="]));
    assert!(log.has_span(&[
        "replay_round",
        "node=5",
        "queue=1",
        "first=1",
        "last=1",
        "bytes=12"
    ]));
    handoff.shutdown().await.unwrap();
}
