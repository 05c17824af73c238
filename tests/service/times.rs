//! How long appends, groups and sends take, and how much disk is left, is counted and shown.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hinted_handoff::{NodeId, ShardId};
use hinted_handoff_testkit::{Reply, ScriptedWriter};

use crate::common::service::{quick, soon_node, start};

/// What each send takes.
const SEND: Duration = Duration::from_millis(3);
const NODE: NodeId = NodeId(2);

#[tokio::test(flavor = "multi_thread")]
async fn durable_appends_groups_and_sends_are_counted_with_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(ScriptedWriter::new(|_| Reply::Slow(SEND)));
    let handoff = start(quick(dir.path()), &writer).await;
    for number in 0..10 {
        let points = Bytes::from(format!("{number}"));
        handoff
            .write_shard(NODE, ShardId(1), &points)
            .await
            .unwrap();
    }
    soon_node(&handoff, NODE, |it| it.delivered.hints == 10).await;
    let stats = handoff.stats();
    let (appends, sends) = (&stats.store.append_times, &stats.send_times);
    assert_eq!(appends.count, 10);
    assert!((1..=10).contains(&sends.count), "{sends:?}");
    let at_least = Duration::from_micros(sends.sum_us) >= SEND * sends.count as u32;
    assert!(at_least, "{sends:?}");
    // Each append waited for a group of its own.
    assert!(stats.store.groups >= 10);
    assert!(stats.store.group_times.count >= 10);
    assert!(
        appends.sum_us >= appends.count,
        "each took a microsecond at least"
    );
    assert!(stats.store.free_disk_bytes > Some(0));
}
